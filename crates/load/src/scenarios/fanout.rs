//! `fanout`: subscribers of one topic, or spread over several, and connections that publish to them.
//! Each delivery is checked byte by byte and must be the next of its topic: none is lost, none comes
//! twice, all come in order. Connections beside them ping the server meanwhile.
//!
//! Without a rate the loop is closed: a publisher has up to `pipeline` publications under way, and one
//! is over when its last subscriber has it. With a rate publication `k` of all is due `k / rate`
//! seconds after the beginning, and its times count from then. Who has the last delivery of a
//! publication may be another shard than the publisher's: [`Board`] is what they share.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_codec::Kind;
use murre_core::{ConnId, Outbox, Queued};

use crate::client::Difference;
use crate::client::channel::{self, Gather, Heard};
use crate::client::ws::{Line, Piece, Talk, say};
use crate::engine::bell::Bells;
use crate::engine::score::{Fault, Micros, Score};
use crate::run::plan::part;
use crate::scenarios::ws_idle::{self, WsIdle};

/// The scenario, the same for all shards.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Subscribers, publishers, and connections beside them.
    pub(crate) subscribers: u32,
    pub(crate) publishers: u32,
    pub(crate) beside: u32,
    pub(crate) topics: u32,
    /// Of the JSON that is published.
    pub(crate) payload_bytes: u32,
    /// Publications under way at most, of one publisher.
    pub(crate) pipeline: u32,
    /// Publications per second, all publishers together.
    pub(crate) rate: Option<f64>,
    /// Between the pings of one connection beside.
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) seed: u64,
    /// Those of publishers and subscribers. One more has the connections beside them, if there are
    /// any: what the server's answers wait for is then not what a client has to read before them.
    pub(crate) shards: u32,
}

impl Settings {
    /// How many connections a shard has.
    pub(crate) fn conns(&self, shard: u32) -> u32 {
        if shard == self.shards {
            return self.beside;
        }
        part(self.publishers + self.subscribers, shard as usize, self.shards as usize)
    }

    /// What a shard's connection `place` does.
    fn role(&self, shard: u32, place: u32) -> Role {
        if shard == self.shards {
            return Role::Beside;
        }
        let i = place * self.shards + shard;
        if i < self.publishers {
            Role::Publisher(i)
        } else {
            Role::Subscriber { topic: (i - self.publishers) % self.topics }
        }
    }

    /// Publications of one topic that may be under way.
    fn depth(&self) -> u32 {
        match self.rate {
            Some(_) => (SCHEDULED_UNDER_WAY_MAX / self.topics).clamp(1, 1024),
            // A publisher takes its topics in turns.
            None => self.pipeline.div_ceil(self.topics / self.publishers),
        }
    }
}

/// What is under way, for all shards to see.
pub(crate) struct Board {
    pub(crate) bells: Arc<Bells>,
    topics: Box<[Topic]>,
    /// Of each publisher: publications that somebody does not have yet.
    under_way: Box<[AtomicU32]>,
}

struct Topic {
    members: AtomicU32,
    published: AtomicU64,
    /// Of them, those that all have.
    over: AtomicU64,
    /// The publications under way, by number modulo as many.
    slots: Box<[Slot]>,
}

#[derive(Default)]
struct Slot {
    due: AtomicU32,
    /// Who does not have it yet.
    left: AtomicU32,
}

impl Board {
    pub(crate) fn new(settings: &Settings, bells: Arc<Bells>) -> Board {
        let topic = || Topic {
            members: AtomicU32::new(0),
            published: AtomicU64::new(0),
            over: AtomicU64::new(0),
            slots: (0..settings.depth()).map(|_| Slot::default()).collect(),
        };
        Board {
            bells,
            topics: (0..settings.topics).map(|_| topic()).collect(),
            under_way: (0..settings.publishers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Publications so far that every subscriber has.
    pub(crate) fn over(&self) -> u64 {
        self.topics.iter().map(|topic| topic.over.load(Ordering::Relaxed)).sum()
    }

    fn topic(&self, topic: u32) -> &Topic {
        &self.topics[topic as usize]
    }

    fn under_way(&self, publisher: u32) -> &AtomicU32 {
        &self.under_way[publisher as usize]
    }
}

impl Topic {
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[(number % self.slots.len() as u64) as usize]
    }

    /// Whether one more may be under way.
    fn has_room(&self) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        published - self.over.load(Ordering::Acquire) < self.slots.len() as u64
    }

    /// One subscriber less waits for a publication. Whether it was the last.
    fn delivered(&self, number: u64) -> bool {
        let last = self.slot(number).left.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.over.fetch_add(1, Ordering::Release);
        }
        last
    }
}

