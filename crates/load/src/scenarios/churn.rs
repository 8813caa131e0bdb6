//! `churn`: connections that subscribe, unsubscribe and reconnect at random, while one publishes
//! numbers to their channels. What a subscriber hears must be a run without gaps for as long as it is
//! subscribed. In channels with history, those of the namespace `kept`, it resumes where it was and must
//! have missed nothing and get nothing twice, across reconnects.
//!
//! A subscriber is a client that outlives its connections: the next connection of its shard takes it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use murre_core::{CloseReason, ConnId};
use murre_record::ChurnFacts;
use serde::Deserialize;

use crate::cli::args;
use crate::cli::args::Span;
use crate::cli::common::Common;
use crate::client::channel::{
    MessageBuffer, Position, ServerMessage, publish, subscribe, unsubscribe,
};
use crate::client::ws::WsClient;
use crate::client::ws::{Piece, WsContext, WsOutput, WsScenario};
use crate::client::{fraction, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros, Score};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{ClientSetup, FINE_TICK, Scenario, Setup, check_fine, check_rate};
use murre_record::{CountedFrom, Scenario as Kind};
use serde::Serialize;
use std::sync::OnceLock;

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Range of seconds from one change of a subscriber to the next
    #[arg(long, value_name = "FROM-TO", default_value = "0.1-1")]
    idle: Span,

    /// Channels that the subscribers are spread over
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..),
        alias = "topics"
    )]
    channels: u32,

    /// How many of the channels have history, in the namespace `kept` [default: half]
    #[arg(long, value_name = "N")]
    kept: Option<u32>,

    /// Publications per second, on a fixed schedule
    #[arg(long, value_name = "N/s", default_value = "1000", value_parser = args::rate)]
    rate: f64,

    #[arg(skip)]
    #[serde(skip)]
    shared: OnceLock<Arc<Shared>>,
}

impl Args {
    /// Channels with history.
    fn kept(&self) -> u32 {
        self.kept.unwrap_or(self.channels / 2)
    }
}

impl Scenario for Args {
    fn kind(&self) -> Kind {
        Kind::Churn
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))?;
        if self.channels > common.conns {
            return Err("--channels without subscribers: give as many --conns".to_owned());
        }
        if self.kept() > self.channels {
            return Err("--kept is more than there are --channels".to_owned());
        }
        check_fine(self.idle.to.max(common.timeout.as_secs_f64()))
    }

    fn conns_all(&self, common: &Common) -> u64 {
        // One more publishes.
        u64::from(common.conns) + 1
    }

    fn tick(&self) -> Duration {
        FINE_TICK
    }

    fn counted_from(&self) -> CountedFrom {
        CountedFrom::Sent
    }

    fn must_receive(&self) -> bool {
        true
    }

    fn bytes_per_connection(&self) -> usize {
        Fleet::<WsClient<Churn>>::MEMBER_BYTES
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let shared = Arc::clone(self.shared.get_or_init(|| Arc::new(Shared::new(self))));
        let args = self.clone();
        setup.start_ws(config, move |client| Churn::new(args, client, shared))
    }

    fn churn_facts(&self) -> Option<ChurnFacts> {
        self.shared.get().map(|shared| shared.facts())
    }
}

/// What all shards see.
pub(crate) struct Shared {
    /// Of each channel: publications so far.
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

impl Shared {
    pub(crate) fn new(args: &Args) -> Shared {
        let sent = (0..args.channels).map(|_| AtomicU64::new(0)).collect();
        Shared { sent, over: AtomicBool::new(false), counts: Counts::default() }
    }

