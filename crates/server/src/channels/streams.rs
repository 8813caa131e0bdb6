//! Subscribers without WebSocket: Server-Sent Events, and long polls.
//!
//! The events of a stream of one channel are the same bytes for all of them. Those of several
//! channels name the positions of all, so that a browser can give them back, and are written for
//! each stream.

use std::collections::HashMap;

use bytes::Bytes;
use murre_codec::http::{Request, Response};
use murre_core::{ConnId, Outbox};
use murre_router::topics::{Past, Position, Publication};

use super::answer::{self, Answer};
use super::clients::Speaks;
use super::frames::{self, event, event_id, read_position};
use super::lagging::{Delivered, Lagging};
use super::namespaces::Slow;

/// What is remembered of streams of several channels, and of polls that wait; by slot.
#[derive(Default)]
pub(crate) struct Streams {
    mixed: HashMap<u32, Vec<Stood>>,
    /// Where those who poll stand.
    polls: HashMap<u32, Position>,
    /// Polls that have been answered and are subscribed still.
    answered: Vec<ConnId>,
}

/// What a request for a stream or a poll asks for.
pub(crate) struct Asked {
    pub(crate) topics: Vec<String>,
    pub(crate) position: Option<Position>,
}

/// Channels of one stream at most.
pub(crate) const TOPICS_MAX: usize = 32;

impl Asked {
    /// Reads the query.
    pub(crate) fn of(request: &Request<'_, '_>) -> Self {
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let mut asked = Asked { topics: Vec::new(), position: None };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                // Twice is once.
                "topic" if asked.topics.iter().any(|topic| *topic == value) => {}
                "topic" => asked.topics.push(value.into_owned()),
                "position" => asked.position = read_position(&value),
                _ => {}
            }
        }
        asked
    }

    /// Where the client stood in each channel when its stream was cut off.
    pub(crate) fn positions(&self, request: &Request<'_, '_>) -> Vec<Option<Position>> {
        let last = request.header("last-event-id").and_then(|last| str::from_utf8(last).ok());
        let mut positions: Vec<_> =
            last.unwrap_or_default().split(',').map(read_position).collect();
        positions.resize(self.topics.len(), None);
        positions
    }
}

/// A channel of a stream, and where its client stands in it.
pub(crate) type Stood = (Box<str>, Option<Position>);

/// The head of a stream. It ends with the connection.
pub(crate) const EVENTS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\nX-Accel-Buffering: no\r\n\
    Connection: close\r\n\r\n";

/// Keeps what is between us and the client from taking silence for an end.
pub(crate) const SIGN_OF_LIFE: Bytes = Bytes::from_static(b":\n\n");

impl Streams {
    /// A stream of several channels begins, with the position given for each.
    pub(crate) fn mix(&mut self, slot: u32, channels: Vec<Stood>) {
        self.mixed.insert(slot, channels);
    }