/// One shard's clients.
pub(crate) struct Fanout {
    settings: Settings,
    board: Arc<Board>,
    shard: u32,
    /// Places that have no connection.
    free: Vec<u32>,
    /// The publishers that are here.
    publishers: Vec<Publisher>,
    beside: WsIdle,
    texts: Texts,
    /// What was read last, for most subscribers hear the same.
    read: Read,
    begun: Option<Instant>,
    ended: Option<Instant>,
}

struct Publisher {
    number: u32,
    id: Option<ConnId>,
    /// Publications so far: its topics take turns.
    published: u64,
}

/// What is kept of one client.
#[derive(Default)]
pub(crate) struct State {
    role: Role,
    /// Its place, once it has one.
    place: Option<u32>,
    gather: Gather,
    /// Of a subscriber, once it is one: the number of the next publication.
    next: Option<u64>,
    beside: ws_idle::State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    Publisher(u32),
    #[default]
    Beside,
    Subscriber {
        topic: u32,
    },
}

/// A message that was read, and found to be what was published.
#[derive(Default)]
struct Read {
    text: Vec<u8>,
    topic: u32,
    number: u64,
}

impl Fanout {
    pub(crate) fn new(settings: Settings, board: Arc<Board>, shard: u32) -> Fanout {
        let here = (0..settings.publishers).filter(|number| number % settings.shards == shard);
        let publishers = here.map(|number| Publisher { number, id: None, published: 0 }).collect();
        Fanout {
            board,
            shard,
            free: (0..settings.conns(shard)).rev().collect(),
            publishers,
            beside: WsIdle::beside(settings.every, settings.timeout, settings.seed),
            texts: Texts::new(settings.payload_bytes),
            read: Read::default(),
            begun: None,
            ended: None,
            settings,
        }
    }

    fn publisher(&mut self, number: u32) -> &mut Publisher {
        &mut self.publishers[(number / self.settings.shards) as usize]
    }

    /// The topic that a publisher's next publication is for.
    fn topic_of(&self, publisher: &Publisher) -> u32 {
        let own = (self.settings.topics - publisher.number).div_ceil(self.settings.publishers);
        publisher.number + (publisher.published % u64::from(own)) as u32 * self.settings.publishers
    }

    /// With a rate: when a publisher's next publication is due.
    fn due(&self, begun: Instant, rate: f64, publisher: &Publisher) -> Instant {
        let k = publisher.published * u64::from(self.settings.publishers);
        begun + Duration::from_secs_f64((k + u64::from(publisher.number)) as f64 / rate)
    }

    /// Publishes what may be published now.
    fn publish(&mut self, index: usize, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        let Some(begun) = self.begun else { return };
        let board = Arc::clone(&self.board);
        loop {
            let publisher = &self.publishers[index];
            let (Some(id), now) = (publisher.id, out.now()) else { return };
            let number_own = publisher.number;
            let due = match self.settings.rate {
                Some(rate) => self.due(begun, rate, publisher),
                None if board.under_way(number_own).load(Ordering::Acquire)
                    < self.settings.pipeline =>
                {
                    Instant::now()
                }
                None => return,
            };
            if self.ended.is_some_and(|ended| due >= ended)
                || (self.settings.rate.is_some() && due > now)
            {
                return;
            }
            let place = self.topic_of(publisher);
            let topic = board.topic(place);
            let members = topic.members.load(Ordering::Relaxed);
            if !topic.has_room() || members == 0 {
                return;
            }
            let number = topic.published.load(Ordering::Relaxed);
            let text = self.texts.data(place, number);
            let command = channel::publish(&identifier(place), text, None);
            let micros = score.micros(due);
            let slot = topic.slot(number);
            slot.due.store(micros.0, Ordering::Relaxed);
            slot.left.store(members, Ordering::Relaxed);
            score.owe(members);
            board.under_way(number_own).fetch_add(1, Ordering::AcqRel);
            topic.published.store(number + 1, Ordering::Release);
            self.publishers[index].published += 1;
            // Gone: `closed` follows and counts it; what it owes fails the run.
            if say(out, id, Kind::Text.opcode(), command.as_bytes(), masks) != Queued::Yes {
                return;
            }
            out.set_timer(id, out.ticks(self.settings.timeout));
        }
    }