    fn facts(&self) -> ChurnFacts {
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

    fn sent(&self, channel: u32) -> &AtomicU64 {
        &self.sent[channel as usize]
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One shard's clients.
pub(crate) struct Churn {
    args: Args,
    setup: ClientSetup,
    shared: Arc<Shared>,
    subscribers: Vec<Subscriber>,
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
struct Subscriber {
    channel: u32,
    stage: Stage,
    run: Run,
    /// Where it stands in the history of its channel.
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
    buffer: MessageBuffer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    #[default]
    None,
    Publisher,
    Subscriber(u32),
}

impl Churn {
    pub(crate) fn new(args: Args, setup: ClientSetup, shared: Arc<Shared>) -> Churn {
        // The publisher is number 0 of all; the subscribers follow it.
        let all = (1..=setup.conns).filter(|number| number % setup.workers == setup.worker);
        let subscriber = |number: u32| Subscriber {
            channel: (number - 1) % args.channels,
            stage: Stage::Away,
            run: Run::default(),
            position: None,
            round: 0,
            connected_before: false,
        };
        let subscribers: Vec<_> = all.map(subscriber).collect();
        Churn {
            free: (0..subscribers.len() as u32).collect(),
            subscribers,
            shared,
            publisher: None,
            begun: None,
            published: 0,
            unanswered: 0,
            finishing: false,
            settled: false,
            args,
            setup,
        }
    }

    fn is_kept(&self, channel: u32) -> bool {
        channel < self.args.kept()
    }

    /// Runs after each other do not share the history.
    fn identifier(&self, channel: u32) -> String {
        let namespace = if self.is_kept(channel) { "kept" } else { "churn" };
        format!("{namespace}:churn-{}-{channel}", self.setup.seed)
    }

    fn subscriber(&mut self, place: u32) -> &mut Subscriber {
        &mut self.subscribers[place as usize]
    }

    /// Number and pause of a subscriber's next change of mind.
    fn next_mind(&mut self, place: u32) -> (u64, Duration) {
        let seed = self.setup.seed ^ u64::from(self.setup.worker) << 40;
        let subscriber = self.subscriber(place);
        subscriber.round = subscriber.round.wrapping_add(1);
        let hash = hash(seed, place, subscriber.round);
        (hash, Duration::from_secs_f64(self.args.idle.at(fraction(hash))))
    }

    fn rest(&mut self, id: ConnId, place: u32, ctx: &mut WsContext<'_>) {
        let (_, pause) = self.next_mind(place);
        ctx.start_timer(id, pause);
    }

    fn subscribe(&mut self, id: ConnId, place: u32, ctx: &mut WsContext<'_>) {
        let subscriber = self.subscriber(place);
        subscriber.stage = Stage::Subscribing;
        let (channel, position) = (subscriber.channel, subscriber.position);
        self.ask(id, &subscribe(&self.identifier(channel), position), ctx);
    }

    fn ask(&self, id: ConnId, command: &str, ctx: &mut WsContext<'_>) {
        ctx.command(id, command, self.setup.timeout);
    }

    /// The server has answered `subscribe`.
    fn subscribed(
        &mut self,
        id: ConnId,
        place: u32,
        (position, recovered): (Option<Position>, Option<bool>),
        ctx: &mut WsContext<'_>,
    ) {
        let subscriber = &mut self.subscribers[place as usize];
        let kept = subscriber.channel < self.args.kept();
        let counts = &self.shared.counts;
        // Whatever is published from now on must come.
        let sent = self.shared.sent(subscriber.channel).load(Ordering::Acquire);
        match (kept, position, subscriber.position, recovered) {
            (false, ..) => subscriber.run = Run { next: None, floor: sent },
            (true, Some(new), None, _) => {
                subscriber.run = Run { next: None, floor: sent };
                subscriber.position = Some(new);
            }
            // The run goes on, and the position with each publication.
            (true, Some(new), Some(old), Some(true)) if new.epoch == old.epoch => {
                one_more(&counts.recovered);
                let missed = new.offset.saturating_sub(old.offset);
                counts.recovered_publications.fetch_add(missed, Ordering::Relaxed);
                subscriber.run.floor = sent;
            }
            (true, Some(new), Some(_), Some(false)) => {
                one_more(&counts.unrecovered);
                subscriber.run = Run { next: None, floor: sent };
                subscriber.position = Some(new);
            }
            (true, ..) => {
                let detail = format_args!(
                    "a channel with history is subscribed to with position {position:?}, recovered \
                     {recovered:?}"
                );
                return ctx.fail(id, Fault::Wrong, detail);
            }
        }
        subscriber.stage = Stage::Subscribed;
        one_more(&counts.subscribed);
        ctx.ready();
        self.rest(id, place, ctx);
    }

    fn publication(
        &mut self,
        id: ConnId,
        place: u32,
        (data, offset): (&Data, Option<u64>),
        ctx: &mut WsContext<'_>,
    ) {
        let subscriber = &mut self.subscribers[place as usize];
        if let Err(Gap { expected, number }) = subscriber.run.hear(data.number) {
            let detail = format_args!(
                "publication {number} of channel {} for {expected}",
                subscriber.channel
            );
            return ctx.fail(id, Fault::Wrong, detail);
        }
        if let Some(position) = &mut subscriber.position {
            if offset != Some(position.offset + 1) {
                let detail = format_args!("offset {offset:?} behind {}", position.offset);
                return ctx.fail(id, Fault::Wrong, detail);
            }
            position.offset += 1;
        }
        // What was missed has waited for its reader, not for the server.
        let now = Instant::now();
        let after = ctx.score.micros(now).since(Micros(data.sent));
        if data.number >= subscriber.run.floor {
            ctx.score.arrived(after, 0);
        } else {
            ctx.score.arrived_late();
        }
    }

    /// What the server says to a subscriber.
    fn heard(&mut self, id: ConnId, place: u32, text: &[u8], ctx: &mut WsContext<'_>) {
        let Some(heard) = ServerMessage::<'_, Data>::hear(id, text, ctx) else { return };
        let (channel, stage) = (self.subscriber(place).channel, self.subscriber(place).stage);
        if heard.identifier != self.identifier(channel) {
            return heard.unexpected(id, ctx);
        }
        match (&heard.kind[..], &heard.data, stage) {
            ("publication", Some(data), Stage::Subscribed | Stage::Unsubscribing) => {
                self.publication(id, place, (data, heard.offset), ctx);
            }
            ("subscribed", _, Stage::Subscribing) => {
                self.subscribed(id, place, (heard.position, heard.recovered), ctx);
            }
            ("unsubscribed", _, Stage::Unsubscribing) => {
                one_more(&self.shared.counts.unsubscribed);
                self.subscriber(place).stage = Stage::Resting;
                self.rest(id, place, ctx);
            }
            _ => heard.unexpected(id, ctx),
        }
    }

    /// What the server says to the publisher.
    fn answered(&mut self, id: ConnId, text: &[u8], ctx: &mut WsContext<'_>) {
        let Some(heard) = ServerMessage::<'_, Data>::hear(id, text, ctx) else { return };
        let asked = self.published - u64::from(self.unanswered);
        if heard.kind != "published" || self.unanswered == 0 {
            return heard.unexpected(id, ctx);
        }
        if heard.id.is_none_or(|id| id >= self.published) {
            let detail = format_args!("answer {:?} for {asked}", heard.id);
            return ctx.fail(id, Fault::Wrong, detail);
        }
        self.unanswered -= 1;
        one_more(&self.shared.counts.published);
        ctx.score.forget(1);
        if self.unanswered == 0 {
            ctx.out.clear_timer(id);
        }
    }

    fn due(&self) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.finishing)?;
        let after = Duration::from_secs_f64(self.published as f64 / self.args.rate);
        self.publisher.is_some().then(|| begun + after)
    }

    fn publish(&mut self, output: &mut WsOutput<'_>) {
        while let (Some(due), Some(id)) = (self.due(), self.publisher) {
            if due > output.out.now() {
                return;
            }
            let channel = (self.published % u64::from(self.args.channels)) as u32;
            let sent = self.shared.sent(channel);
            let number = sent.load(Ordering::Relaxed);
            let micros = output.score.micros(Instant::now()).0;
            let data = format!(r#"{{"number":{number},"sent":{micros}}}"#);
            let command = publish(&self.identifier(channel), &data, Some(self.published));
            sent.store(number + 1, Ordering::Release);
            let timeout = self.setup.timeout;
            if !output.ask(id, MessageKind::Text.opcode(), command.as_bytes(), timeout) {
                return;
            }
            self.published += 1;
            self.unanswered += 1;
        }
    }

    /// Nothing more is published: whether everybody here has everything.
    fn settle(&mut self, score: &mut Score) {
        if self.settled || !self.finishing || !self.shared.over.load(Ordering::Acquire) {
            return;
        }
        let shared = &self.shared;
        self.settled = self.subscribers.iter().all(|subscriber| {
            subscriber.stage == Stage::Subscribed
                && subscriber.run.has_all(shared.sent(subscriber.channel).load(Ordering::Acquire))
        });
        if self.settled {
            score.forget(1);
        }
    }
}

impl WsScenario for Churn {
    type State = State;
    const READY_WHEN_OPEN: bool = false;
    const RETURNS: bool = true;

    fn open(&mut self, id: ConnId, state: &mut State, ctx: &mut WsContext<'_>) {
        if self.setup.worker == 0 && self.publisher.is_none() {
            state.role = Role::Publisher;
            self.publisher = Some(id);
            return ctx.ready();
        }
        let place = self.free.pop().expect("as many subscribers as connections");
        state.role = Role::Subscriber(place);
        if std::mem::replace(&mut self.subscriber(place).connected_before, true) {
            one_more(&self.shared.counts.reconnected);
        }
        self.subscribe(id, place, ctx);
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
            Role::Subscriber(place) => self.heard(id, place, &text, ctx),
            Role::Publisher | Role::None => self.answered(id, &text, ctx),
        }
    }

    fn expired(&mut self, id: ConnId, state: &mut State, ctx: &mut WsContext<'_>) {
        let timeout = self.setup.timeout;
        let Role::Subscriber(place) = state.role else {
            let detail = format_args!("no answer to a publication within {timeout:?}");
            return ctx.fail(id, Fault::Timeout, detail);
        };
        let stage = self.subscriber(place).stage;
        match stage {
            Stage::Resting => self.subscribe(id, place, ctx),
            // At the end everybody stays, to have everything.
            Stage::Subscribed if self.finishing => {}
            Stage::Subscribed => {
                let (hash, _) = self.next_mind(place);
                match hash % 4 {
                    0 | 1 => {
                        self.subscriber(place).stage = Stage::Unsubscribing;
                        let channel = self.subscriber(place).channel;
                        self.ask(id, &unsubscribe(&self.identifier(channel)), ctx);
                    }
                    2 => {
                        ctx.send_close(id);
                        ctx.leave();
                        ctx.out.close(id, CloseReason::Finished);
                    }
                    _ => {
                        ctx.leave();
                        ctx.out.abort(id, CloseReason::Finished);
                    }
                }
            }
            Stage::Subscribing | Stage::Unsubscribing | Stage::Away => {
                ctx.fail(id, Fault::Timeout, format_args!("no answer within {timeout:?}"));
            }
        }
    }

    fn owed(&self, state: &State) -> u32 {
        if state.role == Role::Publisher { self.unanswered } else { 0 }
    }

    fn begin(&mut self, output: &mut WsOutput<'_>) {
        self.begun = Some(output.out.now());
    }

    fn turn(&mut self, output: &mut WsOutput<'_>) {
        self.publish(output);
        self.settle(output.score);
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.finishing && !self.settled {
            return Some(Instant::now() + SETTLE_EVERY);
        }
        self.due()
    }

    /// One thing is owed by each shard: that everybody there has everything.
    fn finish(&mut self, output: &mut WsOutput<'_>) {
        self.finishing = true;
        output.score.owe(1);
        if self.setup.worker == 0 {
            self.shared.over.store(true, Ordering::Release);
        }
    }

    fn closed(&mut self, state: State) {
        match state.role {
            Role::None => {}
            Role::Publisher => (self.publisher, self.unanswered) = (None, 0),
            Role::Subscriber(place) => {
                self.subscriber(place).stage = Stage::Away;
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
        // Shows that no subscriber is forgotten, that the shard with the publisher has one less, and which
        // channels are kept.
        let idle = Span { from: 0.1, to: 0.2 };
        let shared = OnceLock::new();
        let args = Args { idle, channels: 4, kept: Some(1), rate: 100.0, shared };
        let shared = Arc::new(Shared::new(&args));
        let setup = |worker| {
            let timeout = Duration::from_secs(1);
            ClientSetup { conns: 11, worker, workers: 3, timeout, seed: 9 }
        };
        let shards: Vec<_> = (0..3)
            .map(|worker| Churn::new(args.clone(), setup(worker), Arc::clone(&shared)))
            .collect();
        let subscribers: Vec<_> = shards.iter().map(|shard| shard.subscribers.len()).collect();
        assert_eq!(subscribers, [3, 4, 4]);
        let of_channel = |channel| {
            let subscribers = shards.iter().flat_map(|shard| &shard.subscribers);
            subscribers.filter(|subscriber| subscriber.channel == channel).count()
        };
        assert_eq!([0, 1, 2, 3].map(of_channel), [3, 3, 3, 2]);
        assert_eq!(shards[0].identifier(0), "kept:churn-9-0");
        assert_eq!(shards[0].identifier(1), "churn:churn-9-1");
    }
}
