//! `murre.v1` in Server-Sent Events (HTML standard, section 9.2).
//!
//! The events of a stream of one channel are the same bytes for all such streams. Those of a stream
//! of several channels have the positions of all of them as their id, so that a browser can give them
//! back, and are written for each stream.

use std::collections::HashMap;

use bytes::Bytes;
use murre_codec::http::{Request, Response};
use murre_core::{CloseReason, ConnId, Origins, Outbox, Queued};
use murre_router::channels::{Position, Publication, Start};

use super::query::{Query, UNREADABLE, event_id};
use super::{
    Cors, MURRE_EVENTS, MURRE_MIXED_EVENTS, Wires, end_refused, refusal, rejection, written,
};
use crate::hub::auth::User;
use crate::hub::encodings::Encoding;
use crate::hub::output::DisconnectReason;
use crate::hub::{Command, Hub, Push, Reply, RequestId, Session};
use crate::protocols::murre_v1::encode;
use crate::protocols::murre_v1::errors::{Code, WireError};

/// A publication as an event of a stream of this one channel.
const EVENT: Encoding = Encoding(2);
/// Channels of one stream at most.
const CHANNELS_MAX: usize = 32;

/// How many channels a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    One,
    Several,
}

/// The streams of several channels, by slot: each channel with what its client has seen of it.
#[derive(Default)]
pub(super) struct Streams {
    mixed: HashMap<u32, Vec<Seen>>,
}

/// A channel of a stream, and the position that its client has reached, as ids of events write it:
/// nothing where there is none, and [`UNREADABLE`] until the client has heard that it has lost it.
type Seen = (Box<str>, String);

