//! `murre.v1` over WebSocket.
//!
//! A text message is a command or a batch of commands. A batch pauses if the client does not read
//! its answers, if it must wait for an answer that may be large, or if a signature check must wait
//! for the next turn. The rest of the batch is then stored here and the input of the connection is
//! held until the batch can continue.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use murre_codec::{Kind, encode as frames};
use murre_core::{CloseReason, ConnId, Outbox};
use murre_router::channels::{Form, Payload, Publication};

use super::next_turn::{PAUSED_KEPT, continue_waiting};
use super::{MURRE_WEBSOCKET, Wires, written};
use crate::hub::encodings::Encoding;
use crate::hub::output::DisconnectReason;
use crate::hub::{
    Audience, Command, Disconnect, Flow, Hub, Outlet, Push, Reply, RequestId, Session,
};
use crate::protocols::json;
use crate::protocols::murre_v1::decode::{Item, Parser};
use crate::protocols::murre_v1::errors::{Code, close_code};
use crate::protocols::murre_v1::{binary, encode};

/// A publication as a WebSocket frame.
const FRAME: Encoding = Encoding(1);

// ---- out ----

/// Queues a reply.
pub(super) fn reply(
    conn: ConnId,
    request: &RequestId,
    reply: Reply<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Outbox,
) {
    let text = written(scratch, |text| encode::reply(text, request, reply));
    answer(conn, text, out);
}

/// Queues an answer to a command of the session. The server limits the number of such answers by
/// pausing the input of the session, not by the send limit.
fn answer(conn: ConnId, text: &[u8], out: &mut Outbox) {
    // A connection that has ended needs no answer.
    let _ = out.write_answer(conn, |bytes| {
        frames::write_frame(bytes, Kind::Text.opcode(), text, None);
    });
}

/// Queues a push.
pub(super) fn push(conn: ConnId, push: Push<'_>, scratch: &mut Vec<u8>, out: &mut Outbox) {
    // A connection that has ended needs no push.
    let _ = match push {
        Push::Publication { publication, encodings } => {
            out.send(conn, encodings.get(FRAME, || frame(publication, scratch)))
        }
        Push::Connected { data } => {
            let text = written(scratch, |text| encode::connected(text, data));
            return answer(conn, text, out);
        }
        Push::Dropped { channel, count } => {
            let text = written(scratch, |text| encode::dropped(text, channel, count));
            return answer(conn, text, out);
        }
        Push::Presence { channel, news, encodings, .. } => {
            let frame = || {
                let message = written(scratch, |text| encode::news(text, channel, news));
                frames::frame(Kind::Text.opcode(), message)
            };
            out.send(conn, encodings.get(FRAME, frame))
        }
        Push::Unsubscribed { channel, why } => {
            let text = written(scratch, |text| encode::unsubscribed(text, channel, why));
            out.message(conn, Kind::Text, text)
        }
        Push::Request { request, service, payload } => {
            let request = request.to_string();
            let text = written(scratch, |text| encode::request(text, &request, service, payload));
            out.message(conn, Kind::Text, text)
        }
    };
}

fn frame(publication: &Publication, scratch: &mut Vec<u8>) -> Bytes {
    let Publication { channel, position, payload, .. } = publication;
    match payload.form {
        Form::Json => {
            let message = written(scratch, |text| encode::publication(text, publication));
            frames::frame(Kind::Text.opcode(), message)
        }
        Form::Binary => {
            let offset = position.map_or(0, |position| position.offset);
            let write = |bytes: &mut _| binary::write(bytes, channel, offset, payload.data());
            frames::frame(Kind::Binary.opcode(), written(scratch, write))
        }
    }
}

/// Queues the reason why a session ends, and closes its connection.
pub(super) fn end(
    conn: ConnId,
    disconnect: Disconnect<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Outbox,
) {
    let reason = disconnect.reason;
    let closed = match reason {
        DisconnectReason::Slow => {
            // A slow client would take too long to read the queued messages.
            out.drop_waiting(conn);
            CloseReason::SlowConsumer
        }
        DisconnectReason::Draining => CloseReason::Draining,
        _ => CloseReason::Finished,
    };
    let why = match disconnect.error() {
        None => format!("service restart, retry={}", out.retry_after(conn)),
        Some(error) => {
            // For `TooFast`, the answer to the command has already named the reason.
            if reason != DisconnectReason::TooFast {
                reply(conn, &RequestId::None, Reply::Error(error), scratch, out);
            }
            error.detail.unwrap_or(Code::Hub(error.code).name()).to_owned()
        }
    };
    out.close_websocket(conn, close_code(disconnect), &why, closed);
}

