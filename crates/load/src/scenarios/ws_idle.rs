//! `ws-idle`: connect, hold, answer the server's pings. A sample of the connections pings the
//! server at intervals and once more at the end, and the pong must bring the payload back.

use std::time::Duration;

use murre_core::ConnId;
use murre_record::Scenario as Kind;
use serde::Serialize;

use crate::cli::args;
use crate::client::ws::{PING, Piece, WsClient, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{Profile, Scenario, Setup};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Time from one ping of a connection of the sample to the next
    #[arg(long, default_value = "25s", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    /// Part of the connections that ping the server
    #[arg(long, default_value = "0.01", value_parser = args::fraction)]
    sample: f64,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        let bytes_per_connection = Fleet::<WsClient<WsIdle>>::MEMBER_BYTES;
        Profile { path: "/echo", ..Profile::new(Kind::WsIdle, bytes_per_connection) }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let Args { every, sample } = *self;
        setup.start_ws(config, move |c| WsIdle::new(sample, every, c.own_seed()))
    }
}

/// One shard's clients.
pub(crate) struct WsIdle {
    sample: f64,
    every: Duration,
    seed: u64,
    /// The sample. Kept here, for most connections are not in it.
    pingers: Vec<Pinger>,
    /// Whether these are beside the connections that are measured.
    beside: bool,
    finishing: bool,
}

/// One connection of the sample. Stays in its place when its connection is over.
struct Pinger {
    id: ConnId,
    /// Pings answered. The payload of the next follows from it.
    round: u32,
    /// When the ping under way was to be sent.
    due: Micros,
    waiting: bool,
}

/// The state of one client: its place in the sample, if it is in the sample.
#[derive(Default)]
pub(crate) struct State(Option<u32>);

impl WsIdle {
    pub(crate) fn new(sample: f64, every: Duration, seed: u64) -> WsIdle {
        WsIdle { sample, every, seed, pingers: Vec::new(), beside: false, finishing: false }
    }

    /// Connections that all ping, beside others that do something else.
    pub(crate) fn beside(every: Duration, seed: u64) -> WsIdle {
        WsIdle { beside: true, ..WsIdle::new(1.0, every, seed) }
    }

    fn pinger(&mut self, state: &State) -> Option<&mut Pinger> {
        state.0.map(|place| &mut self.pingers[place as usize])
    }
}

impl Pinger {
    fn ping(&mut self, seed: u64, due: Micros, output: &mut Output<'_>) {
        let payload = payload(seed, self.id, self.round);
        if output.ask(self.id, PING, &payload) {
            self.due = due;
            self.waiting = true;
        }
    }
}

impl WsScenario for WsIdle {
    type State = State;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        let hash = hash(self.seed, ctx.id.index(), u32::MAX);
        if fraction(hash) >= self.sample {
            return;
        }
        state.0 = Some(self.pingers.len() as u32);
        self.pingers.push(Pinger { id: ctx.id, round: 0, due: Micros::default(), waiting: false });
        // The first pings are spread over the interval.
        let phase = self.every.mul_f64(fraction(hash << 32));
        ctx.start_timer(phase);
    }

    fn message(&mut self, _: &mut State, _: Piece<'_>, ctx: &mut Context<'_>) {
        ctx.fail(Fault::Garbled, "an unexpected message");
    }

    fn pong(&mut self, state: &mut State, payload: &[u8], ctx: &mut Context<'_>) {
        let WsIdle { seed, every, beside, finishing, .. } = *self;
        let Some(pinger) = self.pinger(state).filter(|pinger| pinger.waiting) else { return };
        let expected = self::payload(seed, ctx.id, pinger.round);
        if payload != expected {
            return ctx.wrong(&expected, payload);
        }
        let now = ctx.out.now();
        if beside {
            ctx.score.answered_beside(pinger.due, now);
        } else {
            ctx.score.answered(pinger.due, now);
        }
        pinger.waiting = false;
        pinger.round = pinger.round.wrapping_add(1);
        if finishing {
            return ctx.clear_timer();
        }
        let passed = ctx.score.micros(now).since(pinger.due);
        ctx.start_timer(every.saturating_sub(passed));
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        let WsIdle { seed, finishing, .. } = *self;
        let Some(pinger) = self.pinger(state) else { return };
        if pinger.waiting {
            ctx.timed_out("no pong");
        } else if !finishing {
            let due = ctx.score.micros(ctx.out.due());
            pinger.ping(seed, due, &mut ctx.output());
        }
    }

    fn owed(&self, state: &State) -> u32 {
        state.0.map_or(0, |place| u32::from(self.pingers[place as usize].waiting))
    }

    /// All of the sample ping once more, so that each is known to answer after the whole time.
    fn finish(&mut self, output: &mut Output<'_>) {
        self.finishing = true;
        let now = output.score.micros(output.out.now());
        for pinger in &mut self.pingers {
            // One that is under way is as good as another.
            if !pinger.waiting {
                pinger.ping(self.seed, now, output);
            }
        }
    }
}

/// The payload of a ping, which the pong must bring back: 64 bits in hexadecimal digits.
pub(crate) fn payload(seed: u64, id: ConnId, round: u32) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = hash(seed, id.index(), round);
    std::array::from_fn(|place| DIGITS[(hash >> (place * 4)) as usize % 16])
}
