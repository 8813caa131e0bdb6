//! `churn`: connections that subscribe, unsubscribe and reconnect at random, while one publishes
//! numbers to their topics. What a subscriber hears must be a run without gaps for as long as it is
//! subscribed. In topics with history, those of the namespace `kept`, it resumes where it was and must
//! have missed nothing and get nothing twice, across reconnects.
//!
//! A seat is a client that outlives its connections: the next connection of its shard takes it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_codec::{CloseCode, Kind, encode};
use murre_core::{CloseReason, ConnId, Outbox, Queued};
use murre_record::ChurnFacts;
use serde::Deserialize;

use crate::cli::args::Span;
use crate::client::channel::{self, Gather, Heard, Position};
use crate::client::ws::{Line, Piece, Talk, say};
use crate::client::{fraction, hash};
use crate::engine::score::{Fault, Micros, Score};

/// The scenario, the same for all shards.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Beside the publisher, which is the first connection of all.
    pub(crate) subscribers: u32,
    pub(crate) topics: u32,
    /// How many of the topics have history.
    pub(crate) kept: u32,
    /// Publications per second.
    pub(crate) rate: f64,
    /// Between one change of mind and the next, in seconds.
    pub(crate) idle: Span,
    pub(crate) timeout: Duration,
    pub(crate) seed: u64,
    pub(crate) shards: u32,
}

/// What all shards see.
pub(crate) struct Board {
    /// Of each topic: publications so far.
    sent: Box<[AtomicU64]>,
    /// Nothing more will be published.
    over: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    subscribed: AtomicU64,
    unsubscribed: AtomicU64,
    reconnected: AtomicU64,
    recovered: AtomicU64,
    recovered_publications: AtomicU64,
    unrecovered: AtomicU64,
    published: AtomicU64,
}

impl Board {
    pub(crate) fn new(settings: &Settings) -> Board {
        let sent = (0..settings.topics).map(|_| AtomicU64::new(0)).collect();
        Board { sent, over: AtomicBool::new(false), counts: Counts::default() }
    }

    pub(crate) fn facts(&self) -> ChurnFacts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        ChurnFacts {
            published: count(&counts.published),
            subscribed: count(&counts.subscribed),
            unsubscribed: count(&counts.unsubscribed),
            reconnected: count(&counts.reconnected),
            recovered: count(&counts.recovered),
            recovered_publications: count(&counts.recovered_publications),
            unrecovered: count(&counts.unrecovered),
        }
    }

    fn sent(&self, topic: u32) -> &AtomicU64 {
        &self.sent[topic as usize]
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One shard's clients.
pub(crate) struct Churn {
    settings: Settings,
    board: Arc<Board>,
    shard: u32,
    seats: Vec<Seat>,
    /// Seats without a connection, the longest free at the end.
    free: Vec<u32>,
    publisher: Option<ConnId>,
    begun: Option<Instant>,
    published: u64,
    /// Publications that the server has not answered.
    unanswered: u32,
    finishing: bool,
    /// Everybody here has everything: told to the score once.
    settled: bool,
}

/// One client, whichever connection it has.
#[derive(Clone, Debug)]
struct Seat {
    topic: u32,
    stage: Stage,
    run: Run,
    /// Where it stands in the history of its topic.
    position: Option<Position>,
    /// What it has made up its mind about so far.
    round: u32,
    connected_before: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a connection.
    Away,
    Subscribing,
    Subscribed,
    Unsubscribing,
    /// Connected and not subscribed.
    Resting,
}

/// What a subscriber must hear next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    /// The number of the next publication, once one was heard.
    next: Option<u64>,
    /// What was published before it subscribed: the first that it hears is at most this one, and
    /// what is below was missed.
    floor: u64,
}

impl Run {
    /// Hears a publication.
    fn hear(&mut self, number: u64) -> Result<(), Gap> {
        let right = match self.next {
            Some(next) => number == next,
            None => number <= self.floor,
        };
        if !right {
            return Err(Gap { expected: self.next.unwrap_or(self.floor), number });
        }
        self.next = Some(number + 1);
        Ok(())
    }

    /// Whether it has all of so many publications.
    fn has_all(&self, sent: u64) -> bool {
        self.next.map_or(self.floor >= sent, |next| next >= sent)
    }
}

/// A publication is missing, or came twice.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    expected: u64,
    number: u64,
}

/// What is published.
#[derive(Debug, Deserialize)]
struct Data {
    number: u64,
    /// When, on our clock.
    sent: u32,
}

/// What is kept of one connection.
#[derive(Default)]
pub(crate) struct State {
    role: Role,
    gather: Gather,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    #[default]
    None,
    Publisher,
    Seat(u32),
}

