//! `quotes`: many clients that do what the quotes page of `--bench` does. Each page subscribes in
//! one batch to some of the symbols and to the sequence, which is on every page; every quote must be one
//! of a symbol that it shows, and its counter the next. A quote's time is how much later it is on a
//! page than on the first of the shard that has it.

use std::fmt::Write as _;
use std::time::Instant;

use murre_record::{CountedFrom, Scenario as Kind};
use serde::{Deserialize, Serialize};

use crate::client::Context;
use crate::client::channel::{self, MessageBuffer, ServerMessage};
use crate::client::ws::{Piece, WsClient, WsScenario};
use crate::engine::fleet::Fleet;
use crate::engine::score::Fault;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{Profile, Scenario, Setup};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            counted_from: CountedFrom::FirstHeard,
            must_receive: true,
            ..Profile::new(Kind::Quotes, Fleet::<WsClient<Quotes>>::MEMBER_BYTES)
        }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        setup.start_ws(config, |_| Quotes::default())
    }
}

/// One shard's pages.
#[derive(Default)]
pub(crate) struct Quotes {
    /// Pages opened so far: each begins with the next symbol.
    opened: usize,
    /// By channel, the last number and when the first page received it.
    latest: [Option<(u64, Instant)>; CHANNELS.len()],
}

/// The state of one page.
#[derive(Default)]
pub(crate) struct State {
    buffer: MessageBuffer,
    page: Option<Box<Page>>,
}

struct Page {
    first: usize,
    /// Channels that have said so.
    subscribed: usize,
    /// By channel, what was received of it.
    cursors: [Cursor; CHANNELS.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cursor {
    /// Not shown, or not subscribed to yet.
    #[default]
    Unsubscribed,
    /// Nothing was received yet.
    Subscribed,
    /// The last counter.
    At(u64),
}

/// The data of a publication.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Quote {
    symbol: String,
    bid: f64,
    ask: f64,
    counter: u64,
    sequence: u64,
}

impl Quote {
    /// Its number in the channel; `None`: it is none of that channel.
    fn number(&self, channel: usize) -> Option<u64> {
        let (right, number) = if channel == SEQUENCE {
            (true, self.sequence)
        } else {
            let priced = 0.0 < self.bid && self.bid < self.ask;
            (priced && self.symbol == CHANNELS[channel], self.counter)
        };
        (right && number > 0).then_some(number)
    }
}

impl Cursor {
    /// Takes the next number. Whether it is the next.
    fn advance(&mut self, number: u64) -> bool {
        let next = match *self {
            Cursor::Unsubscribed => return false,
            Cursor::Subscribed => number,
            Cursor::At(last) => last + 1,
        };
        *self = Cursor::At(number);
        number == next
    }
}

impl Quotes {
    fn subscribed(
        &self,
        page: &mut Page,
        message: &ServerMessage<'_, Quote>,
        ctx: &mut Context<'_>,
    ) {
        let channel = channel_of(&message.identifier).filter(|&channel| shows(page.first, channel));
        match channel.map(|channel| &mut page.cursors[channel]) {
            Some(cursor) if *cursor == Cursor::Unsubscribed => *cursor = Cursor::Subscribed,
            _ => return message.unexpected(ctx),
        }
        page.subscribed += 1;
        if page.subscribed == SHOWN + 1 {
            ctx.clear_timer();
            ctx.ready();
        }
    }

    fn quoted(
        &mut self,
        page: &mut Page,
        message: &ServerMessage<'_, Quote>,
        bytes: usize,
        ctx: &mut Context<'_>,
    ) {
        let quote = message.data.as_ref();
        let found = channel_of(&message.identifier)
            .and_then(|channel| Some((channel, quote?.number(channel)?)));
        let Some((channel, number)) = found else {
            let detail = format_args!("{quote:?} in {}", message.identifier);
            return ctx.fail(Fault::Wrong, detail);
        };
        let before = page.cursors[channel];
        if !page.cursors[channel].advance(number) {
            let detail = format_args!("number {number} of {} after {before:?}", message.identifier);
            return ctx.fail(Fault::Wrong, detail);
        }
        let now = Instant::now();
        let latest = &mut self.latest[channel];
        if latest.is_none_or(|(last, _)| last < number) {
            *latest = Some((number, now));
        }
        // Where another page has a later number already, there is no first one to compare with.
        match *latest {
            Some((last, at)) if last == number => {
                ctx.score.arrived(now.saturating_duration_since(at), bytes);
            }
            _ => ctx.score.arrived_late(),
        }
    }
}

impl WsScenario for Quotes {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        let first = self.opened % SEQUENCE;
        self.opened += 1;
        let cursors = [Cursor::Unsubscribed; CHANNELS.len()];
        state.page = Some(Box::new(Page { first, subscribed: 0, cursors }));
        ctx.command(&subscribe(first));
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        let Some(message) = ServerMessage::<'_, Quote>::parse(&text, ctx) else { return };
        let page = state.page.as_mut().expect("there since it is open");
        match &message.kind[..] {
            "subscribed" => self.subscribed(page, &message, ctx),
            "publication" => self.quoted(page, &message, text.len(), ctx),
            _ => message.unexpected(ctx),
        }
    }

