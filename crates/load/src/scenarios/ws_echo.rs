//! `ws-echo`: active connections that send messages of one size and get them back, with up to
//! `pipeline` of them under way on each. Every byte is compared; each message carries its number.
//!
//! Without a rate the loop is closed: a message is sent when another has come back, so that a
//! slow server is asked less often and the latency is that of this load only. With a rate the
//! loop is open: message `k` of all is due `k / rate` seconds after the beginning and its latency
//! counts from then, whether or not the client or the server was ready for it.

use std::ops::Range;
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use murre_core::ConnId;
use murre_record::Scenario as Kind;
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::ws::{Piece, WsClient, WsScenario};
use crate::client::{Context, Output};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros};
use crate::engine::share::part;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{
    ClientSetup, PAYLOAD_MAX, Profile, Scenario, Setup, check_in_flight, check_rate, counted_from,
};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = args::number(PAYLOAD_MAX))]
    payload: u32,

    /// Messages in flight on one connection
    #[arg(long, value_name = "DEPTH", default_value_t = 1, value_parser = args::number(4096))]
    pipeline: u32,

    /// Messages per second of all connections together, on a fixed schedule (open loop) [default: as
    /// fast as answers come]
    #[arg(long, value_name = "N/s", value_parser = args::rate)]
    rate: Option<f64>,

    /// Idle connections held beside the active ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_conns: u32,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            path: "/echo",
            in_flight_bytes: self.payload * self.pipeline,
            counted_from: counted_from(self.rate),
            ..Profile::new(Kind::WsEcho, Fleet::<WsClient<WsEcho>>::MEMBER_BYTES)
        }
    }

    fn check(&self, _: &Common) -> Result<(), String> {
        check_rate(self.rate).and_then(|()| check_in_flight(self.payload, self.pipeline))
    }

    fn conns_all(&self, common: &Common) -> u64 {
        u64::from(common.conns) + u64::from(self.idle_conns)
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let args = self.clone();
        setup.start_ws(config, move |client| WsEcho::new(args, client))
    }
}

/// One shard's clients.
pub(crate) struct WsEcho {
    args: Args,
    /// Connections of this worker that send.
    active: u32,
    /// Messages per second of them together.
    rate: Option<f64>,
    /// The active connections.
    lanes: Vec<Lane>,
    /// Lanes that have no connection.
    free: Vec<u32>,
    messages: Messages,
    /// When the hold phase began.
    begun: Option<Instant>,
    /// When it ended: messages that were due until then are still sent.
    ended: Option<Instant>,
    /// With a rate: the number of the next message that will be due.
    next: u64,
}

struct Lane {
    id: Option<ConnId>,
    sent: u64,
    received: u64,
    /// Bytes of the message that is arriving.
    arrived: u32,
    /// When each message under way was sent, by number modulo the pipeline's depth.
    sent_at: Box<[Micros]>,
}

impl Lane {
    fn in_flight(&self) -> u32 {
        (self.sent - self.received) as u32
    }
}

/// The state of one client: its lane, if it is active.
#[derive(Default)]
pub(crate) struct State(Option<u32>);

impl WsEcho {
    pub(crate) fn new(args: Args, setup: ClientSetup) -> WsEcho {
        let active = part(setup.conns, setup.worker as usize, setup.workers as usize);
        let depth = args.pipeline as usize;
        let lane = || Lane {
            id: None,
            sent: 0,
            received: 0,
            arrived: 0,
            sent_at: vec![Micros::default(); depth].into(),
        };
        WsEcho {
            lanes: (0..active).map(|_| lane()).collect(),
            free: (0..active).rev().collect(),
            messages: Messages::new(args.payload),
            begun: None,
            ended: None,
            next: 0,
            active,
            rate: args.rate.map(|rate| rate * f64::from(active) / f64::from(setup.conns)),
            args,
        }
    }

    /// With a rate: when message `number` of the lane is due.
    fn due(&self, begun: Instant, rate: f64, lane: u32, number: u64) -> Instant {
        let k = number * u64::from(self.active) + u64::from(lane);
        begun + Duration::from_secs_f64(k as f64 / rate)
    }

    /// Sends the messages that the lane may send now.
    fn fill(&mut self, place: u32, output: &mut Output<'_>) {
        let Some(begun) = self.begun else { return };
        let now = output.out.now();
        while self.lanes[place as usize].in_flight() < self.args.pipeline {
            let number = self.lanes[place as usize].sent;
            let due = match self.rate {
                Some(rate) => self.due(begun, rate, place, number),
                None => now,
            };
            if due > now || self.ended.is_some_and(|ended| due >= ended) {
                return;
            }
            let lane = &mut self.lanes[place as usize];
            let Some(id) = lane.id else { return };
            let payload = self.messages.part(place, number, 0..self.args.payload);
            if !output.ask(id, MessageKind::Binary.opcode(), payload) {
                return;
            }
            let depth = lane.sent_at.len() as u64;
            lane.sent_at[(number % depth) as usize] = output.score.micros(due);
            lane.sent += 1;
        }
    }
}