    /// Whether a text is publication `number` of the topic. What it is, if not.
    fn is_publication(&mut self, text: &[u8], topic: u32, number: u64) -> Result<(), Unlike> {
        if (self.read.topic, self.read.number) == (topic, number) && self.read.text == text {
            return Ok(());
        }
        let heard: Heard<'_, &str> = Heard::read(text).map_err(Unlike::Unreadable)?;
        if heard.kind != "publication" {
            return Err(Unlike::Publication);
        }
        let expected = self.texts.data(topic, number);
        // Without the quotes: its letters need no escapes.
        let expected = &expected[1..expected.len() - 1];
        let got = heard.data.unwrap_or_default();
        if heard.identifier != identifier(topic) || got != expected {
            let difference = Difference { expected: expected.as_bytes(), got: got.as_bytes() };
            let why = format!("of {}, publication {number}: {difference}", heard.identifier);
            return Err(Unlike::Data(why));
        }
        self.read = Read { text: text.to_owned(), topic, number };
        Ok(())
    }

    /// A subscriber has the next publication of its topic.
    fn delivered(&mut self, topic: u32, number: u64, bytes: usize, line: &mut Line<'_, '_>) {
        let board = Arc::clone(&self.board);
        let shared = board.topic(topic);
        let due = Micros(shared.slot(number).due.load(Ordering::Relaxed));
        let now = Instant::now();
        let score = &mut *line.desk.score;
        score.weigh(bytes);
        if shared.delivered(number) {
            score.over(due, now);
            self.over(topic);
            let publisher = topic % self.settings.publishers;
            // First the next publication, then the count: nobody sees nothing owed in between.
            if publisher % self.settings.shards == self.shard {
                let index = (publisher / self.settings.shards) as usize;
                self.publish(index, line.desk.out, line.desk.score, line.masks);
            }
        }
        line.desk.score.answered(due, now);
    }

    /// A publication is over: its publisher may go on.
    fn over(&self, topic: u32) {
        let publisher = topic % self.settings.publishers;
        self.board.under_way(publisher).fetch_sub(1, Ordering::AcqRel);
        let shard = publisher % self.settings.shards;
        if shard != self.shard {
            self.board.bells.ring(shard as usize);
        }
    }

    /// What the server says to a subscriber.
    fn heard(
        &mut self,
        id: ConnId,
        topic: u32,
        state: &mut State,
        text: &[u8],
        line: &mut Line<'_, '_>,
    ) {
        let Some(number) = state.next else {
            let Some(heard) = Heard::<'_, &str>::hear(id, text, line) else { return };
            if heard.kind != "subscribed" || heard.identifier != identifier(topic) {
                return heard.unexpected(id, line);
            }
            let shared = self.board.topic(topic);
            shared.members.fetch_add(1, Ordering::Relaxed);
            state.next = Some(shared.published.load(Ordering::Acquire));
            line.desk.out.clear_timer(id);
            return line.desk.ready();
        };
        if number >= self.board.topic(topic).published.load(Ordering::Acquire) {
            let detail = "a publication that nobody has published, or one twice";
            return match self.is_publication(text, topic, number.saturating_sub(1)) {
                Err(Unlike::Publication) => self.not_a_publication(id, text, line),
                _ => line.desk.fail(id, Fault::Wrong, detail),
            };
        }
        match self.is_publication(text, topic, number) {
            Ok(()) => {
                state.next = Some(number + 1);
                self.delivered(topic, number, text.len(), line);
            }
            Err(Unlike::Unreadable(error)) => channel::unreadable(id, text, &error, line),
            Err(Unlike::Publication) => self.not_a_publication(id, text, line),
            Err(Unlike::Data(why)) => line.desk.fail(id, Fault::Wrong, why),
        }
    }

    fn not_a_publication(&self, id: ConnId, text: &[u8], line: &mut Line<'_, '_>) {
        if let Some(heard) = Heard::<'_, serde::de::IgnoredAny>::hear(id, text, line) {
            heard.unexpected(id, line);
        }
    }
}

/// Why a text is not the publication that was to come.
enum Unlike {
    Unreadable(serde_json::Error),
    /// It is another kind of message.
    Publication,
    Data(String),
}

