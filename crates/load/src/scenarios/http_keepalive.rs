//! `http-keepalive`: the run of http-kit's client with 600,000 connections in 2013. Each connection
//! asks for a body of random length, reads it whole, stays idle for a random time, and asks again.
//! Every byte of every body is compared.

use std::time::Duration;

use murre_codec::http::{self, ResponseDecoder};
use murre_core::{ConnId, Outbox, Queued};
use murre_record::Scenario as Kind;
use serde::Serialize;

use crate::cli::args::Span;
use crate::client::{Client, ClientContext, Difference, fraction, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros, Score};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{ClientSetup, Scenario, Setup};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Range of seconds that a connection is idle between an answer and the next request
    #[arg(long, value_name = "FROM-TO", default_value = "5-45")]
    pub(crate) idle: Span,
}

impl Scenario for Args {
    fn kind(&self) -> Kind {
        Kind::HttpKeepalive
    }

    fn path(&self) -> &'static str {
        "/"
    }

    fn bytes_per_connection(&self) -> usize {
        Fleet::<HttpKeepalive>::MEMBER_BYTES
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let (args, client) = (self.clone(), setup.client(&config));
        let (host, path) = (setup.host(), setup.path.to_owned());
        setup.start_clients(config, move || HttpKeepalive::new(args, host, path, client))
    }
}

/// One shard's clients.
pub(crate) struct HttpKeepalive {
    args: Args,
    host: String,
    path: String,
    setup: ClientSetup,
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
    pub(crate) fn new(args: Args, host: String, path: String, setup: ClientSetup) -> HttpKeepalive {
        let text = (b'a'..=b'z').cycle().take(LENGTH_MAX as usize).collect();
        HttpKeepalive { args, host, path, setup, text, finishing: false }
    }

    fn length(&self, id: ConnId, round: u32) -> u32 {
        1 + (hash(self.setup.own_seed(), id.index(), round) as u32) % LENGTH_MAX
    }

    fn idle(&self, id: ConnId, round: u32) -> Duration {
        let fraction = fraction(hash(self.setup.own_seed(), id.index(), round));
        // All have just connected: the first pause is the rest of one, so that the rate is even.
        let idle = &self.args.idle;
        Duration::from_secs_f64(if round == 0 {
            idle.residual(fraction)
        } else {
            idle.at(fraction)
        })
    }

    fn ask(&self, state: &mut State, due: Micros, ctx: &mut ClientContext<'_>) {
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
            ctx.start_timer(self.setup.timeout);
        }
    }

    /// The answer is whole and right: stay idle, then ask again.
    fn answered(&self, state: &mut State, ctx: &mut ClientContext<'_>) {
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

    fn connected(&mut self, ctx: &mut ClientContext<'_>) -> State {
        let due = ctx.score.micros(ctx.out.now());
        let mut state =
            State { decoder: ResponseDecoder::default(), round: 0, due, waiting: false };
        self.ask(&mut state, due, ctx);
        state
    }

    fn received(
        &mut self,
        state: &mut State,
        input: &mut [u8],
        ctx: &mut ClientContext<'_>,
    ) -> usize {
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
            ctx.fail(Fault::Wrong, Difference { expected, got: response.body });
        } else {
            self.answered(state, ctx);
        }
        size
    }

    fn expired(&mut self, state: &mut State, ctx: &mut ClientContext<'_>) {
        if state.waiting {
            let timeout = self.setup.timeout;
            ctx.fail(Fault::Timeout, format_args!("no answer within {timeout:?}"));
        } else if !self.finishing {
            let due = ctx.score.micros(ctx.out.due());
            self.ask(state, due, ctx);
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

    /// Shows that bodies of the shortest and the longest kind are asked for, and none beyond.
    #[test]
    fn lengths_cover_their_range() {
        let args = Args { idle: Span { from: 0.0, to: 1.0 } };
        let timeout = Duration::from_secs(1);
        let setup = ClientSetup { conns: 1, worker: 0, workers: 1, timeout, seed: 1 };
        let client = HttpKeepalive::new(args, "h".to_owned(), "/".to_owned(), setup);
        let lengths = |round| 1 + (hash(1, 0, round) as u32) % LENGTH_MAX;
        let (min, max) = (0..100_000)
            .map(lengths)
            .fold((u32::MAX, 0), |(min, max), length| (min.min(length), max.max(length)));
        assert_eq!((min, max), (1, 4096));
        assert_eq!(&client.text[..28], b"abcdefghijklmnopqrstuvwxyzab");
        assert_eq!(client.text.len(), 4096);
    }
}
