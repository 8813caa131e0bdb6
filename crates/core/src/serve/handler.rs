//! The interface between an application and the HTTP and WebSocket server.

use std::time::{Duration, Instant};

use murre_codec::handshake::Upgrade;
use murre_codec::http::{Request, Response};
use murre_codec::{CloseCode, Kind, OpCode, encode};

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::{Outbox, Queued};

/// The application. [`Serve`](crate::Serve) reports each event by calling a method; the application
/// replies through [`Outbox`].
///
/// Every method runs on the shard's thread and must not block: the shard serves no other connection
/// during the call.
pub trait Handler {
    /// The application's state of a WebSocket or of a deferred response. Its size counts for every
    /// WebSocket: with a session of 4 bytes an idle connection takes 62 bytes.
    type Session;
    /// The mail that other threads may post to the application, as
    /// [`ServeMail::App`](crate::ServeMail).
    type Mail: Send + 'static;

    /// Returns whether the application takes the request now; called before
    /// [`request`](Handler::request) and [`open`](Handler::open). After `false` the request stays
    /// in the buffer and the connection is [held](Outbox::hold) until the application
    /// [releases](Outbox::release) it; then the server calls this method again.
    fn admits(&mut self, _conn: ConnId, _request: &Request<'_, '_>, _out: &mut Outbox) -> bool {
        true
    }

    /// Classifies a request for the limits of the server.
    fn kind(&self, _request: &Request<'_, '_>) -> RequestKind {
        RequestKind::Plain
    }

    /// Answers an HTTP request that is not an upgrade, now or later.
    fn request(
        &mut self,
        _conn: ConnId,
        _request: &Request<'_, '_>,
        _out: &mut Outbox,
    ) -> Answer<Self::Session> {
        Answer::Now(Response::text(404, "not found\n"))
    }

    /// Accepts or refuses a WebSocket. The handshake is valid (RFC 6455 section 4.2.1). The default
    /// implementation refuses all WebSockets.
    ///
    /// # Errors
    /// The response that refuses the WebSocket. The connection continues with HTTP.
    fn open(
        &mut self,
        _conn: ConnId,
        _request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
        _out: &mut Outbox,
    ) -> Result<Opened<Self::Session>, Response> {
        Err(Response::text(404, "no WebSockets here\n"))
    }

