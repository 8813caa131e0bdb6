//! `fanout`: subscribers of one channel, or spread over several, and connections that publish to them.
//! Each delivery is checked byte by byte and must be the next of its channel: none is lost, none comes
//! twice, all come in order. Connections beside them ping the server meanwhile.
//!
//! Without a rate the loop is closed: a publisher has up to `pipeline` publications under way, and one
//! is over when its last subscriber has it. With a rate publication `k` of all is due `k / rate`
//! seconds after the beginning, and its times count from then. Who has the last delivery of a
//! publication may be another shard than the publisher's: [`Shared`] is what they share.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use murre_core::ConnId;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::Difference;
use crate::client::channel::{MessageBuffer, ServerMessage, publish, subscribe, unreadable};
use crate::client::ws::WsClient;
use crate::client::ws::{Piece, WsContext, WsOutput, WsScenario};
use crate::engine::fleet::Fleet;
use crate::engine::score::Times;
use crate::engine::score::{Fault, Micros, latency};
use crate::engine::share::part;
use crate::engine::wakeups::Wakeups;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{
    ClientSetup, PAYLOAD_MAX, Scenario, Setup, check_in_flight, check_rate,
};
use crate::scenarios::ws_idle::{self, WsIdle};
use murre_record::{CountedFrom, FanoutFacts, Scenario as Kind};
use serde::Serialize;
use std::sync::OnceLock;

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Bytes of the JSON that is published
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..=PAYLOAD_MAX)
    )]
    payload: u32,

    /// Publications in flight of one publisher
    #[arg(
        long,
        value_name = "DEPTH",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pipeline: u32,

    /// Publications per second of all publishers together, on a fixed schedule (open loop) [default: as
    /// fast as they are delivered]
    #[arg(long, value_name = "N/s", value_parser = args::rate)]
    rate: Option<f64>,

    /// Time from one ping of a connection beside to the next
    #[arg(long, default_value = "100ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    /// Channels that the subscribers are spread over
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..),
        alias = "topics"
    )]
    channels: u32,

    /// Connections that publish; each has channels of its own
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    publishers: u32,

    /// Connections beside them, on a thread of their own, that ping the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    beside: u32,

    #[arg(skip)]
    #[serde(skip)]
    shared: OnceLock<Arc<Shared>>,
}

impl Scenario for Args {
    fn kind(&self) -> Kind {
        Kind::Fanout
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(self.rate)?;
        if self.channels > common.conns {
            return Err("--channels without subscribers: give as many --conns".to_owned());
        }
        if self.publishers > self.channels {
            return Err("--publishers without channels: give as many --channels".to_owned());
        }
        if self.payload < PAYLOAD_BYTES_MIN {
            return Err(format!("--payload is {PAYLOAD_BYTES_MIN} at least"));
        }
        check_in_flight(self.payload, self.pipeline)
    }

    fn conns_all(&self, common: &Common) -> u64 {
        [common.conns, self.publishers, self.beside].map(u64::from).iter().sum()
    }

    fn workers_apart(&self) -> usize {
        usize::from(self.beside > 0)
    }

    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        let publishing = workers - self.workers_apart();
        if worker == publishing {
            return self.beside;
        }
        part(self.publishers + common.conns, worker, publishing)
    }

    fn in_flight_bytes(&self) -> u32 {
        self.payload * self.pipeline
    }

    fn counted_from(&self) -> CountedFrom {
        if self.rate.is_some() { CountedFrom::Due } else { CountedFrom::SentInClosedLoop }
    }

    fn must_receive(&self) -> bool {
        true
    }

    fn bytes_per_connection(&self) -> usize {
        Fleet::<WsClient<Fanout>>::MEMBER_BYTES
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let settings = Settings { args: self.clone(), setup: setup.client(&config) };
        let shared = || Arc::new(Shared::new(&settings, Arc::clone(setup.wakeups)));
        let shared = Arc::clone(self.shared.get_or_init(shared));
        let conns = config.share.conns;
        setup.start_ws(config, move |_| Fanout::new(settings, shared, conns))
    }

    fn fanout_facts(&self, times: &Times) -> Option<FanoutFacts> {
        Some(FanoutFacts {
            publications: self.shared.get()?.over(),
            last_delivery_us: latency(&times.over, self.counted_from()),
            beside_us: (self.beside > 0).then(|| latency(&times.beside, CountedFrom::Due)),
        })
    }
}

/// The arguments, and what the worker knows of the run.
#[derive(Clone)]
pub(crate) struct Settings {
    args: Args,
    setup: ClientSetup,
}

