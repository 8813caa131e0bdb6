//! `murre.v1` over Server-Sent Events (HTML standard, section 9.2).
//!
//! An event is the same bytes for all streams of one channel. In a stream of several channels, the
//! id of an event has the positions of all channels, so that a browser can return them. Such events
//! are encoded for each stream.

use std::collections::HashMap;

use bytes::Bytes;
use murre_codec::http::{self, Length, Request, Response, ResponseOptions};
use murre_core::{CloseReason, ConnId, Origins, Outbox, Queued};
use murre_router::channels::{Position, Publication, Start};
use murre_router::presence::Watch;

use super::event_id::{self, Place, Seen};
use super::query::Query;
use super::{
    Cors, MURRE_EVENTS, MURRE_MIXED_EVENTS, MURRE_PLAIN_EVENTS, MURRE_PLAIN_MIXED_EVENTS,
    Transports, Wires, end_refused, refusal, rejection, written,
};
use crate::hub::auth::User;
use crate::hub::encodings::Encoding;
use crate::hub::output::DisconnectReason;
use crate::hub::{Command, Disconnect, Hub, PresenceOptions, Push, Reply, RequestId, Session};
use crate::protocols::murre_v1::encode;
use crate::protocols::murre_v1::errors::{Code, WireError};

/// A publication as a chunked event of a stream of one channel.
const EVENT: Encoding = Encoding(2);
/// A publication as an event of a stream of one channel, without a chunk.
const PLAIN_EVENT: Encoding = Encoding(3);
/// The most channels of one stream.
const CHANNELS_MAX: usize = 32;

/// Whether a stream has one channel or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    One,
    Several,
}

/// The framing of the events in the body of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each event is a chunk, so clients that read chunks get an event when it arrives. Without
    /// chunks, some clients wait for more bytes or for the end of the body.
    Chunks,
    /// The body is the events alone and ends with the connection, for HTTP/1.0.
    Plain,
}

/// The form of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) of: Of,
    pub(super) framing: Framing,
}

impl Framing {
    fn of(request: &Request<'_, '_>) -> Self {
        if request.minor_version == 0 { Framing::Plain } else { Framing::Chunks }
    }

    fn length(self) -> Length {
        match self {
            Framing::Chunks => Length::Chunks,
            Framing::Plain => Length::Untold,
        }
    }

    /// Appends the bytes that `write` appends, framed as a part of the body.
    fn write(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Framing::Chunks => http::write_chunk(out, write),
            Framing::Plain => write(out),
        }
    }

    fn write_end(self, out: &mut Vec<u8>) {
        if self == Framing::Chunks {
            out.extend_from_slice(http::LAST_CHUNK);
        }
    }
}

/// The streams of several channels by slot, each with the progress of its client in every channel.
#[derive(Default)]
pub(super) struct Streams {
    mixed: HashMap<u32, Vec<Seen>>,
}

