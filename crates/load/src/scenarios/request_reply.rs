//! `request-reply`: the second half of the comparison of 2012. Each connection asks a service for an
//! order every 50 to 300 ms; the answer must be the one to its request.

use std::time::Duration;

use fastrand::Rng;
use murre_core::{ConnId, Outbox};
use serde::Deserialize;

use crate::cli::args::Span;
use crate::client::channel::{self, Gather, Heard};
use crate::client::ws::{Line, Piece, Talk};
use crate::client::{fraction, hash};
use crate::engine::score::{Fault, Micros, Score};

/// One shard's clients.
pub(crate) struct RequestReply {
    /// From one request to the next, in seconds.
    every: Span,
    timeout: Duration,
    seed: u64,
    finishing: bool,
}

/// What is kept of one client.
#[derive(Default)]
pub(crate) struct State {
    gather: Gather,
    /// Of the request under way, in milliseconds since 1970.
    timestamp: u64,
    round: u32,
    /// When the request under way was to be sent.
    due: Micros,
    waiting: bool,
}

/// What the service answers.
#[derive(Debug, Deserialize)]
struct Response<'a> {
    request: u64,
    timestamp: u64,
    address: &'a str,
}

impl RequestReply {
    pub(crate) fn new(every: Span, timeout: Duration, seed: u64) -> RequestReply {
        RequestReply { every, timeout, seed, finishing: false }
    }

    /// How long after the last request was due the next one is.
    fn pause(&self, id: ConnId, round: u32) -> Duration {
        Duration::from_secs_f64(self.every.at(fraction(hash(self.seed, id.index(), round))))
    }
}

impl Talk for RequestReply {
    type State = State;

    fn open(&mut self, id: ConnId, _state: &mut State, line: &mut Line<'_, '_>) {
        let fraction = fraction(hash(self.seed, id.index(), u32::MAX));
        let left = Duration::from_secs_f64(self.every.residual(fraction));
        let ticks = line.desk.out.ticks(left);
        line.desk.out.set_timer(id, ticks);
    }

    fn message(
        &mut self,
        id: ConnId,
        state: &mut State,
        piece: Piece<'_>,
        line: &mut Line<'_, '_>,
    ) {
        let Some(text) = state.gather.text(id, &piece, line) else { return };
        let Some(heard) = Heard::<'_, Response<'_>>::hear(id, &text, line) else { return };
        let number = u64::from(state.round);
        let data = match heard.data {
            Some(ref data) if heard.kind == "response" && state.waiting => data,
            _ => return heard.unexpected(id, line),
        };
        let own = (heard.id, &heard.service[..]) == (Some(number), SERVICE)
            && (data.request, data.timestamp) == (number, state.timestamp);
        if !own || data.address.is_empty() {
            let detail = format_args!("{data:?} for request {number} of {}", state.timestamp);
            return line.desk.fail(id, Fault::Wrong, detail);
        }
        let now = line.desk.out.now();
        line.desk.score.weigh(text.len());
        line.desk.score.answered(state.due, now);
        state.waiting = false;
        state.round = state.round.wrapping_add(1);
        let passed = line.desk.score.micros(now).since(state.due);
        let ticks = line.desk.out.ticks(self.pause(id, state.round).saturating_sub(passed));
        line.desk.out.set_timer(id, ticks);
    }

    fn expired(&mut self, id: ConnId, state: &mut State, line: &mut Line<'_, '_>) {
        if state.waiting {
            let timeout = self.timeout;
            let detail = format_args!("no response within {timeout:?}");
            return line.desk.fail(id, Fault::Timeout, detail);
        }
        if self.finishing {
            return;
        }
        state.timestamp = channel::unix_time().as_millis() as u64;
        let request =
            request(state.round, state.timestamp, hash(self.seed, id.index(), state.round));
        if channel::say(id, &request, line) {
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

    #[test]
    fn requests_hold_what_they_say() {
        // Shows that a request is JSON, that its number is in it twice, and that its rows are as many
        // as it says, at both ends of their range.
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
