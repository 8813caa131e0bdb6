//! What an embedding program implements.

use std::time::Instant;

use murre_codec::handshake::Upgrade;
use murre_codec::http::{Request, Response};
use murre_codec::{CloseCode, Kind, OpCode, encode};

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::{Outbox, Queued};

/// The application. It is told what happened and answers through [`Outbox`].
///
/// Every method runs on the shard's thread and must not block: the shard serves nobody meanwhile.
pub trait Handler {
    /// What the application remembers of a WebSocket, or of an answer that comes later. It is paid
    /// for every one of them.
    type Session;
    /// What other threads may post to it.
    type Mail: Send + 'static;

    /// Whether the request may be worked on now; asked before [`request`](Handler::request) and
    /// [`open`](Handler::open). If not, nothing of it is consumed and the connection is
    /// [held](Outbox::hold): the handler [releases](Outbox::release) it later, and is asked again then.
    fn admits(&mut self, _id: ConnId, _request: &Request<'_, '_>, _out: &mut Outbox) -> bool {
        true
    }

    /// What a request is to the limits that hold before it is served. Asked while the server is short of
    /// memory, and of the first request of a connection that its address may not have.
    fn kind(&self, _request: &Request<'_, '_>) -> RequestKind {
        RequestKind::Plain
    }

    /// Answers a plain HTTP request, or says that it will.
    fn request(
        &mut self,
        _id: ConnId,
        _request: &Request<'_, '_>,
        _out: &mut Outbox,
    ) -> Answer<Self::Session> {
        Answer::Now(Response::text(404, "not found\n"))
    }

    /// Accepts a WebSocket, whose handshake is correct, or refuses it with an answer. A handler
    /// without this method refuses all.
    ///
    /// # Errors
    /// The refusal. The connection goes on as an HTTP connection.
    fn open(
        &mut self,
        _id: ConnId,
        _request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
        _out: &mut Outbox,
    ) -> Result<Opened<Self::Session>, Response> {
        Err(Response::text(
            404,
            "no WebSockets here
",
        ))
    }

    /// The WebSocket is open: what is queued from here on follows the handshake. Or an answer is
    /// to come later: what is queued from here on is that answer, head and all.
    fn opened(&mut self, _id: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// A whole message arrived at a WebSocket.
    fn message(
        &mut self,
        _id: ConnId,
        _session: &mut Self::Session,
        _message: Message<'_>,
        _out: &mut Outbox,
    ) {
    }

    /// Whether an answer that was to come later has been queued to its end: the connection then
    /// goes on with HTTP.
    fn answered(&self, _id: ConnId, _session: &Self::Session) -> bool {
        false
    }

    /// The connection ends with the answer that is to come, because the client has sent something
    /// before it had it: the answer says so (`Connection: close`, RFC 9112 section 9.6).
    fn ends_with_answer(&mut self, _id: ConnId, _session: &mut Self::Session) {}

    /// An answer that comes later, or a stream, has not come to its end for another ping interval.
    fn waited(&mut self, _id: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The session's timer ran out: [`Outbox::set_session_timer`].
    fn timer(&mut self, _id: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The shard is being drained. The handler closes a WebSocket. It queues the rest of a deferred
    /// answer as soon as it can; an answer without an end closes the connection.
    fn leave(&mut self, id: ConnId, _session: &mut Self::Session, out: &mut Outbox) {
        out.close_restart(id);
    }

    /// The shard is being drained and has no connections any more. Whether it may end; asked again
    /// until the drain's time is over.
    fn may_end(&mut self) -> bool {
        true
    }

    /// All that was queued for the WebSocket, or for the answer that comes later, has been sent.
    fn drained(&mut self, _id: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The WebSocket is over, or the answer that came later. Called once for every session.
    fn close(
        &mut self,
        _id: ConnId,
        _session: Self::Session,
        _reason: CloseReason,
        _out: &mut Outbox,
    ) {
    }

    /// Something was posted.
    fn mail(&mut self, _mail: Self::Mail, _out: &mut Outbox) {}

    /// Called once in every turn of the shard, after everything else.
    fn turn(&mut self, _out: &mut Outbox) {}

    /// When there should be a turn at the latest, whether or not anything happens.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

/// A kind of request, for the limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A load balancer looks whether the server is well: answered also on a connection that its address
    /// may not have, and then the connection ends.
    HealthCheck,
    /// It would start a session: refused while the server is short of memory, as a WebSocket is.
    Session,
    /// Any other.
    Plain,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer<S> {
    /// This is the answer.
    Now(Response),
    /// The answer comes later; its session is remembered until it has. What the client sends
    /// meanwhile is thrown away, and then the connection ends with the answer.
    Later(S),
    /// The answer is a stream, which ends with the connection. Streams that begin together are told
    /// at different times that they have [waited](Handler::waited).
    Stream(S),
}

/// An accepted WebSocket.
#[derive(Debug)]
pub struct Opened<S> {
    /// What to remember of it.
    pub session: S,
    /// The subprotocol chosen of those that the client offered.
    pub protocol: Option<&'static str>,
}

impl<S> Opened<S> {
    /// Accepts without a subprotocol.
    pub fn new(session: S) -> Self {
        Opened { session, protocol: None }
    }
}

/// A whole message, whatever frames and packets it came in.
#[derive(Debug)]
pub struct Message<'b> {
    /// Text, which is valid UTF-8, or binary.
    pub kind: Kind,
    /// The payload, to be read or changed in place.
    pub bytes: &'b mut [u8],
}

/// What WebSocket handlers queue, framed.
impl Outbox {
    /// Queues a message of this connection's own. What goes to many is better framed once, by
    /// [`encode::frame`], and queued with [`send`](Outbox::send).
    pub fn message(&mut self, id: ConnId, kind: Kind, payload: &[u8]) -> Queued {
        self.write(id, |out| encode::write_frame(out, kind.opcode(), payload, None))
    }

    /// Queues a control frame; `payload` is at most 125 bytes.
    pub(crate) fn control(&mut self, id: ConnId, opcode: OpCode, payload: &[u8]) -> Queued {
        self.write(id, |out| encode::write_frame(out, opcode, payload, None))
    }

    /// Drops what waits, sends a close frame and closes: for who would take too long to read it all.
    pub fn cut_off(&mut self, id: ConnId, code: CloseCode, why: &str, reason: CloseReason) {
        self.drop_waiting(id);
        self.close_websocket(id, code, why, reason);
    }

    /// Sends what is queued and a close frame, then closes.
    pub fn close_websocket(&mut self, id: ConnId, code: CloseCode, why: &str, reason: CloseReason) {
        self.note_close_code(id, code);
        self.close_with(id, reason, |out| encode::write_close(out, code, why, None));
    }

    /// Sends what is queued, then closes for a drain. A WebSocket is told that the service restarts
    /// (1012 in the registry of close codes) and after how many seconds to come back.
    pub fn close_restart(&mut self, id: ConnId) {
        if !self.is_websocket(id) {
            return self.close(id, CloseReason::Draining);
        }
        let why = format!("service restart, retry={}", self.retry_after(id));
        self.close_websocket(id, CloseCode::Restart, &why, CloseReason::Draining);
    }
}