/// Begins a stream: `/sse?topic=A&topic=B`, as a user's or as nobody's in particular.
///
/// # Errors
/// The answer to a request that cannot be obeyed.
pub(crate) fn begin(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<User>,
    origins: &Origins,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Response> {
    let cors = Cors::of(request, origins).ok_or_else(Cors::refused)?;
    let query = Query::read(request).map_err(|why| rejection(why, &cors))?;
    if !(1..=CHANNELS_MAX).contains(&query.channels.len()) {
        let why = "a stream is of 1 to 32 channels: /sse?topic=A&topic=B";
        return Err(rejection(WireError::new(Code::BadCommand, why), &cors));
    }
    for channel in &query.channels {
        let allowed = hub.may_subscribe(channel, user.is_some());
        allowed.map_err(|why| refusal(why, &cors))?;
    }
    let starts = query.starts(request).map_err(|why| rejection(why, &cors))?;
    let mixed = query.channels.len() > 1;
    let session = Session { conn, wire: if mixed { MURRE_MIXED_EVENTS } else { MURRE_EVENTS } };
    hub.open(session, user);
    if mixed {
        let seen = query.channels.iter().zip(&starts).map(|(channel, start)| {
            let position = match *start {
                Start::Head => String::new(),
                Start::After(position) => event_id(position),
                Start::AfterOffset(_) => UNREADABLE.to_owned(),
            };
            (channel.as_str().into(), position)
        });
        wires.transports.streams.mixed.insert(conn.index(), seen.collect());
    }
    for (channel, start) in query.channels.iter().zip(starts) {
        let subscribe = Command::Subscribe { channel, start };
        if let Err(why) = hub.execute(session, RequestId::None, subscribe, wires) {
            return Err(end_refused(conn, why, &cors, hub, wires));
        }
    }
    // A stream that cannot be written is the connection's end.
    let _ = wires.out.write(conn, |head| {
        head.extend_from_slice(HEAD);
        cors.write(head);
        head.extend_from_slice(b"\r\n");
    });
    hub.dispatch(wires);
    Ok(())
}

/// The head of a stream, without its last line. The stream ends with the connection.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
    X-Accel-Buffering: no\r\nConnection: close\r\n";

/// A comment, so that a proxy does not take silence for the end of the connection.
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// A stream has been silent for long.
pub(crate) fn keep_alive(conn: ConnId, out: &mut Outbox) {
    // What is queued is a sign of life, too; a stream that is gone needs none.
    if out.queued(conn) == 0 {
        let _ = out.send(conn, &KEEP_ALIVE);
    }
}

impl Streams {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.mixed.len()
    }

    /// The session is over.
    pub(super) fn forget(&mut self, slot: u32) {
        if self.mixed.remove(&slot).is_some() && self.mixed.is_empty() {
            self.mixed.shrink_to_fit();
        }
    }

    /// Queues an event that says what became of a subscription.
    pub(super) fn reply(
        &mut self,
        conn: ConnId,
        reply: Reply<'_>,
        scratch: &mut Vec<u8>,
        out: &mut Outbox,
    ) {
        let text = written(scratch, |text| encode::reply(text, &RequestId::None, reply));
        // A stream that is gone needs no event.
        let _ = match reply {
            Reply::Subscribed { channel, recovery } => {
                // While what was missed is on its way, the client has seen what it said it had.
                let recovers = recovery.is_some_and(|recovery| recovery.recovered == Some(true));
                let position = recovery.map(|recovery| recovery.position);
                let id = match recovers {
                    true => self.id(conn.index()),
                    false => self.moved(conn.index(), channel, position),
                };
                answer(conn, &event("subscribed", id.as_deref(), text), out)
            }
            Reply::Error(_) => {
                let queued = answer(conn, &event("error", None, text), out);
                out.close(conn, CloseReason::Finished);
                queued
            }
            _ => unreachable!("a stream asks for nothing else"),
        };
    }

    /// Queues an event.
    pub(super) fn push(&mut self, conn: ConnId, push: Push<'_>, of: Of, out: &mut Outbox) {
        // A stream that is gone needs none.
        let _ = match (push, of) {
            (Push::Publication { publication, encodings }, Of::One) => {
                let made = || {
                    let id = publication.position.map(event_id);
                    event("", id.as_deref(), &data(publication))
                };
                out.send(conn, encodings.get(EVENT, made))
            }
            (Push::Publication { publication, .. }, Of::Several) => {
                let Publication { channel, position, .. } = publication;
                let id = self.moved(conn.index(), channel, *position);
                out.send(conn, &event("", id.as_deref(), &data(publication)))
            }
            (Push::Dropped { channel, count }, _) => {
                let mut text = Vec::new();
                encode::dropped(&mut text, channel, count);
                answer(conn, &event("dropped", None, &text), out)
            }
            (Push::Request { .. }, _) => unreachable!("a stream serves nothing"),
        };
    }

    /// Says why a stream ends, and ends it with its connection.
    pub(super) fn end(&mut self, conn: ConnId, reason: DisconnectReason, out: &mut Outbox) {
        let (last, closed) = match reason.error() {
            None => {
                let retry = format!("retry: {}\n\n", u64::from(out.retry_after(conn)) * 1000);
                (retry.into_bytes().into(), CloseReason::Draining)
            }
            Some(code) => {
                let mut text = Vec::new();
                encode::error(&mut text, &RequestId::None, code.into());
                let slow = reason == DisconnectReason::Slow;
                let closed = if slow { CloseReason::SlowConsumer } else { CloseReason::Finished };
                (event("error", None, &text), closed)
            }
        };
        if reason == DisconnectReason::Slow {
            // It would take too long to read it all.
            out.drop_waiting(conn);
        }
        out.close_with(conn, closed, |bytes| bytes.extend_from_slice(&last));
    }

    /// The client of a stream is about to see a publication of this position, or to begin there:
    /// what it gives back when it is cut off behind it.
    fn moved(&mut self, slot: u32, channel: &str, position: Option<Position>) -> Option<String> {
        let Some(seen) = self.mixed.get_mut(&slot) else { return position.map(event_id) };
        if let Some((_, at)) = seen.iter_mut().find(|(name, _)| **name == *channel) {
            *at = position.map(event_id).unwrap_or_default();
        }
        self.id(slot)
    }

    /// The positions of all channels of a stream of several; `None` for a stream of one channel.
    fn id(&self, slot: u32) -> Option<String> {
        let ids = self.mixed.get(&slot)?.iter().map(|(_, at)| at.as_str());
        Some(ids.collect::<Vec<_>>().join(","))
    }
}

/// Queues an event of which there are few: one for each of the stream's channels at a time.
fn answer(conn: ConnId, event: &[u8], out: &mut Outbox) -> Queued {
    out.write_answer(conn, |bytes| bytes.extend_from_slice(event))
}

fn data(publication: &Publication) -> Vec<u8> {
    let Publication { payload, .. } = publication;
    let mut text = Vec::with_capacity(payload.bytes.len().saturating_add(HEAD_BYTES));
    encode::publication(&mut text, publication);
    text
}

/// Bytes around the data of an event, about.
const HEAD_BYTES: usize = 128;

/// One event. `data` is JSON text without line ends.
fn event(name: &str, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(data.len().saturating_add(HEAD_BYTES));
    for (field, value) in [("event: ", Some(name).filter(|name| !name.is_empty())), ("id: ", id)] {
        if let Some(value) = value {
            text.extend_from_slice(field.as_bytes());
            text.extend_from_slice(value.as_bytes());
            text.push(b'\n');
        }
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
    text.into()
}
