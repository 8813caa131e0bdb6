//! `murre.v1` over WebSocket.
//!
//! A text message is a command or a batch. A batch stops where its answers are not taken, where an
//! answer may be large and is not here yet, or where a signature check has to wait for the next turn.
//! The rest of it then waits here, the connection's input is held, and both go on when they can.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use murre_codec::{Kind, encode as frames};
use murre_core::{CloseReason, ConnId, Outbox};
use murre_router::channels::{Form, Payload, Publication};

use super::{MURRE_WEBSOCKET, Wires, written};
use crate::hub::encodings::Encoding;
use crate::hub::output::DisconnectReason;
use crate::hub::{Audience, Command, Flow, Hub, Outlet, Push, Reply, RequestId, Session};
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

/// Queues a text that answers the session's own commands: how many of these there are is bounded by
/// what is taken of its input, not by its queue.
fn answer(conn: ConnId, text: &[u8], out: &mut Outbox) {
    // A connection that is gone needs none.
    let _ = out.write_answer(conn, |bytes| {
        frames::write_frame(bytes, Kind::Text.opcode(), text, None);
    });
}

/// Queues a push.
pub(super) fn push(conn: ConnId, push: Push<'_>, scratch: &mut Vec<u8>, out: &mut Outbox) {
    // A connection that is gone needs none.
    let _ = match push {
        Push::Publication { publication, encodings } => {
            out.send(conn, encodings.get(FRAME, || frame(publication, scratch)))
        }
        Push::Dropped { channel, count } => {
            let text = written(scratch, |text| encode::dropped(text, channel, count));
            return answer(conn, text, out);
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

/// Says why a session ends, and closes its connection.
pub(super) fn end(conn: ConnId, reason: DisconnectReason, scratch: &mut Vec<u8>, out: &mut Outbox) {
    let closed = match reason {
        DisconnectReason::Slow => {
            // It would take too long to read it all.
            out.drop_waiting(conn);
            CloseReason::SlowConsumer
        }
        DisconnectReason::Draining => CloseReason::Draining,
        _ => CloseReason::Finished,
    };
    let why = match reason.error() {
        None => format!("service restart, retry={}", out.retry_after(conn)),
        Some(code) => {
            // `TooFast` is the answer to a command, which has been told.
            if reason != DisconnectReason::TooFast {
                reply(conn, &RequestId::None, Reply::Error(code.into()), scratch, out);
            }
            Code::Hub(code).name().to_owned()
        }
    };
    out.close_websocket(conn, close_code(reason), &why, closed);
}

// ---- in ----

/// The input of a shard's WebSockets.
#[derive(Default)]
pub(crate) struct Incoming {
    parser: Parser,
    /// By slot: messages of which a part waits, or whose answers are waited for. Each is one message
    /// at most, as the connection's input is held.
    paused: HashMap<u32, Paused>,
    /// Connections whose batches go on in the next turn.
    next_turn: VecDeque<ConnId>,
    item: Vec<u8>,
}

/// The rest of a message.
struct Paused {
    conn: ConnId,
    /// The commands that are left, with commas between them and a bracket behind; may be empty.
    rest: Vec<u8>,
    /// Bytes of `rest` that are done.
    at: usize,
    /// It is of a batch: each command is read as one of a batch, as it was before.
    of_batch: bool,
    /// The next command has been admitted before.
    admitted: bool,
}

/// Why a batch stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The session has ended.
    Ended,
    /// Its answers are not taken.
    Congested,
    /// The answers to this command, or to many before it, are waited for.
    Answer,
    /// This command has to be handed in again in the next turn.
    NextTurn,
}

impl Incoming {
    /// A whole message of a session.
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

    /// The connection has taken everything, or an answer that a message may have waited for is queued.
    pub(crate) fn resume(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        if !self.paused.is_empty() {
            self.proceed(conn, hub, wires);
        }
    }

    /// A new turn of the shard: batches that waited for it go on.
    pub(crate) fn turn(&mut self, hub: &mut Hub, wires: &mut Wires<'_>) {
        for _ in 0..self.next_turn.len() {
            let conn = self.next_turn.pop_front().expect("just counted");
            self.proceed(conn, hub, wires);
            if self.next_turn.back() == Some(&conn) {
                // The time of this turn is spent: it is the first of the next.
                self.next_turn.rotate_right(1);
                break;
            }
        }
        self.next_turn.shrink_to(PAUSED_KEPT);
    }

    /// Goes on with what is left of a message, as far as it can.
    fn proceed(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        let Incoming { parser, paused, next_turn, item } = self;
        let Some(left) = paused.get_mut(&conn.index()).filter(|left| left.conn == conn) else {
            return;
        };
        let session = Session { conn, wire: MURRE_WEBSOCKET };
        let limits = hub.config().limits;
        while !hub.must_wait(session) && !wires.congested(conn) {
            let rest = &left.rest[left.at..];
            let Some((command, next)) = split_first(rest) else {
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

    /// A session is over.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if !self.paused.is_empty() {
            self.paused.remove(&conn.index());
            self.paused.shrink_to(PAUSED_KEPT);
        }
    }

    /// Messages of which a part waits.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn paused(&self) -> usize {
        self.paused.len()
    }
}

/// Room for so many paused messages is kept.
const PAUSED_KEPT: usize = 64;

/// Whether a command counts against the session's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Needed,
    /// It has been counted when it was handed in first.
    Given,
}

/// Hands in one command. An error stops the batch.
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
                // What this shard can answer is answered now.
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

/// What is left of a message of valid JSON behind its first `done` commands.
fn rest_after(text: &[u8], done: usize) -> &[u8] {
    let text = text.trim_ascii_start();
    let Some(batch) = text.strip_prefix(b"[") else { return if done == 0 { text } else { &[] } };
    let mut rest = batch;
    for _ in 0..done {
        rest = split_first(rest).map_or(&[], |(_, rest)| rest);
    }
    rest
}

/// The first of some values with commas between them, and what follows its comma.
fn split_first(values: &[u8]) -> Option<(&[u8], &[u8])> {
    let (value, rest) = values.split_at(json::value_length(values));
    let comma = rest.iter().position(|&byte| byte == b',');
    (!value.is_empty()).then_some((value, comma.map_or(&[][..], |comma| &rest[comma..][1..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that are left of a message begin where the last one ended.
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