impl Settings {
    /// The workers of publishers and subscribers. One more has the connections beside them, if there are
    /// any, so that their answers do not wait until a client has read its deliveries.
    fn workers(&self) -> u32 {
        self.setup.workers - u32::from(self.args.beside > 0)
    }

    /// What a shard's connection `place` does.
    fn role(&self, shard: u32, place: u32) -> Role {
        if shard == self.workers() {
            return Role::Beside;
        }
        let i = place * self.workers() + shard;
        if i < self.args.publishers {
            Role::Publisher(i)
        } else {
            Role::Subscriber { channel: (i - self.args.publishers) % self.args.channels }
        }
    }

    /// Publications of one channel that may be under way.
    fn depth(&self) -> u32 {
        match self.args.rate {
            Some(_) => (SCHEDULED_UNDER_WAY_MAX / self.args.channels).clamp(1, 1024),
            // A publisher takes its channels in turns.
            None => self.args.pipeline.div_ceil(self.args.channels / self.args.publishers),
        }
    }
}

/// What is under way, for all shards to see.
pub(crate) struct Shared {
    pub(crate) wakeups: Arc<Wakeups>,
    channels: Box<[ChannelState]>,
    /// Of each publisher: publications that somebody does not have yet.
    in_flight: Box<[AtomicU32]>,
}

