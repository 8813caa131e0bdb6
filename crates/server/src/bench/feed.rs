//! Publications that a `--bench` server makes itself: the feed of the comparison of 2012, and
//! quotes. They go through the hub like the publications of a session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use murre_router::channels::{ChannelInfo, Cursor, Form, Payload};
use serde::Deserialize;

use crate::hub::{Hub, Outlet};

/// The size and the rate of the feed, from a client's `{"action":"feed","bytes":N,"rate":R}`. The
/// feed publishes to random channels that have subscribers.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Rate {
    /// The approximate bytes of one message.
    bytes: u32,
    /// Messages per second of all shards together; `None` means full speed.
    rate: Option<f64>,
}

/// The feed of one shard, which publishes to the channels that the shard owns.
pub(crate) struct Feed {
    rate: Option<Rate>,
    shards: u16,
    elements: String,
    /// The number of messages that are due, with the fraction of the next one.
    due: f64,
    last: Instant,
    number: u64,
    rng: Rng,
    listing: Listing,
    quotes: Quotes,
}

/// A list of some of the channels that a shard owns, filled a part at a time.
#[derive(Default)]
struct Listing {
    channels: Vec<Arc<str>>,
    /// The list that is being filled, which replaces `channels` when it is complete.
    next: Vec<Arc<str>>,
    from: Cursor,
}

/// The most messages in one turn.
const TURN_MAX: usize = 64;
/// At full speed, the feed pauses while more deliveries than this wait.
const DELIVERIES_MAX: u64 = 256;
/// The most channels that one turn looks at.
const LISTED_MAX: usize = 64;
const BYTES_MAX: u32 = 65_536;
/// The time between two turns of the feed.
const STEP: Duration = Duration::from_millis(1);
/// The time between two turns at full speed.
const STEP_FULL: Duration = Duration::from_micros(100);

/// Parses a feed command; `None` if the message is not one.
pub(crate) fn command(message: &[u8]) -> Option<Rate> {
    #[derive(Deserialize)]
    struct Command {
        action: String,
        #[serde(flatten)]
        rate: Rate,
    }
    // This test is cheap for all other messages.
    let looks_like_it = message.starts_with(br#"{"action":"feed""#);
    let command: Command = looks_like_it.then(|| serde_json::from_slice(message).ok())??;
    let rate = command.rate;
    let right = command.action == "feed" && rate.rate.is_none_or(|rate| rate >= 0.0);
    (right && rate.bytes <= BYTES_MAX).then_some(rate)
}

impl Listing {
    /// Looks at the next channels, at most `limit`, and lists the `wanted` ones.
    fn look(&mut self, hub: &Hub, limit: usize, wanted: impl Fn(&ChannelInfo) -> bool) {
        let (found, from) = hub.channels(self.from, limit);
        self.next.extend(found.into_iter().filter(wanted).map(|info| info.name));
        self.from = from.unwrap_or_default();
        if from.is_none() {
            self.channels = std::mem::take(&mut self.next);
        }
    }
}

impl Feed {
    /// A feed that publishes nothing yet.
    pub(crate) fn new(shards: u16, now: Instant) -> Self {
        Feed {
            rate: None,
            shards,
            elements: String::new(),
            due: 0.0,
            last: now,
            number: 0,
            rng: Rng::new(),
            listing: Listing::default(),
            quotes: Quotes::new(now),
        }
    }

    /// Changes the size and the rate of the feed.
    pub(crate) fn set(&mut self, rate: Rate, now: Instant) {
        // The rest of a message takes about 150 bytes.
        let length = rate.bytes.saturating_sub(150) as usize;
        self.elements = "0123456789".chars().cycle().take(length).collect();
        self.rate = (rate.rate != Some(0.0)).then_some(rate);
        (self.due, self.last) = (0.0, now);
    }

    /// Publishes the messages and quotes that are due.
    pub(crate) fn turn(&mut self, hub: &mut Hub, out: &impl Outlet) {
        let now = out.now();
        self.quotes.turn(hub, &mut self.rng, out);
        let Some(rate) = self.rate else { return };
        self.listing.look(hub, LISTED_MAX, |info| info.subscribers > 0);
        self.due = match rate.rate {
            None if hub.deliveries_waiting() < DELIVERIES_MAX => TURN_MAX as f64,
            None => 0.0,
            Some(rate) => {
                let passed = now.saturating_duration_since(self.last).as_secs_f64();
                (self.due + passed * rate / f64::from(self.shards)).min(rate)
            }
        };
        self.last = now;
        for _ in 0..TURN_MAX {
            if self.due < 1.0 || self.listing.channels.is_empty() {
                return;
            }
            self.due -= 1.0;
            let channel =
                Arc::clone(&self.listing.channels[self.rng.usize(..self.listing.channels.len())]);
            self.number += 1;
            let text = self.message(&channel);
            hub.publish_as_server(&channel, Payload::new(Form::Json, text.into_bytes()), out);
        }
    }

    fn message(&self, channel: &str) -> String {
        let channel = serde_json::to_string(channel).expect("text can be written");
        format!(
            r#"{{"request":{},"timestamp":{},"identifier":{channel},"elements":"{}"}}"#,
            self.number,
            milliseconds(),
            self.elements,
        )
    }

    /// The time of the next publication.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let step = |rate: Rate| if rate.rate.is_some() { STEP } else { STEP_FULL };
        let feed = self.rate.map(|rate| self.last + step(rate));
        feed.into_iter().chain(Some(self.quotes.next)).min()
    }
}

