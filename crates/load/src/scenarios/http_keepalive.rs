//! `http-keepalive`: what http-kit's client did to 600,000 connections in 2013. Each connection
//! asks for a body of random length, reads it whole, stays idle for a random time, and asks again.
//! Every byte of every body is compared.

use std::time::Duration;

use murre_codec::http::{self, ResponseDecoder};
use murre_core::{ConnId, Outbox, Queued};

use crate::cli::args::Span;
use crate::client::{Client, Desk, Difference, fraction, hash};
use crate::engine::score::{Fault, Micros, Score};

/// The scenario's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) idle: Span,
    pub(crate) timeout: Duration,
    pub(crate) seed: u64,
}

/// One shard's clients.
pub(crate) struct HttpKeepalive {
    settings: Settings,
    /// The constant text that bodies are the beginning of.
    text: Vec<u8>,
    finishing: bool,
}

/// What is kept of one client. Neither the length asked for nor the time to stay idle: both
/// follow from the connection and the round.
pub(crate) struct State {
    decoder: ResponseDecoder,
    round: u32,
    /// When the request under way was to be sent.
    due: Micros,
    waiting: bool,
}

impl HttpKeepalive {
    pub(crate) fn new(settings: Settings) -> HttpKeepalive {
        let text = (b'a'..=b'z').cycle().take(LENGTH_MAX as usize).collect();
        HttpKeepalive { settings, text, finishing: false }
    }

    fn length(&self, id: ConnId, round: u32) -> u32 {
        1 + (hash(self.settings.seed, id.index(), round) as u32) % LENGTH_MAX
    }

    fn idle(&self, id: ConnId, round: u32) -> Duration {
        let fraction = fraction(hash(self.settings.seed, id.index(), round));
        // All have just connected: the first time is what is left of one, so that the rate is even.
        let idle = &self.settings.idle;
        Duration::from_secs_f64(if round == 0 {
            idle.residual(fraction)
        } else {
            idle.at(fraction)
        })
    }

    fn ask(&self, id: ConnId, state: &mut State, due: Micros, desk: &mut Desk<'_>) {
        let Settings { host, path, timeout, .. } = &self.settings;
        let separator = if path.contains('?') { '&' } else { '?' };
        let length = self.length(id, state.round);
        let queued = desk.out.write(id, |out| {
            use std::io::Write as _;
            write!(out, "GET {path}{separator}length={length} HTTP/1.1\r\nHost: {host}\r\n\r\n")
                .expect("memory takes every write");
        });
        // Gone: `closed` follows and counts it.
        if queued == Queued::Yes {
            state.due = due;
            state.waiting = true;
            desk.score.owe(1);
            let ticks = desk.out.ticks(*timeout);
            desk.out.set_timer(id, ticks);
        }
    }

    /// The answer is whole and right: stay idle, then ask again.
    fn answered(&self, id: ConnId, state: &mut State, desk: &mut Desk<'_>) {
        let now = desk.out.now();
        desk.score.answered(state.due, now);
        desk.ready();
        state.waiting = false;
        let ticks = desk.out.ticks(self.idle(id, state.round));
        desk.out.set_timer(id, ticks);
        state.round = state.round.wrapping_add(1);
    }
}

impl Client for HttpKeepalive {
    type State = State;

    fn connected(&mut self, id: ConnId, desk: &mut Desk<'_>) -> State {
        let due = desk.score.micros(desk.out.now());
        let mut state =
            State { decoder: ResponseDecoder::default(), round: 0, due, waiting: false };
        self.ask(id, &mut state, due, desk);
        state
    }

    fn received(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &mut [u8],
        desk: &mut Desk<'_>,
    ) -> usize {
        if !state.waiting {
            desk.fail(id, Fault::Garbled, "an answer that nobody asked for");
            return input.len();
        }
        let mut fields = http::fields();
        let response = match state.decoder.decode(input, &mut fields) {
            Ok(None) => return 0,
            Ok(Some(response)) => response,
            Err(error) => {
                desk.fail(id, Fault::Garbled, format_args!("{error:?}"));
                return input.len();
            }
        };
        let size = response.size;
        let expected = &self.text[..self.length(id, state.round) as usize];
        if response.status != 200 {
            desk.fail(id, Fault::Garbled, format_args!("status {}", response.status));
        } else if response.body != expected {
            desk.fail(id, Fault::Wrong, Difference { expected, got: response.body });
        } else {
            self.answered(id, state, desk);
        }
        size
    }

    fn expired(&mut self, id: ConnId, state: &mut State, desk: &mut Desk<'_>) {
        if state.waiting {
            let timeout = self.settings.timeout;
            desk.fail(id, Fault::Timeout, format_args!("no answer within {timeout:?}"));
        } else if !self.finishing {
            let due = desk.score.micros(desk.out.due());
            self.ask(id, state, due, desk);
        }
    }

    fn owed(&self, state: &State) -> u32 {
        u32::from(state.waiting)
    }

    fn finish(&mut self, _out: &mut Outbox, _score: &mut Score) {
        self.finishing = true;
    }
}

/// The longest body asked for; the shortest is 1.
const LENGTH_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_cover_their_range() {
        // Shows that bodies of the shortest and the longest kind are asked for, and none beyond.
        let settings = Settings {
            host: "h".to_owned(),
            path: "/".to_owned(),
            idle: Span { from: 0.0, to: 1.0 },
            timeout: Duration::from_secs(1),
            seed: 1,
        };
        let client = HttpKeepalive::new(settings);
        let lengths = |round| 1 + (hash(1, 0, round) as u32) % LENGTH_MAX;
        let (min, max) = (0..100_000)
            .map(lengths)
            .fold((u32::MAX, 0), |(min, max), length| (min.min(length), max.max(length)));
        assert_eq!((min, max), (1, 4096));
        assert_eq!(&client.text[..28], b"abcdefghijklmnopqrstuvwxyzab");
        assert_eq!(client.text.len(), 4096);
    }
}