// ---- in ----

/// The input of a shard's WebSockets.
#[derive(Default)]
pub(crate) struct Incoming {
    parser: Parser,
    /// Paused messages by slot: a part of them has not been handled, or their answers are
    /// outstanding. There is at most one for each connection, because its input is held.
    paused: HashMap<u32, Paused>,
    /// Connections whose batches continue in the next turn.
    next_turn: VecDeque<ConnId>,
    item: Vec<u8>,
}

/// The rest of a paused message.
struct Paused {
    conn: ConnId,
    /// The remaining commands, separated by commas and followed by a bracket; may be empty.
    rest: Vec<u8>,
    /// The number of bytes of `rest` that have been handled.
    at: usize,
    /// Whether the commands belong to a batch, so that each is parsed as a command of a batch.
    of_batch: bool,
    /// Whether the next command has already been admitted.
    admitted: bool,
}

/// The reason why a batch pauses or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The session has ended.
    Ended,
    /// The client does not read its answers.
    Congested,
    /// The answers to this command, or to many commands before it, are outstanding.
    Answer,
    /// This command must be passed to the hub again in the next turn.
    NextTurn,
}

impl Incoming {
    /// Handles a whole message of a session.
    pub(crate) fn message(
        &mut self,
        session: Session,
        kind: Kind,
        bytes: &[u8],
        hub: &mut Hub,
        wires: &mut Wires<'_>,
    ) {
        debug_assert!(!self.paused.contains_key(&session.conn.index()), "its input is held");
        match kind {
            Kind::Text => self.text(session, bytes, hub, wires),
            Kind::Binary => publish_binary(session, bytes, hub, wires),
        }
        hub.dispatch(wires);
    }

    fn text(&mut self, session: Session, text: &[u8], hub: &mut Hub, wires: &mut Wires<'_>) {
        let limits = hub.config().limits;
        let (mut done, mut stop) = (0, None);
        self.parser.read(text, &limits, |item| {
            if stop.is_none() {
                stop = command(session, item, Admission::Needed, hub, wires).err();
                done = usize::from(stop != Some(Stop::NextTurn)).saturating_add(done);
            }
        });
        let Some(stop) = stop.filter(|&stop| stop != Stop::Ended) else { return };
        let rest = rest_after(text, done);
        if rest.is_empty() && stop == Stop::Congested {
            return;
        }
        let (conn, admitted) = (session.conn, stop == Stop::NextTurn);
        let of_batch = text.trim_ascii_start().starts_with(b"[");
        let paused = Paused { conn, rest: rest.to_vec(), at: 0, of_batch, admitted };
        self.paused.insert(conn.index(), paused);
        wires.out.hold(conn);
        if stop == Stop::NextTurn {
            self.next_turn.push_back(conn);
        }
    }

    /// Whether no message is paused.
    pub(crate) fn is_idle(&self) -> bool {
        self.paused.is_empty()
    }

    /// Continues a paused message: its connection has sent all queued bytes, or has queued an
    /// answer for which the message may have waited.
    pub(crate) fn resume(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        if !self.paused.is_empty() {
            self.proceed(conn, hub, wires);
        }
    }

    /// Continues the batches that waited for a new turn of the shard.
    pub(crate) fn turn(&mut self, hub: &mut Hub, wires: &mut Wires<'_>) {
        continue_waiting(
            self,
            |incoming| &mut incoming.next_turn,
            |incoming, conn| incoming.proceed(conn, hub, wires),
        );
    }

