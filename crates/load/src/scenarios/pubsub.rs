//! `pubsub`: what a comparison of Node.js, Vert.x, Netty and Atmosphere measured in 2012. Connection
//! `i` subscribes to the identifier `i` modulo 10,000, plus 1; the server publishes continuously,
//! each time to one of those that are subscribed to; every message must be of the identifier that its
//! connection has subscribed to. The server says in each when it was sent: it must be on this
//! machine, or its clock must agree.

use std::borrow::Cow;
use std::time::Duration;

use fastrand::Rng;
use murre_codec::Kind;
use murre_core::{ConnId, Outbox, Queued};
use serde::Deserialize;

use crate::client::channel::{self, Gather, Heard};
use crate::client::ws::{Line, Piece, Talk, say};
use crate::engine::score::{Fault, Score};

/// One shard's part of the scenario.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) conns: u32,
    /// This shard, and how many there are: they take turns over the identifiers.
    pub(crate) shard: u32,
    pub(crate) shards: u32,
    /// Of a message, about.
    pub(crate) payload_bytes: u32,
    /// Messages per second, all connections of all shards together.
    pub(crate) rate: Option<f64>,
    pub(crate) timeout: Duration,
}

/// One shard's clients.
pub(crate) struct PubSub {
    settings: Settings,
    /// Places that have no connection; each has its identifier.
    free: Vec<u32>,
    /// The connection that tells the server to publish; the first shard has it.
    feeder: Option<ConnId>,
    /// Answers that the server owes it.
    feeds_owed: u32,
}

/// What is kept of one client.
#[derive(Default)]
pub(crate) struct State {
    place: u32,
    gather: Gather,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Has no place yet.
    #[default]
    New,
    Subscribing,
    Subscribed,
}

/// The article's message: the data of each publication.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(rename = "request")]
    _request: u64,
    /// Milliseconds since 1970.
    timestamp: u64,
    #[serde(borrow)]
    identifier: Cow<'a, str>,
    #[serde(borrow)]
    elements: Cow<'a, str>,
}

impl PubSub {
    pub(crate) fn new(settings: Settings) -> PubSub {
        let free = (0..settings.conns).rev().collect();
        PubSub { free, feeder: None, feeds_owed: 0, settings }
    }

    fn identifier(&self, place: u32) -> u32 {
        (place * self.settings.shards + self.settings.shard) % IDENTIFIERS + 1
    }

    fn is_feeder(&self, state: &State) -> bool {
        (self.settings.shard, state.place) == (0, 0) && state.stage != Stage::New
    }

    fn heard(&mut self, id: ConnId, state: &mut State, text: &[u8], line: &mut Line<'_, '_>) {
        let Some(heard) = Heard::<'_, Message<'_>>::hear(id, text, line) else { return };
        match (&heard.kind[..], state.stage) {
            ("publication", _) => match heard.data {
                Some(data) if data.identifier == heard.identifier => {
                    self.received(id, state, &data, text.len(), line);
                }
                _ => line.desk.fail(id, Fault::Wrong, "a publication of another identifier"),
            },
            ("subscribed", Stage::Subscribing)
                if is_number(&heard.identifier, self.identifier(state.place)) =>
            {
                state.stage = Stage::Subscribed;
                line.desk.out.clear_timer(id);
                line.desk.ready();
            }
            ("feed", Stage::Subscribed) if self.is_feeder(state) && self.feeds_owed > 0 => {
                self.feeds_owed -= 1;
                line.desk.score.forget(1);
                if self.feeds_owed == 0 {
                    line.desk.out.clear_timer(id);
                }
            }
            _ => heard.unexpected(id, line),
        }
    }

