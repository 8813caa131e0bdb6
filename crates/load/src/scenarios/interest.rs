//! `interest`: connections with many channels each, no two with the same. At a rate one of them ends one of
//! its subscriptions, and begins it again when that is answered, so that the server, and what connects it
//! with other nodes, learns of each change. Connections beside them ping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use murre_core::ConnId;
use murre_record::{CountedFrom, InterestFacts, Scenario as Kind};
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::channel::{MessageBuffer, ServerMessage, subscribe, unsubscribe};
use crate::client::ws::{Piece, WsClient, WsScenario};
use crate::client::{Context, Output, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::Micros;
use crate::engine::share::part;
use crate::engine::times::{Times, latency};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{Apart, ClientSetup, Profile, Scenario, Setup, check_rate};
use crate::scenarios::ws_idle::WsIdle;

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Channels of each connection
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = args::number(1 << 20))]
    channels: u32,

    /// Subscriptions per second that end, and as many that begin, on a fixed schedule
    #[arg(long, value_name = "N/s", default_value = "1000", value_parser = args::rate)]
    rate: f64,

    /// Time from one ping of a connection beside to the next
    #[arg(long, default_value = "100ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    /// Connections beside them, on a thread of their own, that ping the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    beside: u32,

    /// Subscriptions that have ended and begun again, of all workers
    #[arg(skip)]
    #[serde(skip)]
    changed: Arc<AtomicU64>,
}

impl Args {
    /// The workers of connections with channels.
    fn workers(&self, workers: usize) -> usize {
        workers - usize::from(self.beside > 0)
    }
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        let bytes = Fleet::<WsClient<Interest>>::MEMBER_BYTES + size_of::<Subscriptions>();
        Profile { apart: Apart::with_beside(self.beside), ..Profile::new(Kind::Interest, bytes) }
    }

    fn check(&self, _: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))
    }

    fn conns_all(&self, common: &Common) -> u64 {
        u64::from(common.conns) + u64::from(self.beside)
    }

    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        let changing = self.workers(workers);
        if worker == changing { self.beside } else { part(common.conns, worker, changing) }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let (args, workers) = (self.clone(), self.workers(setup.workers));
        if setup.client(&config).worker as usize == workers {
            let every = self.every;
            return setup.start_ws(config, move |setup| WsIdle::beside(every, setup.own_seed()));
        }
        setup.start_ws(config, move |setup| Interest::new(args, setup, workers))
    }

    fn interest_facts(&self, common: &Common, times: &Times) -> Option<InterestFacts> {
        Some(InterestFacts {
            channels: u64::from(common.conns) * u64::from(self.channels),
            changed: self.changed.load(Ordering::Relaxed),
            beside_us: (self.beside > 0).then(|| latency(&times.beside, CountedFrom::Due)),
        })
    }
}

/// One shard's connections with channels.
pub(crate) struct Interest {
    args: Args,
    setup: ClientSetup,
    /// Changes per second of this worker.
    rate: f64,
    conns: Vec<Subscriptions>,
    begun: Option<Instant>,
    /// Changes that were begun.
    changes: u64,
    finishing: bool,
}

/// The subscriptions of one connection.
struct Subscriptions {
    id: ConnId,
    /// The channel that changes, and when that was due.
    changing: Option<(u32, Micros)>,
}

/// The state of one connection.
#[derive(Default)]
pub(crate) struct State {
    buffer: MessageBuffer,
    /// Answers to the first subscriptions so far.
    subscribed: u32,
    /// Its place among those of the worker, once all subscriptions are there.
    place: Option<u32>,
}

impl Interest {
    fn new(args: Args, setup: ClientSetup, workers: usize) -> Interest {
        let rate = args.rate / workers as f64;
        let conns = Vec::new();
        Interest { args, setup, rate, conns, begun: None, changes: 0, finishing: false }
    }

    /// A channel of a connection. No other connection has it.
    fn identifier(&self, conn: ConnId, channel: u32) -> String {
        format!("interest-{}-{}-{channel}", self.setup.worker, conn.index())
    }