impl Churn {
    pub(crate) fn new(settings: Settings, board: Arc<Board>, shard: u32) -> Churn {
        // The publisher is number 0 of all; the seats follow it.
        let all = (1..=settings.subscribers).filter(|number| number % settings.shards == shard);
        let seat = |number: u32| Seat {
            topic: (number - 1) % settings.topics,
            stage: Stage::Away,
            run: Run::default(),
            position: None,
            round: 0,
            connected_before: false,
        };
        let seats: Vec<_> = all.map(seat).collect();
        Churn {
            free: (0..seats.len() as u32).collect(),
            seats,
            board,
            shard,
            publisher: None,
            begun: None,
            published: 0,
            unanswered: 0,
            finishing: false,
            settled: false,
            settings,
        }
    }

    fn is_kept(&self, topic: u32) -> bool {
        topic < self.settings.kept
    }

    /// Runs after each other do not share the history.
    fn identifier(&self, topic: u32) -> String {
        let namespace = if self.is_kept(topic) { "kept" } else { "churn" };
        format!("{namespace}:churn-{}-{topic}", self.settings.seed)
    }

    fn seat(&mut self, place: u32) -> &mut Seat {
        &mut self.seats[place as usize]
    }

    /// Number and pause of a seat's next change of mind.
    fn next_mind(&mut self, place: u32) -> (u64, Duration) {
        let seed = self.settings.seed ^ u64::from(self.shard) << 40;
        let seat = self.seat(place);
        seat.round = seat.round.wrapping_add(1);
        let hash = hash(seed, place, seat.round);
        (hash, Duration::from_secs_f64(self.settings.idle.at(fraction(hash))))
    }

    fn rest(&mut self, id: ConnId, place: u32, line: &mut Line<'_, '_>) {
        let (_, pause) = self.next_mind(place);
        let ticks = line.desk.out.ticks(pause);
        line.desk.out.set_timer(id, ticks);
    }

    fn subscribe(&mut self, id: ConnId, place: u32, line: &mut Line<'_, '_>) {
        let seat = self.seat(place);
        seat.stage = Stage::Subscribing;
        let (topic, position) = (seat.topic, seat.position);
        self.ask(id, &channel::subscribe(&self.identifier(topic), position), line);
    }

    fn ask(&self, id: ConnId, command: &str, line: &mut Line<'_, '_>) {
        channel::say(id, command, line);
        let ticks = line.desk.out.ticks(self.settings.timeout);
        line.desk.out.set_timer(id, ticks);
    }

    /// The server has answered `subscribe`.
    fn subscribed(
        &mut self,
        id: ConnId,
        place: u32,
        (position, recovered): (Option<Position>, Option<bool>),
        line: &mut Line<'_, '_>,
    ) {
        let seat = &mut self.seats[place as usize];
        let kept = seat.topic < self.settings.kept;
        let counts = &self.board.counts;
        // Whatever is published from now on must come.
        let sent = self.board.sent(seat.topic).load(Ordering::Acquire);
        match (kept, position, seat.position, recovered) {
            (false, ..) => seat.run = Run { next: None, floor: sent },
            (true, Some(new), None, _) => {
                seat.run = Run { next: None, floor: sent };
                seat.position = Some(new);
            }
            // The run goes on, and the position with each publication.
            (true, Some(new), Some(old), Some(true)) if new.epoch == old.epoch => {
                one_more(&counts.recovered);
                let missed = new.offset.saturating_sub(old.offset);
                counts.recovered_publications.fetch_add(missed, Ordering::Relaxed);
                seat.run.floor = sent;
            }
            (true, Some(new), Some(_), Some(false)) => {
                one_more(&counts.unrecovered);
                seat.run = Run { next: None, floor: sent };
                seat.position = Some(new);
            }
            (true, ..) => {
                let detail = format_args!(
                    "a topic with history is subscribed to with position {position:?}, recovered \
                     {recovered:?}"
                );
                return line.desk.fail(id, Fault::Wrong, detail);
            }
        }
        seat.stage = Stage::Subscribed;
        one_more(&counts.subscribed);
        line.desk.ready();
        self.rest(id, place, line);
    }

    fn publication(
        &mut self,
        id: ConnId,
        place: u32,
        (data, offset): (&Data, Option<u64>),
        line: &mut Line<'_, '_>,
    ) {
        let seat = &mut self.seats[place as usize];
        if let Err(Gap { expected, number }) = seat.run.hear(data.number) {
            let detail =
                format_args!("publication {number} of topic {} for {expected}", seat.topic);
            return line.desk.fail(id, Fault::Wrong, detail);
        }
        if let Some(position) = &mut seat.position {
            if offset != Some(position.offset + 1) {
                let detail = format_args!("offset {offset:?} behind {}", position.offset);
                return line.desk.fail(id, Fault::Wrong, detail);
            }
            position.offset += 1;
        }
        // What was missed has waited for its reader, not for the server.
        let now = Instant::now();
        let after = line.desk.score.micros(now).since(Micros(data.sent));
        if data.number >= seat.run.floor {
            line.desk.score.arrived(after, 0);
        } else {
            line.desk.score.arrived_late();
        }
    }