impl Talk for Fanout {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        let place = self.free.pop().expect("as many places as connections");
        state.place = Some(place);
        state.role = self.settings.role(self.shard, place);
        match state.role {
            Role::Publisher(number) => {
                self.publisher(number).id = Some(id);
                line.desk.ready();
            }
            Role::Beside => {
                line.desk.ready();
                self.beside.open(id, &mut state.beside, line);
            }
            Role::Subscriber { topic } => {
                channel::say(id, &channel::subscribe(&identifier(topic), None), line);
                let ticks = line.desk.out.ticks(self.settings.timeout);
                line.desk.out.set_timer(id, ticks);
            }
        }
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
            Role::Subscriber { topic } => self.heard(id, topic, state, &text, line),
            Role::Publisher(_) | Role::Beside => self.not_a_publication(id, &text, line),
        }
    }

    fn pong(&mut self, id: ConnId, state: &mut State, payload: &[u8], line: &mut Line<'_, '_>) {
        self.beside.pong(id, &mut state.beside, payload, line);
    }

    fn expired(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        let timeout = self.settings.timeout;
        match state.role {
            Role::Beside => self.beside.expired(id, &mut state.beside, line),
            Role::Subscriber { .. } => {
                let detail = format_args!("not subscribed within {timeout:?}");
                line.desk.fail(id, Fault::Timeout, detail);
            }
            Role::Publisher(number) => {
                if self.board.under_way(number).load(Ordering::Acquire) > 0 {
                    let detail = format_args!("a publication not with all within {timeout:?}");
                    line.desk.fail(id, Fault::Timeout, detail);
                }
            }
        }
    }

    fn owed(&self, state: &State) -> u32 {
        match (state.role, state.next) {
            (Role::Subscriber { topic }, Some(next)) => self.missing(topic, next).count() as u32,
            (Role::Beside, _) => self.beside.owed(&state.beside),
            _ => 0,
        }
    }

    fn begin(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        self.begun = Some(out.now());
        self.turn(out, score, masks);
    }

    fn turn(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        if self.publishers.is_empty() {
            return;
        }
        self.board.bells.heard(self.shard as usize);
        for index in 0..self.publishers.len() {
            self.publish(index, out, score, masks);
        }
    }

    /// With a rate: when the next publication is due. One that waits for room has a bell.
    fn wake_at(&self) -> Option<Instant> {
        let (Some(begun), Some(rate), None) = (self.begun, self.settings.rate, self.ended) else {
            return None;
        };
        let able = self.publishers.iter().filter(|publisher| {
            publisher.id.is_some() && self.board.topic(self.topic_of(publisher)).has_room()
        });
        able.map(|publisher| self.due(begun, rate, publisher)).min()
    }

    fn finish(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        self.ended = Some(out.now());
        self.beside.finish(out, score, masks);
    }

    fn closed(&mut self, state: State) {
        match (state.role, state.next) {
            (Role::Publisher(number), _) if state.place.is_some() => {
                self.publisher(number).id = None;
            }
            (Role::Beside, _) => self.beside.closed(state.beside),
            (Role::Subscriber { topic }, Some(next)) => {
                let shared = self.board.topic(topic);
                shared.members.fetch_sub(1, Ordering::Relaxed);
                for number in self.missing(topic, next) {
                    if shared.delivered(number) {
                        self.over(topic);
                    }
                }
            }
            _ => {}
        }
        self.free.extend(state.place);
    }
}

impl Fanout {
    /// Publications under way that a subscriber does not have.
    fn missing(&self, topic: u32, next: u64) -> Range<u64> {
        next..self.board.topic(topic).published.load(Ordering::Acquire)
    }
}

fn identifier(topic: u32) -> String {
    format!("fanout-{topic}")
}

/// What is published: a string of JSON, with the number of the publication and its topic in front.
struct Texts {
    filler: String,
    text: String,
    of: Option<(u32, u64)>,
}

impl Texts {
    fn new(payload_bytes: u32) -> Texts {
        let filler = ('a'..='z').cycle().take(payload_bytes as usize + 26).collect();
        Texts { filler, text: String::with_capacity(payload_bytes as usize), of: None }
    }

    fn data(&mut self, topic: u32, number: u64) -> &str {
        if self.of != Some((topic, number)) {
            self.of = Some((topic, number));
            self.text.clear();
            // Writing to a string does not fail.
            let _ = write!(self.text, "\"{number:016x}{topic:08x}");
            let rest = (self.filler.len() - 26).saturating_sub(self.text.len() + 1);
            let from = (number % 26) as usize;
            self.text.push_str(&self.filler[from..from + rest]);
            self.text.push('"');
        }
        &self.text
    }
}

/// The least that a publication may have: its numbers, in quotes.
pub(crate) const PAYLOAD_BYTES_MIN: u32 = 26;