impl WsScenario for WsEcho {
    type State = State;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        state.0 = self.free.pop();
        if let Some(place) = state.0 {
            self.lanes[place as usize].id = Some(ctx.id);
        }
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let lane = state.0.map(|place| (place, &mut self.lanes[place as usize]));
        let Some((place, lane)) = lane.filter(|(_, lane)| lane.in_flight() > 0) else {
            return ctx.fail(Fault::Garbled, "an unexpected message");
        };
        let from = lane.arrived;
        let to = from + piece.bytes.len() as u32;
        let bound = to.min(self.args.payload);
        let expected = self.messages.part(place, lane.received, from..bound);
        let short = piece.end && to != self.args.payload;
        if piece.kind != MessageKind::Binary || expected != piece.bytes || short {
            return ctx.wrong(expected, piece.bytes);
        }
        lane.arrived = to;
        if !piece.end {
            return;
        }
        let depth = lane.sent_at.len() as u64;
        let due = lane.sent_at[(lane.received % depth) as usize];
        lane.arrived = 0;
        lane.received += 1;
        // Send the next message before counting this one, so that the lane is never seen without any.
        self.fill(place, &mut ctx.output());
        let now = ctx.out.now();
        ctx.score.answered(due, now);
        if self.lanes[place as usize].in_flight() == 0 {
            ctx.clear_timer();
        }
    }

    fn expired(&mut self, _state: &mut State, ctx: &mut Context<'_>) {
        ctx.timed_out("no echo");
    }

    fn owed(&self, state: &State) -> u32 {
        state.0.map_or(0, |place| self.lanes[place as usize].in_flight())
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.begun = Some(output.out.now());
        for place in 0..self.active {
            self.fill(place, output);
        }
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        while self.wake_at().is_some_and(|due| due <= output.out.now()) {
            self.fill((self.next % u64::from(self.active)) as u32, output);
            self.next += 1;
        }
    }

    /// With a rate: when the next message is due.
    fn wake_at(&self) -> Option<Instant> {
        let (Some(begun), Some(rate), None) = (self.begun, self.rate, self.ended) else {
            return None;
        };
        let due = || begun + Duration::from_secs_f64(self.next as f64 / rate);
        (self.active > 0).then(due)
    }

    fn finish(&mut self, output: &mut Output<'_>) {
        self.ended = Some(output.out.now());
    }

    fn closed(&mut self, state: State) {
        let Some(place) = state.0 else { return };
        let lane = &mut self.lanes[place as usize];
        lane.id = None;
        // Its messages in flight are over; the next connection of the lane begins with a new one.
        lane.received = lane.sent;
        lane.arrived = 0;
        self.free.push(place);
    }
}

/// The contents of messages: the alphabet, begun at another letter in each lane and message, and
/// over its first bytes the message's number.
struct Messages {
    text: Vec<u8>,
    part: Vec<u8>,
}

impl Messages {
    fn new(payload_bytes: u32) -> Messages {
        let text = (b'a'..=b'z').cycle().take(payload_bytes as usize + 26).collect();
        Messages { text, part: Vec::with_capacity(payload_bytes as usize) }
    }

    fn part(&mut self, lane: u32, number: u64, range: Range<u32>) -> &[u8] {
        let (from, to) = (range.start as usize, range.end as usize);
        let shift = ((u64::from(lane) * 5 + number) % 26) as usize;
        self.part.clear();
        self.part.extend_from_slice(&self.text[shift + from..shift + to.max(from)]);
        let head = number.to_le_bytes();
        for (byte, place) in self.part.iter_mut().zip(from..head.len()) {
            *byte = head[place];
        }
        &self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a message compared in parts is the message that was sent whole, and that
    /// another number, or another lane, is another message.
    #[test]
    fn messages_carry_their_number_at_every_cut() {
        let mut messages = Messages::new(40);
        let whole = messages.part(3, 70_000, 0..40).to_vec();
        assert_eq!(whole.len(), 40);
        assert_eq!(whole[..8], 70_000u64.to_le_bytes());
        for cut in 0..=40 {
            let mut parts = messages.part(3, 70_000, 0..cut).to_vec();
            parts.extend_from_slice(messages.part(3, 70_000, cut..40));
            assert_eq!(parts, whole, "cut at {cut}");
        }
        assert_ne!(messages.part(3, 70_001, 0..40), whole);
        assert_ne!(messages.part(4, 70_000, 0..40), whole);
        let mut tiny = Messages::new(1);
        assert_eq!(tiny.part(0, 5, 0..1), [5]);
    }

    /// Shows that the lanes' messages together are due at even intervals, none twice.
    #[test]
    fn open_loop_messages_are_due_in_turns() {
        let args = Args { payload: 8, pipeline: 2, rate: Some(1000.0), idle_conns: 0 };
        let setup = ClientSetup { conns: 3, worker: 0, workers: 1, seed: 1 };
        let echo = WsEcho::new(args, setup);
        let begun = Instant::now();
        let mut due: Vec<_> = (0..3)
            .flat_map(|lane| (0..4).map(move |number| (lane, number)))
            .map(|(lane, number)| echo.due(begun, 1000.0, lane, number))
            .collect();
        due.sort();
        for (k, due) in due.iter().enumerate() {
            assert_eq!(due.duration_since(begun).as_millis(), k as u128);
        }
    }
}
