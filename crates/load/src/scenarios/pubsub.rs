//! `pubsub`: the run of a comparison of Node.js, Vert.x, Netty and Atmosphere in 2012. Connection `i`
//! subscribes to the channel `i` modulo 10,000, plus 1 (the comparison calls it an identifier); the server
//! publishes continuously, each time to a channel with subscribers; every message must be of the channel
//! that its connection has subscribed to. The server says in each when it was sent: it must be on this
//! machine, or its clock must agree.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use murre_codec::Kind as MessageKind;
use murre_core::ConnId;
use murre_record::{CountedFrom, Scenario as Kind};
use serde::{Deserialize, Serialize};

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::channel::{self, MessageBuffer, ServerMessage};
use crate::client::ws::{Piece, WsClient, WsScenario};
use crate::client::{Context, Output};
use crate::engine::fleet::Fleet;
use crate::engine::score::Fault;
use crate::engine::share::part;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{ClientSetup, PAYLOAD_MAX, Profile, Scenario, Setup, check_rate};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Bytes of a message, about
    #[arg(long, value_name = "BYTES", default_value_t = 1400, value_parser = args::number(PAYLOAD_MAX))]
    payload: u32,

    /// Messages per second that the server publishes, on a fixed schedule [default: as fast as it can]
    #[arg(long, value_name = "N/s", value_parser = args::rate)]
    rate: Option<f64>,

    /// Writes the columns of every 15 s to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            in_flight_bytes: self.payload,
            counted_from: CountedFrom::SentByServer,
            must_receive: true,
            columns: Some(self.csv.clone()),
            ..Profile::new(Kind::Pubsub, Fleet::<WsClient<PubSub>>::MEMBER_BYTES)
        }
    }

    fn check(&self, _: &Common) -> Result<(), String> {
        check_rate(self.rate)
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let args = self.clone();
        setup.start_ws(config, move |client| PubSub::new(args, client))
    }
}

/// One shard's clients.
pub(crate) struct PubSub {
    args: Args,
    setup: ClientSetup,
    /// Places that have no connection; each has its identifier.
    free: Vec<u32>,
    /// The connection that tells the server to publish; the first shard has it.
    feeder: Option<ConnId>,
    /// Answers that the server owes it.
    feeds_owed: u32,
}

/// The state of one client.
#[derive(Default)]
pub(crate) struct State {
    place: u32,
    buffer: MessageBuffer,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Has no place yet.
    #[default]
    New,
    Subscribing,
    Subscribed,
}

/// The article's message: the data of each publication.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(rename = "request")]
    _request: u64,
    /// Milliseconds since 1970.
    timestamp: u64,
    #[serde(borrow)]
    identifier: Cow<'a, str>,
    #[serde(borrow)]
    elements: Cow<'a, str>,
}

impl PubSub {
    pub(crate) fn new(args: Args, setup: ClientSetup) -> PubSub {
        let conns = part(setup.conns, setup.worker as usize, setup.workers as usize);
        PubSub { free: (0..conns).rev().collect(), feeder: None, feeds_owed: 0, args, setup }
    }

    fn identifier(&self, place: u32) -> u32 {
        (place * self.setup.workers + self.setup.worker) % IDENTIFIERS + 1
    }

    fn is_feeder(&self, state: &State) -> bool {
        (self.setup.worker, state.place) == (0, 0) && state.stage != Stage::New
    }

    fn handle(&mut self, state: &mut State, text: &[u8], ctx: &mut Context<'_>) {
        let Some(message) = ServerMessage::<'_, Message<'_>>::parse(text, ctx) else { return };
        match (&message.kind[..], state.stage) {
            ("publication", _) => match message.data {
                Some(data) if data.identifier == message.identifier => {
                    self.received(state, &data, text.len(), ctx);
                }
                _ => ctx.fail(Fault::Wrong, "a publication of another identifier"),
            },
            ("subscribed", Stage::Subscribing)
                if is_number(&message.identifier, self.identifier(state.place)) =>
            {
                state.stage = Stage::Subscribed;
                ctx.clear_timer();
                ctx.ready();
            }
            ("feed", Stage::Subscribed) if self.is_feeder(state) && self.feeds_owed > 0 => {
                self.feeds_owed -= 1;
                ctx.score.forget(1);
                if self.feeds_owed == 0 {
                    ctx.clear_timer();
                }
            }
            _ => message.unexpected(ctx),
        }
    }

