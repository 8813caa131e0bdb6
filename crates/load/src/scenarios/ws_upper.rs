//! `ws-upper`: the run of Gretty's client with 512,000 WebSockets in 2010. Each sends a text of about
//! 30 characters every 25 seconds or so; the answer must be the same text in upper case.

use std::time::Duration;

use murre_codec::Kind as MessageKind;
use murre_record::Scenario as Kind;
use serde::Serialize;

use crate::cli::args;
use crate::client::ws::{Piece, WsClient, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{Profile, Scenario, Setup};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Time from one text of a connection to the next
    #[arg(long, default_value = "25s", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        let bytes_per_connection = Fleet::<WsClient<WsUpper>>::MEMBER_BYTES;
        Profile { path: "/upper", ..Profile::new(Kind::WsUpper, bytes_per_connection) }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let every = self.every;
        setup.start_ws(config, move |c| WsUpper::new(every, c.own_seed()))
    }
}

/// One shard's clients.
pub(crate) struct WsUpper {
    every: Duration,
    seed: u64,
    finishing: bool,
}

/// The state of one client. Its text follows from the connection and the round.
#[derive(Default)]
pub(crate) struct State {
    round: u32,
    /// When the text under way was to be sent.
    due: Micros,
    /// Bytes of the answer that have arrived.
    arrived: u8,
    waiting: bool,
}

impl WsUpper {
    pub(crate) fn new(every: Duration, seed: u64) -> WsUpper {
        WsUpper { every, seed, finishing: false }
    }

    /// The next text is due `every` after the last one was, however late the answer came.
    fn schedule(&self, state: &State, ctx: &mut Context<'_>) {
        let passed = ctx.score.micros(ctx.out.now()).since(state.due);
        ctx.start_timer(self.every.saturating_sub(passed));
    }
}

impl WsScenario for WsUpper {
    type State = State;

    fn open(&mut self, _state: &mut State, ctx: &mut Context<'_>) {
        // The first texts are spread over the interval.
        let phase = self.every.mul_f64(fraction(hash(self.seed, ctx.id.index(), u32::MAX)));
        ctx.start_timer(phase);
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        if !state.waiting {
            return ctx.fail(Fault::Garbled, "an unexpected answer");
        }
        let mut expected = text(self.seed, ctx.id.index(), state.round);
        expected.make_ascii_uppercase();
        let from = usize::from(state.arrived);
        let to = from + piece.bytes.len();
        let right =
            piece.kind == MessageKind::Text && expected.get(from..to) == Some(&*piece.bytes);
        if !right || (piece.end && to != expected.len()) {
            return ctx.wrong(&expected[from..], piece.bytes);
        }
        state.arrived = to as u8;
        if piece.end {
            let now = ctx.out.now();
            ctx.score.answered(state.due, now);
            state.arrived = 0;
            state.waiting = false;
            state.round = state.round.wrapping_add(1);
            self.schedule(state, ctx);
        }
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        if state.waiting {
            return ctx.timed_out("no answer");
        }
        if self.finishing {
            return;
        }
        let text = text(self.seed, ctx.id.index(), state.round);
        if ctx.ask(MessageKind::Text.opcode(), &text) {
            state.due = ctx.score.micros(ctx.out.due());
            state.waiting = true;
        }
    }

    fn owed(&self, state: &State) -> u32 {
        u32::from(state.waiting)
    }

    fn finish(&mut self, _: &mut Output<'_>) {
        self.finishing = true;
    }
}

/// About 30 characters, most of them letters that have an upper case.
fn text(seed: u64, client: u32, round: u32) -> Vec<u8> {
    const CHARACTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz ,.0-9";
    let hash = hash(seed, client, round);
    let length = 25 + hash % 11;
    // 12 five-bit pieces of the hash, again and again, each time shifted by one.
    let at = |i: u64| (hash.rotate_left((i * 5) as u32) ^ i) as usize % CHARACTERS.len();
    (0..length).map(|i| CHARACTERS[at(i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the length of texts, that they are ASCII, and that clients and rounds differ.
    #[test]
    fn texts_are_about_thirty_characters_and_differ() {
        let lengths: Vec<usize> = (0..1000).map(|round| text(1, 2, round).len()).collect();
        assert_eq!(lengths.iter().min(), Some(&25));
        assert_eq!(lengths.iter().max(), Some(&35));
        assert!(text(1, 2, 3).is_ascii());
        assert_ne!(text(1, 2, 3), text(1, 2, 4));
        assert_ne!(text(1, 2, 3), text(1, 3, 3));
        assert_ne!(text(1, 2, 3), text(1, 2, 3).to_ascii_uppercase());
    }
}
