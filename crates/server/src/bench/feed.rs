//! What a `--bench` server publishes by itself: the feed of the comparison of 2012, and quotes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use murre_core::Outbox;
use murre_router::topics::{Form, Payload};
use serde::Deserialize;

use crate::channels::Channels;

/// How much is published to random channels that have subscribers: what a client's
/// `{"action":"feed","bytes":N,"rate":R}` says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Rate {
    /// Of one message, about.
    bytes: u32,
    /// Messages a second of all shards together; without it as many as can be sent.
    rate: Option<f64>,
}

/// One shard's part of it.
pub(crate) struct Feed {
    rate: Option<Rate>,
    shards: u16,
    elements: String,
    /// Messages that are due; a fraction waits for the rest of it.
    due: f64,
    last: Instant,
    number: u64,
    rng: Rng,
    quotes: Quotes,
}

/// Messages a turn at most.
const TURN_MAX: usize = 64;
/// Whoever has this much waiting is not fed at full speed: it would become a slow consumer.
const WAITING_MAX: u32 = 16 * 1024;
/// Deliveries that wait before no more are made at full speed.
const DELIVERIES_MAX: u64 = 256;
const BYTES_MAX: u32 = 65_536;
/// Between two looks at what is due.
const STEP: Duration = Duration::from_millis(1);
/// The same at full speed: what was put off for those who have much waiting is tried again.
const STEP_FULL: Duration = Duration::from_micros(100);

/// A feed command, if that is what the message is.
pub(crate) fn command(message: &[u8]) -> Option<Rate> {
    #[derive(Deserialize)]
    struct Command {
        action: String,
        #[serde(flatten)]
        rate: Rate,
    }
    // Cheap for all messages that are none.
    let looks_like_it = message.starts_with(br#"{"action":"feed""#);
    let command: Command = looks_like_it.then(|| serde_json::from_slice(message).ok())??;
    let rate = command.rate;
    let right = command.action == "feed" && rate.rate.is_none_or(|rate| rate >= 0.0);
    (right && rate.bytes <= BYTES_MAX).then_some(rate)
}

impl Feed {
    /// Says nothing until it is told to.
    pub(crate) fn new(shards: u16, now: Instant) -> Self {
        Feed {
            rate: None,
            shards,
            elements: String::new(),
            due: 0.0,
            last: now,
            number: 0,
            rng: Rng::new(),
            quotes: Quotes::new(now),
        }
    }

    /// Goes on at this rate.
    pub(crate) fn set(&mut self, rate: Rate, now: Instant) {
        // What stands around them takes about 90 bytes.
        let length = rate.bytes.saturating_sub(90) as usize;
        self.elements = "0123456789".chars().cycle().take(length).collect();
        self.rate = (rate.rate != Some(0.0)).then_some(rate);
        (self.due, self.last) = (0.0, now);
    }

    /// Publishes what is due.
    pub(crate) fn turn(&mut self, channels: &mut Channels, out: &Outbox) {
        let now = out.now();
        self.quotes.turn(channels, &mut self.rng, out);
        let Some(rate) = self.rate else { return };
        let full = rate.rate.is_none();
        self.due = match rate.rate {
            None if channels.deliveries_waiting() < DELIVERIES_MAX => TURN_MAX as f64,
            None => 0.0,
            Some(rate) => {
                let passed = now.saturating_duration_since(self.last).as_secs_f64();
                (self.due + passed * rate / f64::from(self.shards)).min(rate)
            }
        };
        self.last = now;
        for _ in 0..TURN_MAX {
            if self.due < 1.0 {
                return;
            }
            self.due -= 1.0;
            let Some((topic, waiting)) = channels.some_topic(self.rng.u32(..), out) else { return };
            if !full || waiting <= WAITING_MAX {
                self.number += 1;
                let text = self.message(&topic);
                channels.feed(
                    &topic,
                    Payload { form: Form::Raw, bytes: text.into_bytes().into() },
                    out,
                );
            }
        }
    }

    fn message(&self, topic: &str) -> String {
        let identifier = serde_json::to_string(topic).expect("text can be written");
        format!(
            r#"{{"request":{},"timestamp":{},"identifier":{identifier},"elements":"{}"}}"#,
            self.number,
            milliseconds(),
            self.elements,
        )
    }

    /// When it is to be asked again.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let step = |rate: Rate| if rate.rate.is_some() { STEP } else { STEP_FULL };
        let feed = self.rate.map(|rate| self.last + step(rate));
        feed.into_iter().chain(Some(self.quotes.next)).min()
    }
}