    /// Handles the remaining commands of a message until the message must pause again.
    fn proceed(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        let Incoming { parser, paused, next_turn, item } = self;
        let Some(left) = paused.get_mut(&conn.index()).filter(|left| left.conn == conn) else {
            return;
        };
        let session = Session { conn, wire: MURRE_WEBSOCKET };
        let limits = hub.config().limits;
        while !hub.must_wait(session) && !wires.congested(conn) {
            let rest = &left.rest[left.at..];
            let Some((command, next)) = json::split_first(rest) else {
                paused.remove(&conn.index());
                paused.shrink_to(PAUSED_KEPT);
                wires.out.release(conn);
                break;
            };
            item.clear();
            let (open, close) =
                if left.of_batch { (&b"["[..], &b"]"[..]) } else { (&b""[..], &b""[..]) };
            [open, command, close].into_iter().for_each(|part| item.extend_from_slice(part));
            let next = left.rest.len().saturating_sub(next.len());
            let admission = match std::mem::take(&mut left.admitted) {
                true => Admission::Given,
                false => Admission::Needed,
            };
            let mut stop = None;
            parser.read(item, &limits, |item| {
                stop = self::command(session, item, admission, hub, wires).err();
            });
            if stop == Some(Stop::NextTurn) {
                left.admitted = true;
                next_turn.push_back(conn);
                break;
            }
            left.at = next;
            if stop == Some(Stop::Ended) {
                break;
            }
        }
        hub.dispatch(wires);
    }

    /// Removes the paused message of a session that has ended.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if !self.paused.is_empty() {
            self.paused.remove(&conn.index());
            self.paused.shrink_to(PAUSED_KEPT);
        }
    }

    /// The number of paused messages.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn paused(&self) -> usize {
        self.paused.len()
    }
}

/// Whether a command counts against the session's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Needed,
    /// The command was counted when it was first passed to the hub.
    Given,
}

/// Passes one command to the hub.
///
/// # Errors
/// The reason why the batch pauses or ends.
fn command(
    session: Session,
    Item { request, command }: Item<'_>,
    admission: Admission,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Stop> {
    if !wires.out.is_open(session.conn) {
        return Err(Stop::Ended);
    }
    if admission == Admission::Given || hub.admit(session, &request, wires) {
        match command {
            Err(why) => {
                hub.count_refused();
                let scratch = &mut wires.transports.scratch;
                let text = written(scratch, |text| encode::error(text, &request, why));
                answer(session.conn, text, wires.out);
            }
            Ok(command) => {
                if hub.handle(session, request, command, wires) == Flow::Retry {
                    return Err(Stop::NextTurn);
                }
                // Answers of this shard are queued now, before the next command.
                hub.dispatch(wires);
            }
        }
    }
    if hub.must_wait(session) {
        return Err(Stop::Answer);
    }
    match wires.congested(session.conn) {
        true => Err(Stop::Congested),
        false => Ok(()),
    }
}

fn publish_binary(session: Session, bytes: &[u8], hub: &mut Hub, wires: &mut Wires<'_>) {
    if !hub.admit(session, &RequestId::None, wires) {
        return;
    }
    match binary::read(bytes, &hub.config().limits) {
        Ok((channel, bytes)) => {
            let payload = Payload::new(Form::Binary, bytes);
            let publish = Command::Publish { channel, payload, to: Audience::Everybody };
            hub.handle(session, RequestId::None, publish, wires);
        }
        Err(why) => {
            hub.count_refused();
            let scratch = &mut wires.transports.scratch;
            let text = written(scratch, |text| encode::error(text, &RequestId::None, why));
            answer(session.conn, text, wires.out);
        }
    }
}

/// The rest of a message of valid JSON after its first `done` commands.
fn rest_after(text: &[u8], done: usize) -> &[u8] {
    let text = text.trim_ascii_start();
    let Some(batch) = text.strip_prefix(b"[") else { return if done == 0 { text } else { &[] } };
    let mut rest = batch;
    for _ in 0..done {
        rest = json::split_first(rest).map_or(&[], |(_, rest)| rest);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The remaining commands of a message begin where the last handled command ended.
    #[test]
    fn what_is_left_of_a_batch() {
        let batch = br#" [ {"a":[1,2]} , "x,y" ,3]  "#;
        for (done, rest) in [(1, r#" "x,y" ,3]  "#), (2, "3]  "), (3, "")] {
            assert_eq!(rest_after(batch, done), rest.as_bytes(), "{done}");
        }
        assert_eq!(rest_after(br#" {"a":1} "#, 0), br#"{"a":1} "#);
        assert_eq!(rest_after(br#" {"a":1} "#, 1), b"");
        assert_eq!(rest_after(b"", 0), b"");
    }
}