struct ChannelState {
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

impl Shared {
    pub(crate) fn new(settings: &Settings, wakeups: Arc<Wakeups>) -> Shared {
        let channel = || ChannelState {
            members: AtomicU32::new(0),
            published: AtomicU64::new(0),
            over: AtomicU64::new(0),
            slots: (0..settings.depth()).map(|_| Slot::default()).collect(),
        };
        Shared {
            wakeups,
            channels: (0..settings.args.channels).map(|_| channel()).collect(),
            in_flight: (0..settings.args.publishers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Publications so far that every subscriber has.
    fn over(&self) -> u64 {
        self.channels.iter().map(|channel| channel.over.load(Ordering::Relaxed)).sum()
    }

    fn channel(&self, channel: u32) -> &ChannelState {
        &self.channels[channel as usize]
    }

    fn in_flight(&self, publisher: u32) -> &AtomicU32 {
        &self.in_flight[publisher as usize]
    }
}

impl ChannelState {
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
    shared: Arc<Shared>,
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
    /// Publications so far: its channels take turns.
    published: u64,
}

/// What is kept of one client.
#[derive(Default)]
pub(crate) struct State {
    role: Role,
    /// Its place, once it has one.
    place: Option<u32>,
    buffer: MessageBuffer,
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
        channel: u32,
    },
}

/// A message that was read, and found to be what was published.
#[derive(Default)]
struct Read {
    text: Vec<u8>,
    channel: u32,
    number: u64,
}

impl Fanout {
    pub(crate) fn new(settings: Settings, shared: Arc<Shared>, conns: u32) -> Fanout {
        let shard = settings.setup.worker;
        let here =
            (0..settings.args.publishers).filter(|number| number % settings.workers() == shard);
        let publishers = here.map(|number| Publisher { number, id: None, published: 0 }).collect();
        Fanout {
            shared,
            shard,
            free: (0..conns).rev().collect(),
            publishers,
            beside: WsIdle::beside(
                settings.args.every,
                settings.setup.timeout,
                settings.setup.own_seed(),
            ),
            texts: Texts::new(settings.args.payload),
            read: Read::default(),
            begun: None,
            ended: None,
            settings,
        }
    }

    fn publisher(&mut self, number: u32) -> &mut Publisher {
        &mut self.publishers[(number / self.settings.workers()) as usize]
    }

    /// The channel that a publisher's next publication is for.
    fn channel_of(&self, publisher: &Publisher) -> u32 {
        let own = (self.settings.args.channels - publisher.number)
            .div_ceil(self.settings.args.publishers);
        publisher.number
            + (publisher.published % u64::from(own)) as u32 * self.settings.args.publishers
    }

    /// With a rate: when a publisher's next publication is due.
    fn due(&self, begun: Instant, rate: f64, publisher: &Publisher) -> Instant {
        let k = publisher.published * u64::from(self.settings.args.publishers);
        begun + Duration::from_secs_f64((k + u64::from(publisher.number)) as f64 / rate)
    }

    /// Publishes what may be published now.
    fn publish(&mut self, index: usize, output: &mut WsOutput<'_>) {
        let Some(begun) = self.begun else { return };
        let shared = Arc::clone(&self.shared);
        loop {
            let publisher = &self.publishers[index];
            let (Some(id), now) = (publisher.id, output.out.now()) else { return };
            let number_own = publisher.number;
            let due = match self.settings.args.rate {
                Some(rate) => self.due(begun, rate, publisher),
                None if shared.in_flight(number_own).load(Ordering::Acquire)
                    < self.settings.args.pipeline =>
                {
                    Instant::now()
                }
                None => return,
            };
            if self.ended.is_some_and(|ended| due >= ended)
                || (self.settings.args.rate.is_some() && due > now)
            {
                return;
            }
            let place = self.channel_of(publisher);
            let channel = shared.channel(place);
            let members = channel.members.load(Ordering::Relaxed);
            if !channel.has_room() || members == 0 {
                return;
            }
            let number = channel.published.load(Ordering::Relaxed);
            let text = self.texts.data(place, number);
            let command = publish(&identifier(place), text, None);
            let micros = output.score.micros(due);
            let slot = channel.slot(number);
            slot.due.store(micros.0, Ordering::Relaxed);
            slot.left.store(members, Ordering::Relaxed);
            output.score.owe(members);
            shared.in_flight(number_own).fetch_add(1, Ordering::AcqRel);
            channel.published.store(number + 1, Ordering::Release);
            self.publishers[index].published += 1;
            // Gone: `closed` follows and counts it; what it owes fails the run.
            if !output.send(id, MessageKind::Text.opcode(), command.as_bytes()) {
                return;
            }
            output.out.set_timer(id, output.out.ticks(self.settings.setup.timeout));
        }
    }

    /// Whether a text is publication `number` of the channel. What it is, if not.
    fn is_publication(&mut self, text: &[u8], channel: u32, number: u64) -> Result<(), Unlike> {
        if (self.read.channel, self.read.number) == (channel, number) && self.read.text == text {
            return Ok(());
        }
        let heard: ServerMessage<'_, &str> =
            ServerMessage::read(text).map_err(Unlike::Unreadable)?;
        if heard.kind != "publication" {
            return Err(Unlike::Publication);
        }
        let expected = self.texts.data(channel, number);
        // Without the quotes: its letters need no escapes.
        let expected = &expected[1..expected.len() - 1];
        let got = heard.data.unwrap_or_default();
        if heard.identifier != identifier(channel) || got != expected {
            let difference = Difference { expected: expected.as_bytes(), got: got.as_bytes() };
            let why = format!("of {}, publication {number}: {difference}", heard.identifier);
            return Err(Unlike::Data(why));
        }
        self.read = Read { text: text.to_owned(), channel, number };
        Ok(())
    }

    /// A subscriber has the next publication of its channel.
    fn delivered(&mut self, channel: u32, number: u64, bytes: usize, ctx: &mut WsContext<'_>) {
        let shared = Arc::clone(&self.shared);
        let of_channel = shared.channel(channel);
        let due = Micros(of_channel.slot(number).due.load(Ordering::Relaxed));
        let now = Instant::now();
        let score = &mut *ctx.score;
        score.weigh(bytes);
        if of_channel.delivered(number) {
            score.over(due, now);
            self.over(channel);
            let publisher = channel % self.settings.args.publishers;
            // First the next publication, then the count: nobody sees nothing owed in between.
            if publisher % self.settings.workers() == self.shard {
                let index = (publisher / self.settings.workers()) as usize;
                self.publish(index, &mut ctx.output());
            }
        }
        ctx.score.answered(due, now);
    }

    /// A publication is over: its publisher may go on.
    fn over(&self, channel: u32) {
        let publisher = channel % self.settings.args.publishers;
        self.shared.in_flight(publisher).fetch_sub(1, Ordering::AcqRel);
        let shard = publisher % self.settings.workers();
        if shard != self.shard {
            self.shared.wakeups.wake(shard as usize);
        }
    }

    /// What the server says to a subscriber.
    fn heard(
        &mut self,
        id: ConnId,
        channel: u32,
        state: &mut State,
        text: &[u8],
        ctx: &mut WsContext<'_>,
    ) {
        let Some(number) = state.next else {
            let Some(heard) = ServerMessage::<'_, &str>::hear(id, text, ctx) else { return };
            if heard.kind != "subscribed" || heard.identifier != identifier(channel) {
                return heard.unexpected(id, ctx);
            }
            let of_channel = self.shared.channel(channel);
            of_channel.members.fetch_add(1, Ordering::Relaxed);
            state.next = Some(of_channel.published.load(Ordering::Acquire));
            ctx.out.clear_timer(id);
            return ctx.ready();
        };
        if number >= self.shared.channel(channel).published.load(Ordering::Acquire) {
            let detail = "a publication that nobody has published, or one twice";
            return match self.is_publication(text, channel, number.saturating_sub(1)) {
                Err(Unlike::Publication) => self.not_a_publication(id, text, ctx),
                _ => ctx.fail(id, Fault::Wrong, detail),
            };
        }
        match self.is_publication(text, channel, number) {
            Ok(()) => {
                state.next = Some(number + 1);
                self.delivered(channel, number, text.len(), ctx);
            }
            Err(Unlike::Unreadable(error)) => unreadable(id, text, &error, ctx),
            Err(Unlike::Publication) => self.not_a_publication(id, text, ctx),
            Err(Unlike::Data(why)) => ctx.fail(id, Fault::Wrong, why),
        }
    }

    fn not_a_publication(&self, id: ConnId, text: &[u8], ctx: &mut WsContext<'_>) {
        if let Some(heard) = ServerMessage::<'_, serde::de::IgnoredAny>::hear(id, text, ctx) {
            heard.unexpected(id, ctx);
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

impl WsScenario for Fanout {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, id: ConnId, state: &mut State, ctx: &mut WsContext<'_>) {
        let place = self.free.pop().expect("as many places as connections");
        state.place = Some(place);
        state.role = self.settings.role(self.shard, place);
        match state.role {
            Role::Publisher(number) => {
                self.publisher(number).id = Some(id);
                ctx.ready();
            }
            Role::Beside => {
                ctx.ready();
                self.beside.open(id, &mut state.beside, ctx);
            }
            Role::Subscriber { channel } => {
                let text = subscribe(&identifier(channel), None);
                ctx.command(id, &text, self.settings.setup.timeout);
            }
        }
    }

    fn message(
        &mut self,
        id: ConnId,
        state: &mut State,
        piece: Piece<'_>,
        ctx: &mut WsContext<'_>,
    ) {
        let Some(text) = state.buffer.text(id, &piece, ctx) else { return };
        match state.role {
            Role::Subscriber { channel } => self.heard(id, channel, state, &text, ctx),
            Role::Publisher(_) | Role::Beside => self.not_a_publication(id, &text, ctx),
        }
    }

    fn pong(&mut self, id: ConnId, state: &mut State, payload: &[u8], ctx: &mut WsContext<'_>) {
        self.beside.pong(id, &mut state.beside, payload, ctx);
    }

    fn expired(&mut self, id: ConnId, state: &mut State, ctx: &mut WsContext<'_>) {
        let timeout = self.settings.setup.timeout;
        match state.role {
            Role::Beside => self.beside.expired(id, &mut state.beside, ctx),
            Role::Subscriber { .. } => {
                let detail = format_args!("not subscribed within {timeout:?}");
                ctx.fail(id, Fault::Timeout, detail);
            }
            Role::Publisher(number) => {
                if self.shared.in_flight(number).load(Ordering::Acquire) > 0 {
                    let detail = format_args!("a publication not with all within {timeout:?}");
                    ctx.fail(id, Fault::Timeout, detail);
                }
            }
        }
    }

    fn owed(&self, state: &State) -> u32 {
        match (state.role, state.next) {
            (Role::Subscriber { channel }, Some(next)) => {
                self.missing(channel, next).count() as u32
            }
            (Role::Beside, _) => self.beside.owed(&state.beside),
            _ => 0,
        }
    }

    fn begin(&mut self, output: &mut WsOutput<'_>) {
        self.begun = Some(output.out.now());
        self.turn(output);
    }

    fn turn(&mut self, output: &mut WsOutput<'_>) {
        if self.publishers.is_empty() {
            return;
        }
        self.shared.wakeups.taken(self.shard as usize);
        for index in 0..self.publishers.len() {
            self.publish(index, output);
        }
    }

    /// With a rate: when the next publication is due. One that waits for room has a bell.
    fn wake_at(&self) -> Option<Instant> {
        let (Some(begun), Some(rate), None) = (self.begun, self.settings.args.rate, self.ended)
        else {
            return None;
        };
        let able = self.publishers.iter().filter(|publisher| {
            publisher.id.is_some() && self.shared.channel(self.channel_of(publisher)).has_room()
        });
        able.map(|publisher| self.due(begun, rate, publisher)).min()
    }

    fn finish(&mut self, output: &mut WsOutput<'_>) {
        self.ended = Some(output.out.now());
        self.beside.finish(output);
    }

    fn closed(&mut self, state: State) {
        match (state.role, state.next) {
            (Role::Publisher(number), _) if state.place.is_some() => {
                self.publisher(number).id = None;
            }
            (Role::Beside, _) => self.beside.closed(state.beside),
            (Role::Subscriber { channel }, Some(next)) => {
                let of_channel = self.shared.channel(channel);
                of_channel.members.fetch_sub(1, Ordering::Relaxed);
                for number in self.missing(channel, next) {
                    if of_channel.delivered(number) {
                        self.over(channel);
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
    fn missing(&self, channel: u32, next: u64) -> Range<u64> {
        next..self.shared.channel(channel).published.load(Ordering::Acquire)
    }
}

fn identifier(channel: u32) -> String {
    format!("fanout-{channel}")
}

/// What is published: a string of JSON, with the number of the publication and its channel in front.
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

    fn data(&mut self, channel: u32, number: u64) -> &str {
        if self.of != Some((channel, number)) {
            self.of = Some((channel, number));
            self.text.clear();
            // Writing to a string does not fail.
            let _ = write!(self.text, "\"{number:016x}{channel:08x}");
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
        let every = Duration::from_secs(1);
        let args = Args {
            payload: 128,
            pipeline: 4,
            rate: Some(100.0),
            every,
            channels: 5,
            publishers: 2,
            beside: 3,
            shared: OnceLock::new(),
        };
        let setup = ClientSetup { conns: 10, worker: 0, workers: 5, timeout: every, seed: 1 };
        Settings { args, setup }
    }

    fn shard(settings: &Settings, shared: &Arc<Shared>, worker: u32) -> Fanout {
        let mut settings = settings.clone();
        settings.setup.worker = worker;
        Fanout::new(settings, Arc::clone(shared), 3)
    }

    #[test]
    fn publications_are_as_long_as_they_should_be_and_differ() {
        // Shows the length from the least on, that they are JSON, and that numbers and channels differ.
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
        // their channels in turns, and that what is due is due once.
        let settings = settings();
        let wakeups = Wakeups::new(4);
        let shared = Arc::new(Shared::new(&settings, wakeups));
        let shards: Vec<_> = (0..5).map(|number| shard(&settings, &shared, number)).collect();
        let roles_of = |number: u32| {
            let settings = &settings;
            (0..3).map(move |place| settings.role(number, place))
        };
        let roles: Vec<_> = (0..5).flat_map(roles_of).collect();
        let of_channel_count =
            |channel| roles.iter().filter(|&&r| r == Role::Subscriber { channel }).count();
        assert!((0..5).all(|channel| of_channel_count(channel) == 2), "{roles:?}");
        assert_eq!(roles[12..], [Role::Beside; 3], "on a shard of their own");
        assert!(!roles[..12].contains(&Role::Beside));

        let begun = Instant::now();
        let mut due = Vec::new();
        let mut channels = Vec::new();
        for shard in &shards {
            for publisher in &shard.publishers {
                for published in 0..6 {
                    let publisher = Publisher { published, ..*publisher };
                    channels.push(shard.channel_of(&publisher));
                    due.push(shard.due(begun, 1000.0, &publisher).duration_since(begun));
                }
            }
        }
        assert_eq!(channels, [0, 2, 4, 0, 2, 4, 1, 3, 1, 3, 1, 3]);
        due.sort_unstable();
        let expected: Vec<_> = (0..12).map(Duration::from_millis).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn a_publication_is_over_when_the_last_has_it() {
        // Shows that room for another comes with the last delivery, and that a subscriber who leaves
        // is not waited for.
        let mut settings = settings();
        (settings.args.rate, settings.args.pipeline, settings.args.channels) = (None, 1, 2);
        let shared = Shared::new(&settings, Wakeups::new(4));
        let channel = shared.channel(0);
        channel.slot(0).left.store(2, Ordering::Relaxed);
        channel.published.store(1, Ordering::Relaxed);
        assert!(!channel.has_room() && !channel.delivered(0) && !channel.has_room());
        assert!(channel.delivered(0) && channel.has_room());
        assert_eq!(shared.over(), 1);
    }

    #[test]
    fn a_publication_must_be_the_next_of_its_topic() {
        // Shows that another number, channel, byte or kind of message is not taken for it, read anew or
        // compared with what was read last.
        let settings = settings();
        let shared = Arc::new(Shared::new(&settings, Wakeups::new(4)));
        let mut clients = shard(&settings, &shared, 0);
        let message = |channel, data: &str| {
            format!(
                r#"{{"type":"publication","identifier":"{}","data":{data}}}"#,
                identifier(channel)
            )
        };
        let data = Texts::new(128).data(1, 7).to_owned();
        let right = message(1, &data);
        for _ in 0..2 {
            assert!(clients.is_publication(right.as_bytes(), 1, 7).is_ok());
            for (channel, number) in [(1, 6), (1, 8), (2, 7)] {
                let read = clients.is_publication(right.as_bytes(), channel, number);
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
