//! `http-keepalive`: the run of http-kit's client with 600,000 connections in 2013. Each connection
//! asks for a body of random length, reads it whole, stays idle for a random time, and asks again.
//! Every byte of every body is compared.

use std::time::Duration;

use murre_codec::http::{self, ResponseDecoder};
use murre_core::{ConnId, Queued};
use murre_record::Scenario as Kind;
use serde::Serialize;

use crate::cli::args::Span;
use crate::client::{Client, Context, Output, fraction, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{Profile, Scenario, Setup};

/// The scenario's arguments.
#[derive(clap::Args, Serialize)]
pub(crate) struct Args {
    /// Range of seconds that a connection is idle between an answer and the next request
    #[arg(long, value_name = "FROM-TO", default_value = "5-45")]
    idle: Span,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        let bytes_per_connection = Fleet::<HttpKeepalive>::MEMBER_BYTES;
        Profile { path: "/", ..Profile::new(Kind::HttpKeepalive, bytes_per_connection) }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let (idle, host, path) = (self.idle, setup.host(), setup.path.to_owned());
        setup.start_clients(config, move |c| HttpKeepalive::new(idle, host, path, c.own_seed()))
    }
}

/// One shard's clients.
pub(crate) struct HttpKeepalive {
    idle: Span,
    host: String,
    path: String,
    seed: u64,
    /// The constant text that bodies are the beginning of.
    text: Vec<u8>,
    finishing: bool,
}

/// The state of one client. Neither the length asked for nor the time to stay idle: both
/// follow from the connection and the round.
pub(crate) struct State {
    decoder: ResponseDecoder,
    round: u32,
    /// When the request under way was to be sent.
    due: Micros,
    waiting: bool,
}

impl HttpKeepalive {
    pub(crate) fn new(idle: Span, host: String, path: String, seed: u64) -> HttpKeepalive {
        let text = (b'a'..=b'z').cycle().take(LENGTH_MAX as usize).collect();
        HttpKeepalive { idle, host, path, seed, text, finishing: false }
    }

    fn length(&self, id: ConnId, round: u32) -> u32 {
        1 + (hash(self.seed, id.index(), round) as u32) % LENGTH_MAX
    }

    fn idle(&self, id: ConnId, round: u32) -> Duration {
        let fraction = fraction(hash(self.seed, id.index(), round));
        // All have just connected: the first pause is the rest of one, so that the rate is even.
        let idle = &self.idle;
        Duration::from_secs_f64(if round == 0 {
            idle.residual(fraction)
        } else {
            idle.at(fraction)
        })
    }

    fn ask(&self, state: &mut State, due: Micros, ctx: &mut Context<'_>) {
        let HttpKeepalive { host, path, .. } = self;
        let separator = if path.contains('?') { '&' } else { '?' };
        let length = self.length(ctx.id, state.round);
        let queued = ctx.out.write(ctx.id, |out| {
            use std::io::Write as _;
            write!(out, "GET {path}{separator}length={length} HTTP/1.1\r\nHost: {host}\r\n\r\n")
                .expect("memory takes every write");
        });
        // Gone: `closed` follows and counts it.
        if queued == Queued::Yes {
            state.due = due;
            state.waiting = true;
            ctx.score.owe(1);
            ctx.start_timer(ctx.timeout);
        }
    }

    /// The answer is whole and right: stay idle, then ask again.
    fn answered(&self, state: &mut State, ctx: &mut Context<'_>) {
        let now = ctx.out.now();
        ctx.score.answered(state.due, now);
        ctx.ready();
        state.waiting = false;
        ctx.start_timer(self.idle(ctx.id, state.round));
        state.round = state.round.wrapping_add(1);
    }
}

impl Client for HttpKeepalive {
    type State = State;

    fn connected(&mut self, ctx: &mut Context<'_>) -> State {
        let due = ctx.score.micros(ctx.out.now());
        let mut state =
            State { decoder: ResponseDecoder::default(), round: 0, due, waiting: false };
        self.ask(&mut state, due, ctx);
        state
    }

    fn received(&mut self, state: &mut State, input: &mut [u8], ctx: &mut Context<'_>) -> usize {
        if !state.waiting {
            ctx.fail(Fault::Garbled, "an unexpected answer");
            return input.len();
        }
        let mut fields = http::fields();
        let response = match state.decoder.decode(input, &mut fields) {
            Ok(None) => return 0,
            Ok(Some(response)) => response,
            Err(error) => {
                ctx.fail(Fault::Garbled, format_args!("{error:?}"));
                return input.len();
            }
        };
        let size = response.size;
        let expected = &self.text[..self.length(ctx.id, state.round) as usize];
        if response.status != 200 {
            ctx.fail(Fault::Garbled, format_args!("status {}", response.status));
        } else if response.body != expected {
            ctx.wrong(expected, response.body);
        } else {
            self.answered(state, ctx);
        }
        size
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        if state.waiting {
            ctx.timed_out("no answer");
        } else if !self.finishing {
            let due = ctx.score.micros(ctx.out.due());
            self.ask(state, due, ctx);
        }
    }

    fn owed(&self, state: &State) -> u32 {
        u32::from(state.waiting)
    }

    fn finish(&mut self, _: &mut Output<'_>) {
        self.finishing = true;
    }
}

/// The longest body asked for; the shortest is 1.
const LENGTH_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that bodies of the shortest and the longest kind are asked for, and none beyond.
    #[test]
    fn lengths_cover_their_range() {
        let idle = Span { from: 0.0, to: 1.0 };
        let client = HttpKeepalive::new(idle, "h".to_owned(), "/".to_owned(), 1);
        let lengths = |round| 1 + (hash(1, 0, round) as u32) % LENGTH_MAX;
        let (min, max) = (0..100_000)
            .map(lengths)
            .fold((u32::MAX, 0), |(min, max), length| (min.min(length), max.max(length)));
        assert_eq!((min, max), (1, 4096));
        assert_eq!(&client.text[..28], b"abcdefghijklmnopqrstuvwxyzab");
        assert_eq!(client.text.len(), 4096);
    }
}