/// What the quotes page shows: every half second a quote for each channel `quotes:SYMBOL` that has
/// subscribers, and `quotes:sequence` counts on.
struct Quotes {
    quotes: HashMap<Arc<str>, Quote>,
    sequence: u64,
    next: Instant,
}

struct Quote {
    /// In cents.
    bid: u32,
    counter: u64,
}

const QUOTES_EVERY: Duration = Duration::from_millis(500);
const QUOTES: &str = "quotes:";
/// Symbols of one shard at most.
const SYMBOLS_MAX: usize = 1000;

impl Quotes {
    fn new(now: Instant) -> Self {
        Quotes { quotes: HashMap::new(), sequence: 0, next: now + QUOTES_EVERY }
    }

    fn turn(&mut self, channels: &mut Channels, rng: &mut Rng, out: &Outbox) {
        let now = out.now();
        if now < self.next {
            return;
        }
        self.next = now + QUOTES_EVERY;
        self.sequence += 1;
        let topics = channels.owned(QUOTES, SYMBOLS_MAX);
        self.quotes.retain(|topic, _| topics.contains(topic));
        for topic in topics {
            let data = match &topic[QUOTES.len()..] {
                "sequence" => format!(r#"{{"sequence":{}}}"#, self.sequence),
                symbol => self.quote(&topic, symbol, rng),
            };
            channels.feed(
                &topic,
                Payload { form: Form::Json, bytes: data.into_bytes().into() },
                out,
            );
        }
    }

    fn quote(&mut self, topic: &Arc<str>, symbol: &str, rng: &mut Rng) -> String {
        let first = || Quote { bid: rng.u32(2_000..60_000), counter: 0 };
        let quote = self.quotes.entry(Arc::clone(topic)).or_insert_with(first);
        let most = (quote.bid / 200).max(1);
        quote.bid = (quote.bid + rng.u32(0..=2 * most)).saturating_sub(most).max(100);
        quote.counter += 1;
        let ask = quote.bid + rng.u32(1..=5);
        let symbol = serde_json::to_string(symbol).expect("text can be written");
        let dollars = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
        let (bid, ask) = (dollars(quote.bid), dollars(ask));
        format!(r#"{{"symbol":{symbol},"bid":{bid},"ask":{ask},"counter":{}}}"#, quote.counter)
    }
}

/// What the request/reply service of the comparison of 2012 answers to an `order-request`; `None`:
/// it is none.
pub(crate) fn order(data: &[u8], address: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Order {
        request: u64,
    }
    let Order { request } = serde_json::from_slice(data).ok()?;
    let timestamp = milliseconds();
    Some(format!(r#"{{"request":{request},"timestamp":{timestamp},"address":"{address}"}}"#))
}

/// The name of that service.
pub(crate) const ORDERS: &str = "order-request";

fn milliseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what is a feed command in every member is taken for one.
    #[test]
    fn feed_commands() {
        let rate = |text: &str| command(text.as_bytes()).map(|Rate { bytes, rate }| (bytes, rate));
        assert_eq!(rate(r#"{"action":"feed","bytes":1400}"#), Some((1400, None)));
        assert_eq!(rate(r#"{"action":"feed","bytes":170,"rate":2.5}"#), Some((170, Some(2.5))));
        for wrong in [
            r#"{"action":"feeding","bytes":1}"#,
            r#"{"action":"feed"}"#,
            r#"{"action":"feed","bytes":-1}"#,
            r#"{"action":"feed","bytes":70000}"#,
            r#"{"action":"feed","bytes":1,"rate":-1}"#,
            r#"{"action":"subscribe","identifier":"feed"}"#,
        ] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    /// A message has the members of the comparison's, and about the length that was asked for.
    #[test]
    fn messages_are_those_of_2012() {
        let now = Instant::now();
        let mut feed = Feed::new(1, now);
        for bytes in [170, 1400] {
            feed.set(Rate { bytes, rate: None }, now);
            let text = feed.message("a\"b");
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(value["identifier"], "a\"b");
            assert!(value["request"].is_u64() && value["timestamp"].is_u64());
            assert!(text.len().abs_diff(bytes as usize) < 25, "{} bytes", text.len());
        }
    }

    /// An order is answered with its own number, and what is no order is not.
    #[test]
    fn orders_are_answered() {
        let answer = order(br#"{"request":7,"rows":3,"execs":[]}"#, "0-1-1").expect("an order");
        let value: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(
            (value["request"].as_u64(), value["address"].as_str()),
            (Some(7), Some("0-1-1"))
        );
        assert_eq!(order(b"[]", ""), None);
    }
}