    /// What the server says to a subscriber.
    fn heard(&mut self, id: ConnId, place: u32, text: &[u8], line: &mut Line<'_, '_>) {
        let Some(heard) = Heard::<'_, Data>::hear(id, text, line) else { return };
        let (topic, stage) = (self.seat(place).topic, self.seat(place).stage);
        if heard.identifier != self.identifier(topic) {
            return heard.unexpected(id, line);
        }
        match (&heard.kind[..], &heard.data, stage) {
            ("publication", Some(data), Stage::Subscribed | Stage::Unsubscribing) => {
                self.publication(id, place, (data, heard.offset), line);
            }
            ("subscribed", _, Stage::Subscribing) => {
                self.subscribed(id, place, (heard.position, heard.recovered), line);
            }
            ("unsubscribed", _, Stage::Unsubscribing) => {
                one_more(&self.board.counts.unsubscribed);
                self.seat(place).stage = Stage::Resting;
                self.rest(id, place, line);
            }
            _ => heard.unexpected(id, line),
        }
    }

    /// What the server says to the publisher.
    fn answered(&mut self, id: ConnId, text: &[u8], line: &mut Line<'_, '_>) {
        let Some(heard) = Heard::<'_, Data>::hear(id, text, line) else { return };
        let asked = self.published - u64::from(self.unanswered);
        if heard.kind != "published" || self.unanswered == 0 {
            return heard.unexpected(id, line);
        }
        if heard.id.is_none_or(|id| id >= self.published) {
            let detail = format_args!("answer {:?} for {asked}", heard.id);
            return line.desk.fail(id, Fault::Wrong, detail);
        }
        self.unanswered -= 1;
        one_more(&self.board.counts.published);
        line.desk.score.forget(1);
        if self.unanswered == 0 {
            line.desk.out.clear_timer(id);
        }
    }

    fn due(&self) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.finishing)?;
        let after = Duration::from_secs_f64(self.published as f64 / self.settings.rate);
        self.publisher.is_some().then(|| begun + after)
    }

    fn publish(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        while let (Some(due), Some(id)) = (self.due(), self.publisher) {
            if due > out.now() {
                return;
            }
            let topic = (self.published % u64::from(self.settings.topics)) as u32;
            let sent = self.board.sent(topic);
            let number = sent.load(Ordering::Relaxed);
            let micros = score.micros(Instant::now()).0;
            let data = format!(r#"{{"number":{number},"sent":{micros}}}"#);
            let command = channel::publish(&self.identifier(topic), &data, Some(self.published));
            sent.store(number + 1, Ordering::Release);
            // Gone: `closed` follows and counts it.
            if say(out, id, Kind::Text.opcode(), command.as_bytes(), masks) != Queued::Yes {
                return;
            }
            self.published += 1;
            self.unanswered += 1;
            score.owe(1);
            out.set_timer(id, out.ticks(self.settings.timeout));
        }
    }

    /// Nothing more is published: whether everybody here has everything.
    fn settle(&mut self, score: &mut Score) {
        if self.settled || !self.finishing || !self.board.over.load(Ordering::Acquire) {
            return;
        }
        let board = &self.board;
        self.settled = self.seats.iter().all(|seat| {
            seat.stage == Stage::Subscribed
                && seat.run.has_all(board.sent(seat.topic).load(Ordering::Acquire))
        });
        if self.settled {
            score.forget(1);
        }
    }
}

impl Talk for Churn {
    type State = State;
    const READY_WHEN_OPEN: bool = false;
    const RETURNS: bool = true;

    fn open(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        if self.shard == 0 && self.publisher.is_none() {
            state.role = Role::Publisher;
            self.publisher = Some(id);
            return line.desk.ready();
        }
        let place = self.free.pop().expect("as many seats as connections");
        state.role = Role::Seat(place);
        if std::mem::replace(&mut self.seat(place).connected_before, true) {
            one_more(&self.board.counts.reconnected);
        }
        self.subscribe(id, place, line);
    }

    fn message(
        &mut self,
        id: ConnId,
        state: &mut State,
        piece: Piece<'_>,
        line: &mut Line<'_, '_>,
    ) {
        let Some(text) = state.gather.text(id, &piece, line) else { return };
        match state.role {
            Role::Seat(place) => self.heard(id, place, &text, line),
            Role::Publisher | Role::None => self.answered(id, &text, line),
        }
    }

