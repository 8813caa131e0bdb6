//! `ws-upper`: what Gretty's client did to 512,000 WebSockets in 2010. Each sends a text of about
//! 30 characters every 25 seconds or so; the answer must be the same text in upper case.

use std::time::Duration;

use fastrand::Rng;
use murre_codec::Kind;
use murre_core::{ConnId, Outbox, Queued};

use crate::client::ws::{Line, Piece, Talk};
use crate::client::{Difference, fraction, hash};
use crate::engine::score::{Fault, Micros, Score};

/// One shard's clients.
pub(crate) struct WsUpper {
    every: Duration,
    timeout: Duration,
    seed: u64,
    finishing: bool,
}

/// What is kept of one client. Its text follows from the connection and the round.
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
    pub(crate) fn new(every: Duration, timeout: Duration, seed: u64) -> WsUpper {
        WsUpper { every, timeout, seed, finishing: false }
    }

    /// The next text is due `every` after the last one was, however late the answer came.
    fn schedule(&self, id: ConnId, state: &State, line: &mut Line<'_, '_>) {
        let out = &mut *line.desk.out;
        let passed = line.desk.score.micros(out.now()).since(state.due);
        let ticks = out.ticks(self.every.saturating_sub(passed));
        out.set_timer(id, ticks);
    }
}

impl Talk for WsUpper {
    type State = State;

    fn open(&mut self, id: ConnId, _state: &mut State, line: &mut Line<'_, '_>) {
        // The first texts are spread over the interval.
        let phase = self.every.mul_f64(fraction(hash(self.seed, id.index(), u32::MAX)));
        let ticks = line.desk.out.ticks(phase);
        line.desk.out.set_timer(id, ticks);
    }

    fn message(
        &mut self,
        id: ConnId,
        state: &mut State,
        piece: Piece<'_>,
        line: &mut Line<'_, '_>,
    ) {
        if !state.waiting {
            return line.desk.fail(id, Fault::Garbled, "an answer that nobody asked for");
        }
        let mut expected = text(self.seed, id.index(), state.round);
        expected.make_ascii_uppercase();
        let from = usize::from(state.arrived);
        let to = from + piece.bytes.len();
        let right = piece.kind == Kind::Text && expected.get(from..to) == Some(&*piece.bytes);
        if !right || (piece.end && to != expected.len()) {
            let difference = Difference { expected: &expected[from..], got: piece.bytes };
            return line.desk.fail(id, Fault::Wrong, difference);
        }
        state.arrived = to as u8;
        if piece.end {
            let now = line.desk.out.now();
            line.desk.score.answered(state.due, now);
            state.arrived = 0;
            state.waiting = false;
            state.round = state.round.wrapping_add(1);
            self.schedule(id, state, line);
        }
    }

    fn expired(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        if state.waiting {
            let timeout = self.timeout;
            return line.desk.fail(
                id,
                Fault::Timeout,
                format_args!("no answer within {timeout:?}"),
            );
        }
        if self.finishing {
            return;
        }
        let text = text(self.seed, id.index(), state.round);
        // Gone: `closed` follows and counts it.
        if line.say(id, Kind::Text.opcode(), &text) == Queued::Yes {
            state.due = line.desk.score.micros(line.desk.out.due());
            state.waiting = true;
            line.desk.score.owe(1);
            let ticks = line.desk.out.ticks(self.timeout);
            line.desk.out.set_timer(id, ticks);
        }
    }

    fn owed(&self, state: &State) -> u32 {
        u32::from(state.waiting)
    }

    fn finish(&mut self, _out: &mut Outbox, _score: &mut Score, _masks: &mut Rng) {
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

    #[test]
    fn texts_are_about_thirty_characters_and_differ() {
        // Shows the length of texts, that they are ASCII, and that clients and rounds differ.
        let lengths: Vec<usize> = (0..1000).map(|round| text(1, 2, round).len()).collect();
        assert_eq!(lengths.iter().min(), Some(&25));
        assert_eq!(lengths.iter().max(), Some(&35));
        assert!(text(1, 2, 3).is_ascii());
        assert_ne!(text(1, 2, 3), text(1, 2, 4));
        assert_ne!(text(1, 2, 3), text(1, 3, 3));
        assert_ne!(text(1, 2, 3), text(1, 2, 3).to_ascii_uppercase());
    }
}