    /// Subscribes to the next of the first subscriptions, as many as a batch may have.
    fn subscribe(&self, state: &State, ctx: &mut Context<'_>) {
        let batch = state.subscribed..self.args.channels.min(state.subscribed + BATCH_MAX);
        let commands: Vec<_> =
            batch.map(|channel| subscribe(&self.identifier(ctx.id, channel), None)).collect();
        ctx.command(&format!("[{}]", commands.join(",")));
    }

    /// When the next change is due.
    fn due(&self) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.finishing && !self.conns.is_empty())?;
        Some(begun + Duration::from_secs_f64(self.changes as f64 / self.rate))
    }

    /// Begins the changes that are due, each on a connection where none is under way.
    fn change(&mut self, output: &mut Output<'_>) {
        while let Some(due) = self.due().filter(|&due| due <= output.out.now()) {
            let random = hash(self.setup.own_seed(), self.changes as u32, 0);
            let first = random as usize % self.conns.len();
            let places = (first..self.conns.len()).chain(0..first).take(TRIES_MAX);
            let idle = places.into_iter().find(|&place| self.conns[place].changing.is_none());
            // All of these wait for an answer: the next one makes room.
            let Some(place) = idle else { return };
            let channel = (random >> 32) as u32 % self.args.channels;
            let id = self.conns[place].id;
            let command = unsubscribe(&self.identifier(id, channel));
            self.changes += 1;
            if output.ask(id, MessageKind::Text.opcode(), command.as_bytes()) {
                self.conns[place].changing = Some((channel, output.score.micros(due)));
            }
        }
    }

    /// Handles the answer to a change. The first half of one is followed by the second.
    fn changed(
        &mut self,
        place: u32,
        message: &ServerMessage<'_, IgnoredAny>,
        ctx: &mut Context<'_>,
    ) {
        let Some((channel, due)) = self.conns[place as usize].changing else {
            return message.unexpected(ctx);
        };
        if message.identifier != self.identifier(ctx.id, channel) {
            return message.unexpected(ctx);
        }
        let now = Instant::now();
        match &message.kind[..] {
            "unsubscribed" => {
                let command = subscribe(&message.identifier, None);
                // Before the answer is counted, so that the owed answers are never seen at 0 in between.
                ctx.ask(MessageKind::Text.opcode(), command.as_bytes());
                self.conns[place as usize].changing = Some((channel, ctx.score.micros(now)));
            }
            "subscribed" => {
                self.conns[place as usize].changing = None;
                self.args.changed.fetch_add(1, Ordering::Relaxed);
                ctx.clear_timer();
            }
            _ => return message.unexpected(ctx),
        }
        ctx.score.answered(due, now);
    }
}

impl WsScenario for Interest {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        self.subscribe(state, ctx);
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        let Some(message) = ServerMessage::<'_, IgnoredAny>::parse(&text, ctx) else { return };
        if let Some(place) = state.place {
            return self.changed(place, &message, ctx);
        }
        if message.kind != "subscribed" {
            return message.unexpected(ctx);
        }
        state.subscribed += 1;
        if state.subscribed == self.args.channels {
            ctx.clear_timer();
            state.place = Some(self.conns.len() as u32);
            self.conns.push(Subscriptions { id: ctx.id, changing: None });
            ctx.ready();
        } else if state.subscribed.is_multiple_of(BATCH_MAX) {
            self.subscribe(state, ctx);
        }
    }

    fn expired(&mut self, _: &mut State, ctx: &mut Context<'_>) {
        ctx.timed_out("no answer");
    }

    fn owed(&self, state: &State) -> u32 {
        state.place.map_or(0, |place| self.conns[place as usize].changing.is_some().into())
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.begun = Some(output.out.now());
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        self.change(output);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.due().map(|due| due.max(Instant::now() + PAUSE_MIN))
    }

    fn finish(&mut self, _: &mut Output<'_>) {
        self.finishing = true;
    }
}

/// Commands that a batch may have (docs/protocol.md).
const BATCH_MAX: u32 = 100;

/// How many connections are looked at for one without a change under way.
const TRIES_MAX: usize = 64;

/// Changes that become due meanwhile begin together.
const PAUSE_MIN: Duration = Duration::from_millis(1);
