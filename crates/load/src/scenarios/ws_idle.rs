//! `ws-idle`: connect, hold, answer the server's pings. A sample of the connections pings the
//! server at intervals and once more at the end, and the pong must bring the payload back.

use std::time::Duration;

use fastrand::Rng;
use murre_core::{ConnId, Outbox, Queued};

use crate::client::ws::{Line, PING, Piece, Talk, say};
use crate::client::{Difference, fraction, hash};
use crate::engine::score::{Fault, Micros, Score};

/// One shard's clients.
pub(crate) struct WsIdle {
    sample: f64,
    every: Duration,
    timeout: Duration,
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

/// What is kept of one client: its place in the sample, if it is of the sample.
#[derive(Default)]
pub(crate) struct State(Option<u32>);

impl WsIdle {
    pub(crate) fn new(sample: f64, every: Duration, timeout: Duration, seed: u64) -> WsIdle {
        WsIdle {
            sample,
            every,
            timeout,
            seed,
            pingers: Vec::new(),
            beside: false,
            finishing: false,
        }
    }

    /// Connections that all ping, beside others that do something else.
    pub(crate) fn beside(every: Duration, timeout: Duration, seed: u64) -> WsIdle {
        WsIdle { beside: true, ..WsIdle::new(1.0, every, timeout, seed) }
    }

    fn pinger(&mut self, state: &State) -> Option<&mut Pinger> {
        state.0.map(|place| &mut self.pingers[place as usize])
    }
}

impl Pinger {
    fn ping(
        &mut self,
        seed: u64,
        timeout: Duration,
        due: Micros,
        out: &mut Outbox,
        score: &mut Score,
        masks: &mut Rng,
    ) {
        let payload = payload(seed, self.id, self.round);
        // Gone: `closed` follows, or has been, and counts it.
        if say(out, self.id, PING, &payload, masks) == Queued::Yes {
            self.due = due;
            self.waiting = true;
            score.owe(1);
            out.set_timer(self.id, out.ticks(timeout));
        }
    }
}

impl Talk for WsIdle {
    type State = State;

    fn open(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        let hash = hash(self.seed, id.index(), u32::MAX);
        if fraction(hash) >= self.sample {
            return;
        }
        state.0 = Some(self.pingers.len() as u32);
        self.pingers.push(Pinger { id, round: 0, due: Micros::default(), waiting: false });
        // The first pings are spread over the interval.
        let phase = self.every.mul_f64(fraction(hash << 32));
        let ticks = line.desk.out.ticks(phase);
        line.desk.out.set_timer(id, ticks);
    }

    fn message(&mut self, id: ConnId, _: &mut State, _: Piece<'_>, line: &mut Line<'_, '_>) {
        line.desk.fail(id, Fault::Garbled, "a message that nobody asked for");
    }

    fn pong(&mut self, id: ConnId, state: &mut State, payload: &[u8], line: &mut Line<'_, '_>) {
        let (seed, every, finishing) = (self.seed, self.every, self.finishing);
        let beside = self.beside;
        let Some(pinger) = self.pinger(state).filter(|pinger| pinger.waiting) else { return };
        let expected = self::payload(seed, id, pinger.round);
        if payload != expected {
            let difference = Difference { expected: &expected, got: payload };
            return line.desk.fail(id, Fault::Wrong, difference);
        }
        let now = line.desk.out.now();
        if beside {
            line.desk.score.answered_beside(pinger.due, now);
        } else {
            line.desk.score.answered(pinger.due, now);
        }
        pinger.waiting = false;
        pinger.round = pinger.round.wrapping_add(1);
        if finishing {
            return line.desk.out.clear_timer(id);
        }
        let passed = line.desk.score.micros(now).since(pinger.due);
        let ticks = line.desk.out.ticks(every.saturating_sub(passed));
        line.desk.out.set_timer(id, ticks);
    }

    fn expired(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        let (seed, timeout) = (self.seed, self.timeout);
        let finishing = self.finishing;
        let Some(pinger) = self.pinger(state) else { return };
        if pinger.waiting {
            line.desk.fail(id, Fault::Timeout, format_args!("no pong within {timeout:?}"));
        } else if !finishing {
            let due = line.desk.score.micros(line.desk.out.due());
            pinger.ping(seed, timeout, due, line.desk.out, line.desk.score, line.masks);
        }
    }

    fn owed(&self, state: &State) -> u32 {
        state.0.map_or(0, |place| u32::from(self.pingers[place as usize].waiting))
    }

    /// All of the sample ping once more, so that each is known to answer after the whole time.
    fn finish(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng) {
        self.finishing = true;
        let now = score.micros(out.now());
        for pinger in &mut self.pingers {
            // One that is under way is as good as another.
            if !pinger.waiting {
                pinger.ping(self.seed, self.timeout, now, out, score, masks);
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