    fn expired(&mut self, _: &mut State, ctx: &mut Context<'_>) {
        ctx.timed_out("not subscribed to all");
    }
}

/// The page's symbols, and the sequence.
const CHANNELS: [&str; 13] = [
    "AAPL", "MSFT", "NVDA", "GOOG", "AMZN", "META", "TSLA", "NFLX", "ORCL", "IBM", "INTC", "AMD",
    "sequence",
];
const SEQUENCE: usize = CHANNELS.len() - 1;
/// Symbols that a page shows.
const SHOWN: usize = 8;
const PREFIX: &str = "quotes:";

fn channel_of(identifier: &str) -> Option<usize> {
    let name = identifier.strip_prefix(PREFIX)?;
    CHANNELS.iter().position(|&channel| channel == name)
}

/// Whether the page that begins with symbol `first` has the channel.
fn shows(first: usize, channel: usize) -> bool {
    channel == SEQUENCE || (channel + SEQUENCE - first) % SEQUENCE < SHOWN
}

/// One batch for all channels of a page.
fn subscribe(first: usize) -> String {
    let mut batch = String::from("[");
    for (channel, name) in CHANNELS.iter().enumerate() {
        if shows(first, channel) {
            let comma = if batch.len() > 1 { "," } else { "" };
            // Writing to a string does not fail.
            let _ =
                write!(batch, "{comma}{}", channel::subscribe(&format!("{PREFIX}{name}"), None));
        }
    }
    batch + "]"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows how many, which of them at the end of the table, and that the batch has the same.
    #[test]
    fn a_page_shows_eight_symbols_in_a_row_and_the_sequence() {
        for first in 0..SEQUENCE {
            let shown: Vec<usize> = (0..CHANNELS.len()).filter(|&c| shows(first, c)).collect();
            assert_eq!(shown.len(), SHOWN + 1);
            let batch: Vec<serde_json::Value> =
                serde_json::from_str(&subscribe(first)).expect("JSON");
            let named: Vec<usize> = batch
                .iter()
                .map(|command| channel_of(command["identifier"].as_str().unwrap()).unwrap())
                .collect();
            assert_eq!(named, shown);
        }
        assert!(shows(10, 0) && shows(10, 5) && !shows(10, 6) && shows(10, 11));
        assert_eq!(channel_of("quotes:IBM"), Some(9));
        assert_eq!((channel_of("IBM"), channel_of("quotes:X")), (None, None));
    }

    /// Shows that none may be missing, come twice, be of another symbol or have no sense.
    #[test]
    fn a_quote_must_be_the_next_of_its_symbol() {
        let quote = |symbol: &str, bid: f64, ask: f64| Quote {
            symbol: symbol.to_owned(),
            bid,
            ask,
            counter: 7,
            sequence: 0,
        };
        assert_eq!(quote("AAPL", 1.0, 1.01).number(0), Some(7));
        for wrong in [quote("MSFT", 1.0, 1.01), quote("AAPL", 1.0, 1.0), quote("AAPL", 0.0, 1.0)] {
            assert_eq!(wrong.number(0), None, "{wrong:?}");
        }
        assert_eq!(quote("AAPL", 1.0, 1.01).number(SEQUENCE), None);
        assert_eq!(Quote { sequence: 3, ..Quote::default() }.number(SEQUENCE), Some(3));

        let mut cursor = Cursor::Subscribed;
        assert!(cursor.advance(7) && cursor.advance(8));
        assert!(!cursor.advance(10) && cursor.advance(11) && !cursor.advance(11));
        assert!(!Cursor::Unsubscribed.advance(1));
    }
}
