//! `request-reply`: the second half of the comparison of 2012. Each connection asks a service for an
//! order every 50 to 300 ms; the answer must be the one to its request.

use std::path::PathBuf;
use std::time::Duration;

use murre_codec::Kind as MessageKind;
use murre_core::ConnId;
use murre_record::Scenario as Kind;
use serde::{Deserialize, Serialize};

use crate::cli::args::Span;
use crate::cli::common::Common;
use crate::client::channel::{self, MessageBuffer, ServerMessage};
use crate::client::ws::{Piece, WsClient, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::fleet::Fleet;
use crate::engine::score::{Fault, Micros};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{FINE_TICK, Profile, Scenario, Setup, check_fine};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Range of seconds from one request of a connection to the next
    #[arg(long, value_name = "FROM-TO", default_value = "0.05-0.3")]
    idle: Span,

    /// Writes the columns of every 15 s to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        let bytes_per_connection = Fleet::<WsClient<RequestReply>>::MEMBER_BYTES;
        Profile {
            tick: FINE_TICK,
            must_receive: true,
            columns: Some(self.csv.clone()),
            ..Profile::new(Kind::RequestReply, bytes_per_connection)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_fine(self.idle.to.max(common.timeout.as_secs_f64()))
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let idle = self.idle;
        setup.start_ws(config, move |c| RequestReply::new(idle, c.own_seed()))
    }
}

/// One shard's clients.
pub(crate) struct RequestReply {
    /// From one request to the next, in seconds.
    every: Span,
    seed: u64,
    finishing: bool,
}

/// The state of one client.
#[derive(Default)]
pub(crate) struct State {
    buffer: MessageBuffer,
    /// Of the request under way, in milliseconds since 1970.
    timestamp: u64,
    round: u32,
    /// When the request under way was to be sent.
    due: Micros,
    waiting: bool,
}

/// The data of a response.
#[derive(Debug, Deserialize)]
struct Response<'a> {
    request: u64,
    timestamp: u64,
    address: &'a str,
}

impl RequestReply {
    pub(crate) fn new(every: Span, seed: u64) -> RequestReply {
        RequestReply { every, seed, finishing: false }
    }

    /// How long after the last request was due the next one is.
    fn pause(&self, id: ConnId, round: u32) -> Duration {
        Duration::from_secs_f64(self.every.at(fraction(hash(self.seed, id.index(), round))))
    }
}

impl WsScenario for RequestReply {
    type State = State;

    fn open(&mut self, _state: &mut State, ctx: &mut Context<'_>) {
        let fraction = fraction(hash(self.seed, ctx.id.index(), u32::MAX));
        let left = Duration::from_secs_f64(self.every.residual(fraction));
        ctx.start_timer(left);
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        let Some(message) = ServerMessage::<'_, Response<'_>>::parse(&text, ctx) else { return };
        let number = u64::from(state.round);
        let data = match message.data {
            Some(ref data) if message.kind == "response" && state.waiting => data,
            _ => return message.unexpected(ctx),
        };
        let own = (message.id, &message.service[..]) == (Some(number), SERVICE)
            && (data.request, data.timestamp) == (number, state.timestamp);
        if !own || data.address.is_empty() {
            let detail = format_args!("{data:?} for request {number} of {}", state.timestamp);
            return ctx.fail(Fault::Wrong, detail);
        }
        let now = ctx.out.now();
        ctx.score.count_bytes(text.len());
        ctx.score.answered(state.due, now);
        state.waiting = false;
        state.round = state.round.wrapping_add(1);
        let passed = ctx.score.micros(now).since(state.due);
        ctx.start_timer(self.pause(ctx.id, state.round).saturating_sub(passed));
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        if state.waiting {
            return ctx.timed_out("no response");
        }
        if self.finishing {
            return;
        }
        state.timestamp = channel::unix_time().as_millis() as u64;
        let request =
            request(state.round, state.timestamp, hash(self.seed, ctx.id.index(), state.round));
        if ctx.ask(MessageKind::Text.opcode(), request.as_bytes()) {
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

/// The article's request, with one to ten executions of an order.
fn request(number: u32, timestamp: u64, hash: u64) -> String {
    let rows = 1 + hash % 10;
    let mut execs = String::new();
    for row in 0..rows {
        let (shares, price) = ((1 + (hash >> row) % 9) * 100, 20 + (hash >> (8 + row)) % 80);
        let comma = if row > 0 { "," } else { "" };
        execs += &format!(r#"{comma}{{"symbol":"AAPL","shares":{shares},"price":{price}.25}}"#);
    }
    format!(
        r#"{{"action":"request","service":"{SERVICE}","id":{number},"data":{{"request":{number},"timestamp":{timestamp},"rows":{rows},"execs":[{execs}]}}}}"#
    )
}

const SERVICE: &str = "order-request";

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a request is JSON, that its number is in it twice, and that its rows are as many
    /// as it says, at both ends of their range.
    #[test]
    fn requests_hold_what_they_say() {
        let mut least_and_most = (u64::MAX, 0);
        for round in 0..100 {
            let text = request(round, 1_353_628_800_123, hash(1, 2, round));
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let data = &json["data"];
            assert_eq!((&json["id"], &data["request"]), (&round.into(), &round.into()));
            assert_eq!((&json["service"], &json["action"]), (&SERVICE.into(), &"request".into()));
            assert_eq!(data["timestamp"], 1_353_628_800_123_u64);
            let rows = data["rows"].as_u64().expect("a number");
            assert_eq!(data["execs"].as_array().expect("a list").len() as u64, rows);
            least_and_most = (least_and_most.0.min(rows), least_and_most.1.max(rows));
        }
        assert_eq!(least_and_most, (1, 10));
    }
}