/// The publications for the quotes page: every half second a quote for each channel `quotes:SYMBOL`
/// that has subscribers, and the next number for `quotes:sequence`.
struct Quotes {
    quotes: HashMap<Arc<str>, Quote>,
    listing: Listing,
    sequence: u64,
    next: Instant,
}

struct Quote {
    /// The bid price in cents.
    bid: u32,
    counter: u64,
}

const QUOTES_EVERY: Duration = Duration::from_millis(500);
const QUOTES: &str = "quotes:";
/// The channels that one step looks at for quotes. More channels need several steps.
const LOOKED_AT: usize = 1000;

impl Quotes {
    fn new(now: Instant) -> Self {
        let (quotes, listing) = (HashMap::new(), Listing::default());
        Quotes { quotes, listing, sequence: 0, next: now + QUOTES_EVERY }
    }

    fn turn(&mut self, hub: &mut Hub, rng: &mut Rng, out: &impl Outlet) {
        let now = out.now();
        if now < self.next {
            return;
        }
        self.next = now + QUOTES_EVERY;
        self.sequence += 1;
        self.listing.look(hub, LOOKED_AT, |info| info.name.starts_with(QUOTES));
        let channels = std::mem::take(&mut self.listing.channels);
        self.quotes.retain(|channel, _| channels.contains(channel));
        for channel in &channels {
            let data = match &channel[QUOTES.len()..] {
                "sequence" => format!(r#"{{"sequence":{}}}"#, self.sequence),
                symbol => self.quote(channel, symbol, rng),
            };
            hub.publish_as_server(channel, Payload::new(Form::Json, data.into_bytes()), out);
        }
        self.listing.channels = channels;
    }

    fn quote(&mut self, channel: &Arc<str>, symbol: &str, rng: &mut Rng) -> String {
        let first = || Quote { bid: rng.u32(2_000..60_000), counter: 0 };
        let quote = self.quotes.entry(Arc::clone(channel)).or_insert_with(first);
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

/// The answer of the request/reply service of the comparison of 2012; `None` if the message is not
/// an order.
pub(crate) fn order(message: &[u8], address: impl FnOnce() -> String) -> Option<String> {
    #[derive(Deserialize)]
    struct Request {
        action: String,
        service: String,
        id: u64,
        data: Order,
    }
    #[derive(Deserialize)]
    struct Order {
        request: u64,
    }
    // This test is cheap for all other messages.
    let looks_like_it = message.starts_with(br#"{"action":"request""#);
    let order: Request = looks_like_it.then(|| serde_json::from_slice(message).ok())??;
    if order.action != "request" || order.service.as_bytes() != ORDERS {
        return None;
    }
    let Request { id, data: Order { request }, .. } = order;
    let (timestamp, address) = (milliseconds(), address());
    Some(format!(
        r#"{{"type":"response","service":"order-request","data":{{"request":{request},"timestamp":{timestamp},"address":"{address}"}},"id":{id}}}"#
    ))
}

/// The name of the request/reply service.
const ORDERS: &[u8] = b"order-request";

fn milliseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message is a feed command only if every member is valid.
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

    /// A message has the members of the comparison's messages, and about the requested length.
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
            // A publication has about 65 bytes around its data.
            assert!((text.len() + 65).abs_diff(bytes as usize) < 25, "{} bytes", text.len());
        }
    }

    /// An order is answered with its own number, and other messages are not answered.
    #[test]
    fn orders_are_answered() {
        let message = br#"{"action":"request","service":"order-request","id":9,"data":{"request":7,"rows":3,"execs":[]}}"#;
        let answer = order(message, || "0-1-1".into()).expect("an order");
        let value: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(value["id"], 9);
        assert_eq!(value["data"]["request"], 7);
        assert_eq!(value["data"]["address"], "0-1-1");
        for other in [&b"[]"[..], br#"{"action":"request","service":"other","id":1,"data":{}}"#] {
            assert_eq!(order(other, String::new), None);
        }
    }
}