    /// The connection is over.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.mixed.remove(&slot);
        self.polls.remove(&slot);
    }

    /// A stream's subscription is there: says so, and what it missed.
    pub(crate) fn subscribed(
        &mut self,
        id: ConnId,
        name: &str,
        past: Option<&Past>,
        out: &mut Outbox,
    ) {
        let missed = past.map_or(&[][..], |past| &past.publications);
        let position = past.map(|past| past.position);
        let recovered = past.and_then(|past| past.recovered);
        let mut text = Vec::new();
        Answer::Subscribed { identifier: name, position, recovered }.write(None, &mut text);
        // Whoever is cut off here has not seen what is missed.
        let seen = missed.first().and_then(|first| first.position).map(before).or(position);
        let event_id = self.moved(id.index(), name, seen);
        let mut queued = out.send(id, &event("subscribed", &event_id, &text));
        for publication in missed {
            let event_id = self.moved(id.index(), name, publication.position);
            queued = out.send(id, &event("", &event_id, &frames::json(publication)));
        }
        // A stream that cannot be written is the connection's end.
        let _ = queued;
    }

    /// A publication for a stream of several channels.
    pub(crate) fn deliver(
        &mut self,
        id: ConnId,
        publication: &Publication,
        lagging: &mut Lagging,
        slow: Slow,
        out: &mut Outbox,
    ) -> Delivered {
        let event_id = self.moved(id.index(), &publication.topic, publication.position);
        let event = event("", &event_id, &frames::json(publication));
        lagging.deliver((id, Speaks::MixedEvents), slow, &publication.topic, &event, out)
    }

    /// What the client is to give back when it has been cut off.
    fn moved(&mut self, slot: u32, name: &str, position: Option<Position>) -> Option<String> {
        let Some(channels) = self.mixed.get_mut(&slot) else { return position.map(event_id) };
        if let Some((_, at)) = channels.iter_mut().find(|(channel, _)| **channel == *name) {
            *at = position;
        }
        let ids = channels.iter().map(|(_, at)| at.map(event_id).unwrap_or_default());
        Some(ids.collect::<Vec<_>>().join(","))
    }

    /// A poll's subscription is there. Returns whether that answers it.
    pub(crate) fn polled(
        &mut self,
        id: ConnId,
        name: &str,
        past: Option<&Past>,
        out: &mut Outbox,
    ) -> bool {
        let Some(past) = past else { return false };
        let wait = past.recovered == Some(true) && past.publications.is_empty();
        if wait && !out.is_draining() {
            self.polls.insert(id.index(), past.position);
            return false;
        }
        answer_poll(
            id,
            name,
            past.position,
            past.recovered != Some(false),
            &past.publications,
            out,
        );
        true
    }

    /// A publication for a poll that waits.
    pub(crate) fn answer(
        &mut self,
        id: ConnId,
        publication: &Publication,
        out: &mut Outbox,
    ) -> Delivered {
        let (Some(_), Some(position)) = (self.polls.remove(&id.index()), publication.position)
        else {
            return Delivered::Gone;
        };
        let name = &publication.topic;
        answer_poll(id, name, position, true, std::slice::from_ref(publication), out);
        self.answered.push(id);
        Delivered::Sent
    }

    /// A poll has waited long enough, or as long as it can. Returns whether it is answered by that.
    pub(crate) fn waited(&mut self, id: ConnId, name: &str, out: &mut Outbox) -> bool {
        let Some(position) = self.polls.remove(&id.index()) else { return false };
        answer_poll(id, name, position, true, &[], out);
        true
    }

    /// The next poll that a publication has answered.
    pub(crate) fn answered(&mut self) -> Option<ConnId> {
        self.answered.pop()
    }
}

/// The position just before that of the first publication that was missed.
fn before(first: Position) -> Position {
    Position { offset: first.offset - 1, ..first }
}

fn answer_poll(
    id: ConnId,
    name: &str,
    position: Position,
    recovered: bool,
    publications: &[Publication],
    out: &mut Outbox,
) {
    let mut body = Vec::new();
    let publications = publications.iter().map(frames::numbered);
    answer::poll(&mut body, name, position, recovered, publications);
    let (response, keep_alive) = (json_response(200, body), !out.is_draining());
    // A client that has gone needs no answer.
    let _ = out.write(id, |bytes| response.write(bytes, false, keep_alive, 1, None));
}

/// The last of a stream: after how many seconds its client is to come back.
pub(crate) fn retry(seconds: u32) -> Vec<u8> {
    format!("retry: {}\n\n", seconds * 1000).into_bytes()
}

/// An answer in JSON, for pages from anywhere.
pub(crate) fn json_response(status: u16, body: Vec<u8>) -> Response {
    Response { content_type: "application/json", ..Response::text(status, body) }
        .with("Access-Control-Allow-Origin", "*")
        .with("Cache-Control", "no-store")
}