/// Publications on a schedule that may be under way in all.
const SCHEDULED_UNDER_WAY_MAX: u32 = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            subscribers: 10,
            publishers: 2,
            beside: 3,
            topics: 5,
            payload_bytes: 128,
            pipeline: 4,
            rate: Some(100.0),
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            seed: 1,
            shards: 4,
        }
    }

    fn shard(settings: &Settings, board: &Arc<Board>, shard: u32) -> Fanout {
        Fanout::new(settings.clone(), Arc::clone(board), shard)
    }

    #[test]
    fn publications_are_as_long_as_they_should_be_and_differ() {
        // Shows the length from the least on, that they are JSON, and that numbers and topics differ.
        for bytes in [PAYLOAD_BYTES_MIN, 128, 1400] {
            let mut texts = Texts::new(bytes);
            let text = texts.data(3, 70_000).to_owned();
            assert_eq!(text.len(), bytes as usize);
            let inner: String = serde_json::from_str(&text).expect("JSON");
            assert!(inner.starts_with("000000000001117000000003"), "{inner}");
            assert_ne!(texts.data(3, 70_001), text);
            assert_ne!(texts.data(4, 70_000), text);
            assert_eq!(texts.data(3, 70_000), text);
        }
    }

    #[test]
    fn every_connection_has_a_role_and_every_topic_a_publisher() {
        // Shows that all shards together have each role as often as asked, that publishers take
        // their topics in turns, and that what is due is due once.
        let settings = settings();
        let bells = Bells::new(4);
        let board = Arc::new(Board::new(&settings, bells));
        let shards: Vec<_> = (0..5).map(|number| shard(&settings, &board, number)).collect();
        let places: Vec<usize> = shards.iter().map(|shard| shard.free.len()).collect();
        assert_eq!(places, [3, 3, 3, 3, 3]);
        let roles_of = |number: u32| {
            let settings = &settings;
            (0..settings.conns(number)).map(move |place| settings.role(number, place))
        };
        let roles: Vec<_> = (0..5).flat_map(roles_of).collect();
        let of_topic = |topic| roles.iter().filter(|&&r| r == Role::Subscriber { topic }).count();
        assert!((0..5).all(|topic| of_topic(topic) == 2), "{roles:?}");
        assert_eq!(roles[12..], [Role::Beside; 3], "on a shard of their own");
        assert!(!roles[..12].contains(&Role::Beside));

        let begun = Instant::now();
        let mut due = Vec::new();
        let mut topics = Vec::new();
        for shard in &shards {
            for publisher in &shard.publishers {
                for published in 0..6 {
                    let publisher = Publisher { published, ..*publisher };
                    topics.push(shard.topic_of(&publisher));
                    due.push(shard.due(begun, 1000.0, &publisher).duration_since(begun));
                }
            }
        }
        assert_eq!(topics, [0, 2, 4, 0, 2, 4, 1, 3, 1, 3, 1, 3]);
        due.sort_unstable();
        let expected: Vec<_> = (0..12).map(Duration::from_millis).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn a_publication_is_over_when_the_last_has_it() {
        // Shows that room for another comes with the last delivery, and that a subscriber who leaves
        // is not waited for.
        let settings = Settings { rate: None, pipeline: 1, topics: 2, ..settings() };
        let board = Board::new(&settings, Bells::new(4));
        let topic = board.topic(0);
        topic.slot(0).left.store(2, Ordering::Relaxed);
        topic.published.store(1, Ordering::Relaxed);
        assert!(!topic.has_room() && !topic.delivered(0) && !topic.has_room());
        assert!(topic.delivered(0) && topic.has_room());
        assert_eq!(board.over(), 1);
    }

    #[test]
    fn a_publication_must_be_the_next_of_its_topic() {
        // Shows that another number, topic, byte or kind of message is not taken for it, read anew or
        // compared with what was read last.
        let settings = settings();
        let board = Arc::new(Board::new(&settings, Bells::new(4)));
        let mut clients = shard(&settings, &board, 0);
        let message = |topic, data: &str| {
            format!(
                r#"{{"type":"publication","identifier":"{}","data":{data}}}"#,
                identifier(topic)
            )
        };
        let data = Texts::new(128).data(1, 7).to_owned();
        let right = message(1, &data);
        for _ in 0..2 {
            assert!(clients.is_publication(right.as_bytes(), 1, 7).is_ok());
            for (topic, number) in [(1, 6), (1, 8), (2, 7)] {
                let read = clients.is_publication(right.as_bytes(), topic, number);
                assert!(matches!(read, Err(Unlike::Data(_))));
            }
            for wrong in [message(2, &data), message(1, &data.replace("abc", "abd"))] {
                let read = clients.is_publication(wrong.as_bytes(), 1, 7);
                assert!(matches!(read, Err(Unlike::Data(_))), "{wrong}");
            }
        }
        let other = clients.is_publication(br#"{"type":"dropped","count":1}"#, 1, 7);
        assert!(matches!(other, Err(Unlike::Publication)));
        assert!(matches!(clients.is_publication(b"{", 1, 7), Err(Unlike::Unreadable(_))));
    }
}