    fn received(&self, state: &State, message: &Message<'_>, bytes: usize, ctx: &mut Context<'_>) {
        let own = self.identifier(state.place);
        if !is_number(&message.identifier, own) {
            let detail = format_args!("identifier {} instead of {own}", message.identifier);
            return ctx.fail(Fault::Wrong, detail);
        }
        if state.stage != Stage::Subscribed || message.elements.is_empty() {
            return ctx.fail(Fault::Wrong, "a message before its time, or without elements");
        }
        let after = channel::unix_time().saturating_sub(Duration::from_millis(message.timestamp));
        ctx.score.arrived(after, bytes);
    }

    /// Starts or ends the server's publications. Only one worker does.
    fn feed(&mut self, rate: Option<f64>, output: &mut Output<'_>) {
        let Some(id) = self.feeder else { return };
        let text = channel::feed(self.args.payload, rate);
        if output.ask(id, MessageKind::Text.opcode(), text.as_bytes()) {
            self.feeds_owed += 1;
        }
    }
}

impl WsScenario for PubSub {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        state.place = self.free.pop().expect("as many places as connections");
        state.stage = Stage::Subscribing;
        let identifier = self.identifier(state.place).to_string();
        ctx.command(&channel::subscribe(&identifier, None));
        if self.is_feeder(state) {
            self.feeder = Some(ctx.id);
        }
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        if let Some(text) = state.buffer.text(&piece, ctx) {
            self.handle(state, &text, ctx);
        }
    }

    fn expired(&mut self, _state: &mut State, ctx: &mut Context<'_>) {
        ctx.timed_out("no answer");
    }

    fn owed(&self, state: &State) -> u32 {
        if self.is_feeder(state) { self.feeds_owed } else { 0 }
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.feed(self.args.rate, output);
    }

    fn finish(&mut self, output: &mut Output<'_>) {
        self.feed(Some(0.0), output);
    }

    fn closed(&mut self, state: State) {
        if self.is_feeder(&state) {
            (self.feeder, self.feeds_owed) = (None, 0);
        }
        if state.stage != Stage::New {
            self.free.push(state.place);
        }
    }
}

/// Whether a text is that number, written as we write it.
fn is_number(text: &str, number: u32) -> bool {
    text.parse() == Ok(number) && (text.len() == 1 || !text.starts_with(['0', '+']))
}

/// The article's.
const IDENTIFIERS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that no other way to write a number is taken for it.
    #[test]
    fn identifiers_are_compared_as_they_are_written() {
        for number in [0, 1, 9, 10, 10_000, u32::MAX] {
            assert!(is_number(&number.to_string(), number), "{number}");
        }
        for text in ["", "07", "+7", "7 ", "8", "70"] {
            assert!(!is_number(text, 7), "{text}");
        }
    }

    /// Shows that connection `i` of all has the identifier `i` modulo 10,000, plus 1.
    #[test]
    fn all_shards_together_subscribe_as_the_article_did() {
        let mut identifiers: Vec<u32> = Vec::new();
        for worker in 0..3 {
            let args = Args { payload: 1400, rate: None, csv: None };
            let setup = ClientSetup { conns: 25_000, worker, workers: 3, seed: 1 };
            let clients = PubSub::new(args, setup);
            identifiers.extend(clients.free.iter().map(|&place| clients.identifier(place)));
        }
        identifiers.sort_unstable();
        let mut expected: Vec<u32> = (0..25_000).map(|i| i % 10_000 + 1).collect();
        expected.sort_unstable();
        assert_eq!(identifiers, expected);
    }
}