    fn received(
        &self,
        id: ConnId,
        state: &State,
        message: &Message<'_>,
        bytes: usize,
        line: &mut Line<'_, '_>,
    ) {
        let own = self.identifier(state.place);
        if !is_number(&message.identifier, own) {
            let detail = format_args!("identifier {} instead of {own}", message.identifier);
            return line.desk.fail(id, Fault::Wrong, detail);
        }
        if state.stage != Stage::Subscribed || message.elements.is_empty() {
            return line.desk.fail(
                id,
                Fault::Wrong,
                "a message before its time, or without elements",
            );
        }
        let after = channel::unix_time().saturating_sub(Duration::from_millis(message.timestamp));
        line.desk.score.arrived(after, bytes);
    }

    /// Tells the server what to publish. Only one shard does.
    fn feed(&mut self, rate: Option<f64>, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        let Some(id) = self.feeder else { return };
        let text = channel::feed(self.settings.payload_bytes, rate);
        // Gone: `closed` follows and counts it.
        if say(out, id, Kind::Text.opcode(), text.as_bytes(), masks) == Queued::Yes {
            self.feeds_owed += 1;
            score.owe(1);
            out.set_timer(id, out.ticks(self.settings.timeout));
        }
    }
}

impl Talk for PubSub {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        state.place = self.free.pop().expect("as many places as connections");
        state.stage = Stage::Subscribing;
        let identifier = self.identifier(state.place).to_string();
        channel::say(id, &channel::subscribe(&identifier, None), line);
        let ticks = line.desk.out.ticks(self.settings.timeout);
        line.desk.out.set_timer(id, ticks);
        if self.is_feeder(state) {
            self.feeder = Some(id);
        }
    }

    fn message(
        &mut self,
        id: ConnId,
        state: &mut State,
        piece: Piece<'_>,
        line: &mut Line<'_, '_>,
    ) {
        if let Some(text) = state.gather.text(id, &piece, line) {
            self.heard(id, state, &text, line);
        }
    }

    fn expired(&mut self, id: ConnId, _state: &mut State, line: &mut Line<'_, '_>) {
        let timeout = self.settings.timeout;
        line.desk.fail(id, Fault::Timeout, format_args!("no answer within {timeout:?}"));
    }

    fn owed(&self, state: &State) -> u32 {
        if self.is_feeder(state) { self.feeds_owed } else { 0 }
    }

    fn begin(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        self.feed(self.settings.rate, out, score, masks);
    }

    fn finish(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        self.feed(Some(0.0), out, score, masks);
    }

    fn closed(&mut self, state: State) {
        if self.is_feeder(&state) {
            (self.feeder, self.feeds_owed) = (None, 0);
        }
        if state.stage != Stage::New {
            self.free.push(state.place);
        }
    }
}

/// Whether a text is that number, written as we write it.
fn is_number(text: &str, number: u32) -> bool {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return text.as_bytes() == &digits[at..];
        }
    }
}

/// The article's.
const IDENTIFIERS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_compared_as_they_are_written() {
        // Shows that no other way to write a number is taken for it.
        for number in [0, 1, 9, 10, 10_000, u32::MAX] {
            assert!(is_number(&number.to_string(), number), "{number}");
        }
        for text in ["", "07", "+7", "7 ", "8", "70"] {
            assert!(!is_number(text, 7), "{text}");
        }
    }

    #[test]
    fn all_shards_together_subscribe_as_the_article_did() {
        // Shows that connection `i` of all has the identifier `i` modulo 10,000, plus 1.
        let mut identifiers: Vec<u32> = Vec::new();
        for shard in 0..3 {
            let settings = Settings {
                conns: crate::run::plan::part(25_000, shard as usize, 3),
                shard,
                shards: 3,
                payload_bytes: 1400,
                rate: None,
                timeout: Duration::from_secs(1),
            };
            let clients = PubSub::new(settings);
            identifiers.extend((0..clients.settings.conns).map(|place| clients.identifier(place)));
        }
        identifiers.sort_unstable();
        let mut expected: Vec<u32> = (0..25_000).map(|i| i % 10_000 + 1).collect();
        expected.sort_unstable();
        assert_eq!(identifiers, expected);
    }
}