/// Begins a stream, `/sse?topic=A&topic=B`, for a user or for an anonymous client.
///
/// # Errors
/// The answer to a request that is refused.
pub(crate) fn begin(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<User>,
    origins: &Origins,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Response> {
    let Asked { channels, starts, watch, cors } =
        Asked::read(conn, request, user.as_ref(), origins, hub)?;
    let framing = Framing::of(request);
    let mixed = channels.len() > 1;
    let wire = match (mixed, framing) {
        (false, Framing::Chunks) => MURRE_EVENTS,
        (true, Framing::Chunks) => MURRE_MIXED_EVENTS,
        (false, Framing::Plain) => MURRE_PLAIN_EVENTS,
        (true, Framing::Plain) => MURRE_PLAIN_MIXED_EVENTS,
    };
    let session = Session { conn, wire };
    hub.open(session, user);
    if mixed {
        let seen = channels.iter().zip(&starts).map(|(channel, start)| Seen {
            channel: channel.as_str().into(),
            place: Place::of(*start),
        });
        wires.transports.streams.mixed.insert(conn.index(), seen.collect());
    }
    for (channel, start) in channels.iter().zip(starts) {
        let presence = PresenceOptions { watch, ..PresenceOptions::default() };
        let subscribe = Command::Subscribe { channel, start, token: None, presence };
        if let Err(why) = hub.execute(session, RequestId::None, subscribe, wires) {
            return Err(end_refused(conn, why, &cors, hub, wires));
        }
    }
    let Wires { out, transports: Transports { dates, .. } } = wires;
    let date = Some(dates.date(out.now()));
    let options = ResponseOptions { keep_alive: false, date, ..ResponseOptions::to(request) };
    let head = head(framing.length(), &cors);
    // If the head cannot be queued, the connection is ending and needs no stream.
    let _ = out.write(conn, |bytes| head.write_head(bytes, &options));
    hub.greet(session, wires);
    hub.dispatch(wires);
    Ok(())
}

/// The answer to HEAD: the head of the answer to GET, without a stream.
pub(crate) fn answer_to_head(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<&User>,
    origins: &Origins,
    hub: &Hub,
) -> Response {
    let asked = Asked::read(conn, request, user, origins, hub);
    asked.map_or_else(|refusal| refusal, |asked| head(Length::Untold, &asked.cors))
}

/// The channels of a request that is allowed.
struct Asked {
    channels: Vec<String>,
    /// The start in each channel.
    starts: Vec<Start>,
    /// What the stream is told of the members of its channels.
    watch: Option<Watch>,
    cors: Cors,
}

impl Asked {
    fn read(
        conn: ConnId,
        request: &Request<'_, '_>,
        user: Option<&User>,
        origins: &Origins,
        hub: &Hub,
    ) -> Result<Self, Response> {
        let cors = Cors::of(request, origins).ok_or_else(Cors::refused)?;
        let query = Query::read(request).map_err(|why| rejection(why, &cors))?;
        if !(1..=CHANNELS_MAX).contains(&query.channels.len()) {
            let why = "a stream is of 1 to 32 channels: /sse?topic=A&topic=B";
            return Err(rejection(WireError::new(Code::BadCommand, why), &cors));
        }
        for channel in &query.channels {
            hub.may_subscribe(conn, channel, user).map_err(|why| refusal(why, &cors))?;
        }
        let starts = query.starts(request).map_err(|why| rejection(why, &cors))?;
        Ok(Asked { channels: query.channels, starts, watch: query.presence, cors })
    }
}

/// The head of a stream. Its fields keep proxies from holding events back: those that compress skip
/// an answer that says `no-transform` (RFC 9111 section 5.2.2.6), and nginx does not buffer one that
/// says `X-Accel-Buffering: no`.
fn head(length: Length, cors: &Cors) -> Response {
    let head = Response { content_type: "text/event-stream", length, ..Response::text(200, "") };
    let head = head.with("Cache-Control", "no-store, no-transform");
    cors.add_to(head.with("X-Accel-Buffering", "no"))
}

/// A comment that shows a proxy that a silent connection is alive.
const KEEP_ALIVE: Bytes = Bytes::from_static(b"3\r\n:\n\n\r\n");
const PLAIN_KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Queues a comment for a stream that has been silent for a ping interval.
pub(super) fn keep_alive(conn: ConnId, framing: Framing, out: &mut Outbox) {
    let comment = match framing {
        Framing::Chunks => &KEEP_ALIVE,
        Framing::Plain => &PLAIN_KEEP_ALIVE,
    };
    // Queued bytes show that the stream is alive, too. A stream that has ended needs no comment.
    if out.queued(conn) == 0 {
        let _ = out.send(conn, comment);
    }
}

impl Streams {
    /// The number of stored streams of several channels.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.mixed.len()
    }

    /// Removes the state of a session that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        if self.mixed.remove(&slot).is_some() && self.mixed.is_empty() {
            self.mixed.shrink_to_fit();
        }
    }

    /// Queues an event with the result of a subscription.
    pub(super) fn reply(
        &mut self,
        conn: ConnId,
        Form { framing, .. }: Form,
        reply: Reply<'_>,
        scratch: &mut Vec<u8>,
        out: &mut Outbox,
    ) {
        let text = written(scratch, |text| encode::reply(text, &RequestId::None, reply));
        // A stream that has ended needs no event.
        let _ = match reply {
            Reply::Subscribed { channel, recovery, .. } => {
                // Before the missed publications arrive, the client's positions are the ones that
                // it sent.
                let recovers = recovery.is_some_and(|recovery| recovery.recovered == Some(true));
                let position = recovery.map(|recovery| recovery.position);
                let id = match recovers {
                    true => self.id(conn.index()),
                    false => self.moved(conn.index(), channel, position),
                };
                answer(conn, &event(framing, "subscribed", id.as_deref(), text), out)
            }
            Reply::Error(_) => {
                let queued = answer(conn, &event(framing, "error", None, text), out);
                out.close_with(conn, CloseReason::Finished, |bytes| framing.write_end(bytes));
                queued
            }
            _ => unreachable!("a stream asks for nothing else"),
        };
    }

    /// Queues a push as an event.
    pub(super) fn push(&mut self, conn: ConnId, form: Form, push: Push<'_>, out: &mut Outbox) {
        let Form { of, framing } = form;
        // A stream that has ended needs no event.
        let _ = match (push, of) {
            (Push::Publication { publication, encodings }, Of::One) => {
                let made = || {
                    let id = publication.position.map(event_id::of_one);
                    event(framing, "", id.as_deref(), &data(publication))
                };
                let encoding = match framing {
                    Framing::Chunks => EVENT,
                    Framing::Plain => PLAIN_EVENT,
                };
                out.send(conn, encodings.get(encoding, made))
            }
            (Push::Publication { publication, .. }, Of::Several) => {
                let Publication { channel, position, .. } = publication;
                let id = self.moved(conn.index(), channel, *position);
                out.send(conn, &event(framing, "", id.as_deref(), &data(publication)))
            }
            (Push::Connected { data }, _) => {
                let mut text = Vec::new();
                encode::connected(&mut text, data);
                answer(conn, &event(framing, "connected", None, &text), out)
            }
            (Push::Dropped { channel, count }, _) => {
                let mut text = Vec::new();
                encode::dropped(&mut text, channel, count);
                answer(conn, &event(framing, "dropped", None, &text), out)
            }
            (Push::Presence { channel, news, encodings, .. }, _) => {
                let made = || {
                    let mut text = Vec::new();
                    encode::news(&mut text, channel, news);
                    event(framing, encode::name_of_news(news), None, &text)
                };
                let encoding = match framing {
                    Framing::Chunks => EVENT,
                    Framing::Plain => PLAIN_EVENT,
                };
                out.send(conn, encodings.get(encoding, made))
            }
            (Push::Unsubscribed { channel, why }, _) => {
                let mut text = Vec::new();
                encode::unsubscribed(&mut text, channel, why);
                answer(conn, &event(framing, "unsubscribed", None, &text), out)
            }
            (Push::Request { .. }, _) => unreachable!("a stream serves nothing"),
        };
    }

    /// Queues the reason why a stream ends, and ends the stream and its connection.
    pub(super) fn end(
        &mut self,
        conn: ConnId,
        Form { framing, .. }: Form,
        disconnect: Disconnect<'_>,
        out: &mut Outbox,
    ) {
        let reason = disconnect.reason;
        let (last, closed) = match disconnect.error() {
            None => {
                let retry = format!("retry: {}\n\n", u64::from(out.retry_after(conn)) * 1000);
                let mut last = Vec::new();
                framing.write(&mut last, |text| text.extend_from_slice(retry.as_bytes()));
                (last.into(), CloseReason::Draining)
            }
            Some(error) => {
                let mut text = Vec::new();
                encode::error(&mut text, &RequestId::None, error.into());
                let slow = reason == DisconnectReason::Slow;
                let closed = if slow { CloseReason::SlowConsumer } else { CloseReason::Finished };
                (event(framing, "error", None, &text), closed)
            }
        };
        if reason == DisconnectReason::Slow {
            // A slow client would take too long to read the queued events.
            out.drop_waiting(conn);
        }
        out.close_with(conn, closed, |bytes| {
            bytes.extend_from_slice(&last);
            framing.write_end(bytes);
        });
    }

    /// Moves the client of a stream to this position in a channel. Returns the id of the next
    /// event, with which the client can continue.
    fn moved(&mut self, slot: u32, channel: &str, position: Option<Position>) -> Option<String> {
        let Some(seen) = self.mixed.get_mut(&slot) else { return position.map(event_id::of_one) };
        if let Some(seen) = seen.iter_mut().find(|seen| *seen.channel == *channel) {
            seen.place = position.map_or(Place::None, Place::At);
        }
        self.id(slot)
    }

    /// The positions of all channels of a stream of several; `None` for a stream of one channel.
    fn id(&self, slot: u32) -> Option<String> {
        self.mixed.get(&slot).map(|seen| event_id::of_several(seen))
    }
}

/// Queues an event that does not count against the send limit. There is at most one such event for
/// each channel of the stream at a time.
fn answer(conn: ConnId, event: &[u8], out: &mut Outbox) -> Queued {
    out.write_answer(conn, |bytes| bytes.extend_from_slice(event))
}

fn data(publication: &Publication) -> Vec<u8> {
    let Publication { payload, .. } = publication;
    let mut text = Vec::with_capacity(payload.bytes.len().saturating_add(HEAD_BYTES));
    encode::publication(&mut text, publication);
    text
}

/// The approximate bytes of an event besides its data.
const HEAD_BYTES: usize = 128 + http::CHUNK_BYTES_BESIDE_DATA;

/// Encodes one event. `data` is JSON text without line ends.
fn event(framing: Framing, name: &str, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(data.len().saturating_add(HEAD_BYTES));
    let name = Some(name).filter(|name| !name.is_empty());
    framing.write(&mut bytes, |text| {
        for (field, value) in [("event: ", name), ("id: ", id)] {
            if let Some(value) = value {
                text.extend_from_slice(field.as_bytes());
                text.extend_from_slice(value.as_bytes());
                text.push(b'\n');
            }
        }
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(data);
        text.extend_from_slice(b"\n\n");
    });
    bytes.into()
}