    fn expired(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        let timeout = self.settings.timeout;
        let Role::Seat(place) = state.role else {
            let detail = format_args!("no answer to a publication within {timeout:?}");
            return line.desk.fail(id, Fault::Timeout, detail);
        };
        let stage = self.seat(place).stage;
        match stage {
            Stage::Resting => self.subscribe(id, place, line),
            // At the end everybody stays, to have everything.
            Stage::Subscribed if self.finishing => {}
            Stage::Subscribed => {
                let (hash, _) = self.next_mind(place);
                match hash % 4 {
                    0 | 1 => {
                        self.seat(place).stage = Stage::Unsubscribing;
                        let topic = self.seat(place).topic;
                        self.ask(id, &channel::unsubscribe(&self.identifier(topic)), line);
                    }
                    2 => {
                        let mask = Some(line.masks.u32(..).to_ne_bytes());
                        let goodbye = |out: &mut Vec<u8>| {
                            encode::write_close(out, CloseCode::Normal, "", mask);
                        };
                        // Gone: then it is over already.
                        let _ = line.desk.out.write(id, goodbye);
                        line.desk.depart();
                        line.desk.out.close(id, CloseReason::Finished);
                    }
                    _ => {
                        line.desk.depart();
                        line.desk.out.abort(id, CloseReason::Finished);
                    }
                }
            }
            Stage::Subscribing | Stage::Unsubscribing | Stage::Away => {
                line.desk.fail(id, Fault::Timeout, format_args!("no answer within {timeout:?}"));
            }
        }
    }

    fn owed(&self, state: &State) -> u32 {
        if state.role == Role::Publisher { self.unanswered } else { 0 }
    }

    fn begin(&mut self, out: &mut Outbox, _score: &mut Score, _masks: &mut Rng) {
        self.begun = Some(out.now());
    }

    fn turn(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        self.publish(out, score, masks);
        self.settle(score);
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.finishing && !self.settled {
            return Some(Instant::now() + SETTLE_EVERY);
        }
        self.due()
    }

    /// One thing is owed by each shard: that everybody there has everything.
    fn finish(&mut self, _out: &mut Outbox, score: &mut Score, _masks: &mut Rng) {
        self.finishing = true;
        score.owe(1);
        if self.shard == 0 {
            self.board.over.store(true, Ordering::Release);
        }
    }

    fn closed(&mut self, state: State) {
        match state.role {
            Role::None => {}
            Role::Publisher => (self.publisher, self.unanswered) = (None, 0),
            Role::Seat(place) => {
                self.seat(place).stage = Stage::Away;
                // Those who have waited longest are the next.
                self.free.insert(0, place);
            }
        }
    }
}

/// How often to look whether the other shards are done publishing.
const SETTLE_EVERY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_no_gap_and_nothing_twice() {
        // Shows what may come first, what may follow, and when nothing is missing.
        let mut run = Run { next: None, floor: 5 };
        assert_eq!(run.hear(6), Err(Gap { expected: 5, number: 6 }));
        assert!(run.has_all(5) && !run.has_all(6));
        // One that was under way when it subscribed.
        assert_eq!(run.hear(4), Ok(()));
        assert!(!run.has_all(6));
        assert_eq!(run.hear(4), Err(Gap { expected: 5, number: 4 }));
        assert_eq!(run.hear(6), Err(Gap { expected: 5, number: 6 }));
        assert_eq!(run.hear(5), Ok(()));
        assert!(run.has_all(6));
    }

    #[test]
    fn seats_are_spread_over_shards_and_topics() {
        // Shows that no seat is forgotten, that the shard with the publisher has one less, and which
        // topics are kept.
        let settings = Settings {
            subscribers: 11,
            topics: 4,
            kept: 1,
            rate: 100.0,
            idle: Span { from: 0.1, to: 0.2 },
            timeout: Duration::from_secs(1),
            seed: 9,
            shards: 3,
        };
        let board = Arc::new(Board::new(&settings));
        let shards: Vec<_> =
            (0..3).map(|shard| Churn::new(settings.clone(), Arc::clone(&board), shard)).collect();
        let seats: Vec<_> = shards.iter().map(|shard| shard.seats.len()).collect();
        assert_eq!(seats, [3, 4, 4]);
        let of_topic = |topic| {
            let seats = shards.iter().flat_map(|shard| &shard.seats);
            seats.filter(|seat| seat.topic == topic).count()
        };
        assert_eq!([0, 1, 2, 3].map(of_topic), [3, 3, 3, 2]);
        assert_eq!(shards[0].identifier(0), "kept:churn-9-0");
        assert_eq!(shards[0].identifier(1), "churn:churn-9-1");
    }
}