    /// The session begins. Bytes queued from now on follow the handshake of the WebSocket. For a
    /// deferred response they are the response itself, with its head.
    fn opened(&mut self, _conn: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The silence of a WebSocket after which the server pings it, if it is not
    /// [`ServeLimits::ping_interval`](crate::ServeLimits::ping_interval): longer, for clients that send
    /// something regularly. Must be the same as long as the session lives.
    fn ping_interval(&self, _session: &Self::Session) -> Option<Duration> {
        None
    }

    /// A complete message arrived on a WebSocket.
    fn message(
        &mut self,
        _conn: ConnId,
        _session: &mut Self::Session,
        _message: Message<'_>,
        _out: &mut Outbox,
    ) {
    }

    /// Returns whether the whole deferred response has been queued. Once it is sent, the connection
    /// continues with HTTP.
    fn answered(&self, _conn: ConnId, _session: &Self::Session) -> bool {
        false
    }

    /// The client sent bytes before its deferred response was complete, so the connection will end
    /// with the response, which should say `Connection: close` (RFC 9112 section 9.6).
    fn ends_with_answer(&mut self, _conn: ConnId, _session: &mut Self::Session) {}

    /// A deferred response or a stream has stayed open for another
    /// [`ping_interval`](crate::ServeLimits::ping_interval): the application may queue a heartbeat.
    fn waited(&mut self, _conn: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The timer that [`Outbox::set_session_timer`] set has expired.
    fn timer(&mut self, _conn: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The shard is draining. The application closes a WebSocket or a stream, and ends a deferred
    /// response as soon as it can.
    fn leave(&mut self, conn: ConnId, _session: &mut Self::Session, out: &mut Outbox) {
        out.close_restart(conn);
    }

    /// The shard is draining and has no connections left. Returns whether the shard may end; called
    /// again in each turn until the time limit of the drain.
    fn may_end(&mut self) -> bool {
        true
    }

    /// All bytes that were queued for the session have been sent.
    fn drained(&mut self, _conn: ConnId, _session: &mut Self::Session, _out: &mut Outbox) {}

    /// The session has ended, with its connection or with its deferred response. Called once for
    /// every session.
    fn close(
        &mut self,
        _conn: ConnId,
        _session: Self::Session,
        _reason: CloseReason,
        _out: &mut Outbox,
    ) {
    }

    /// Another thread posted this mail.
    fn mail(&mut self, _mail: Self::Mail, _out: &mut Outbox) {}

    /// Called once in every turn of the shard, after mail, completions and timers.
    fn turn(&mut self, _out: &mut Outbox) {}

    /// The latest time of the next turn, even if nothing happens; `None` is no limit.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

/// The kind of a request, for the limits of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A health check of a load balancer. The server answers it even if its connection exceeds a
    /// limit of its address; that connection then ends.
    HealthCheck,
    /// A request that would start a session, or needs the rights to. Like a WebSocket, the server refuses
    /// it while memory is short, and counts one that a trusted proxy passes on for its client, until it is
    /// answered.
    Session,
    /// A request of a session that has begun and outlives its requests. The server takes it while memory
    /// is short, as the requests of connections that are older; then a new connection ends with the answer.
    Continues,
    /// Any other request.
    Plain,
}

/// The response to a request, or when it comes.
#[derive(Debug)]
pub enum Answer<S> {
    /// The complete response.
    Now(Response),
    /// The response is deferred: the session lasts until its end. The server discards bytes that
    /// the client sends before then, and ends the connection with the response.
    Later(S),
    /// The response is a stream, which ends with the connection. The server calls
    /// [`waited`](Handler::waited) at different times for streams that begin together.
    Stream(S),
}

/// An accepted WebSocket.
#[derive(Debug)]
pub struct Opened<S> {
    /// The application's state of the WebSocket.
    pub session: S,
    /// One of the subprotocols that the client offered (RFC 6455 section 1.9), or none.
    pub protocol: Option<&'static str>,
}

impl<S> Opened<S> {
    /// Accepts a WebSocket without a subprotocol.
    pub fn new(session: S) -> Self {
        Opened { session, protocol: None }
    }
}

/// A complete message, reassembled from its frames.
#[derive(Debug)]
pub struct Message<'b> {
    /// Text, whose UTF-8 has been checked, or binary.
    pub kind: Kind,
    /// The unmasked payload. The application may change it in place.
    pub bytes: &'b mut [u8],
}

/// Frames of a server (RFC 6455 section 5.2).
impl Outbox {
    /// Queues a message for one connection. To send one message to many connections, frame it once
    /// with [`encode::frame`] and queue it with [`send`](Outbox::send).
    pub fn message(&mut self, conn: ConnId, kind: Kind, payload: &[u8]) -> Queued {
        self.write(conn, |out| encode::write_frame(out, kind.opcode(), payload, None))
    }

    /// Queues a control frame; `payload` is at most 125 bytes.
    pub(crate) fn control(&mut self, conn: ConnId, opcode: OpCode, payload: &[u8]) -> Queued {
        self.write(conn, |out| encode::write_frame(out, opcode, payload, None))
    }

    /// Drops the queued bytes, sends a close frame and closes: for a peer that would take too long
    /// to read its whole queue. `why` is at most 123 bytes.
    pub fn cut_off(&mut self, conn: ConnId, code: CloseCode, why: &str, reason: CloseReason) {
        self.drop_waiting(conn);
        self.close_websocket(conn, code, why, reason);
    }

    /// Sends the queued bytes and a close frame, then closes. `why` is at most 123 bytes.
    pub fn close_websocket(
        &mut self,
        conn: ConnId,
        code: CloseCode,
        why: &str,
        reason: CloseReason,
    ) {
        self.note_close_code(conn, code);
        self.close_with(conn, reason, |out| encode::write_close(out, code, why, None));
    }

    /// Sends the queued bytes, then closes for a drain. The close frame of a WebSocket has the code
    /// 1012, "Service Restart" (IANA's WebSocket Close Code Number Registry), and the number of
    /// seconds after which the client should reconnect.
    pub fn close_restart(&mut self, conn: ConnId) {
        if !self.is_websocket(conn) {
            return self.close(conn, CloseReason::Draining);
        }
        let why = format!("service restart, retry={}", self.retry_after(conn));
        self.close_websocket(conn, CloseCode::Restart, &why, CloseReason::Draining);
    }
}
