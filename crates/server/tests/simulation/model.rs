//! What must be heard: the order of each channel's owner, and the place of each reader in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use murre_router::Shard;
use murre_router::channels::{
    Append, AppendId, Backplane, Fetch, FetchId, Interest, Outgoing, Position,
};

use super::backend::Said;
use super::setup::{BackendUse, Setup, asks, keeps_history};
use super::wire::Publication;
use crate::hub::HubConfig;

/// All that has been published, channel by channel, in the order in which the owners took it.
#[derive(Default)]
pub(super) struct Model {
    channels: BTreeMap<String, Vec<u64>>,
    /// The channel and the index there of each publication that an owner took.
    taken: BTreeMap<u64, (String, usize)>,
    /// For each channel, when its publications were taken.
    times: BTreeMap<String, Vec<Instant>>,
    /// For each channel and epoch, the index of the publication with offset 1. It may be negative
    /// only by mistake.
    bases: BTreeMap<(String, u32), usize>,
    /// How many publications a channel with history keeps for certain; `None` if no such thing is
    /// certain, because they expire soon or all channels share too little memory.
    kept: Option<usize>,
    /// Whether the commands of a client are limited to a rate that it may exceed.
    pub(super) limits_commands: bool,
    /// Whether an application decides about commands, and about sessions without a token.
    pub(super) has_backend: bool,
    pub(super) asks_to_connect: bool,
    /// What it has said.
    pub(super) said: Said,
    /// Publications that were refused: they never reach an owner.
    refused: BTreeSet<u64>,
    sent: BTreeMap<u64, Sent>,
    /// The last publication of each connection in each channel.
    last: BTreeMap<(Author, String), u64>,
    pub(super) now: Option<Instant>,
    /// By shard: it has been told to end.
    pub(super) drained: Vec<bool>,
    /// Unix seconds, now and at most so far.
    pub(super) wall: u64,
    pub(super) wall_max: u64,
    ids: u64,
    /// How often each thing happened that runs are for.
    pub(super) seen: Seen,
    /// Publications and requests that were handed in.
    pub(super) published: u64,
    /// Requests that were handed in, with the replies that were given.
    pub(super) requests: BTreeMap<u64, Request>,
}

/// A publication or request that was handed in.
struct Sent {
    filling: usize,
    /// The connection; none if it is the control plane.
    author: Option<Author>,
}

/// A connection: its shard, and its number there.
type Author = (usize, usize);

/// Counts by name.
pub(super) type Seen = BTreeMap<&'static str, u64>;

/// A request to a service.
#[derive(Default)]
pub(super) struct Request {
    pub(super) service: String,
    /// How often a responder got it.
    pub(super) served: u32,
    /// What a responder answered.
    pub(super) reply: Option<Result<u64, String>>,
}

thread_local! {
    static APPENDED: RefCell<Vec<(String, u64, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Tells the model what an owner takes.
pub(super) struct Recorder;

impl Backplane for Recorder {
    fn orders(&self) -> bool {
        false
    }

    fn append(&mut self, _: AppendId, publication: Outgoing<'_>) -> Append {
        let Outgoing { channel, payload, .. } = publication;
        let text = String::from_utf8_lossy(payload.data());
        let number = text.trim_start_matches(|c: char| !c.is_ascii_digit()).split(':').next();
        let number = number.and_then(|digits| digits.parse().ok());
        let number = number.expect("payloads of the run have their numbers first");
        let filling = payload.data().iter().filter(|byte| **byte == b'x').count();
        APPENDED.with_borrow_mut(|appended| appended.push((channel.to_owned(), number, filling)));
        Append::Number
    }

    fn interest(&mut self, _: &str, _: Interest, _: bool) {}

    fn fetch(&mut self, _: FetchId, _: Fetch<'_>) {}
}

pub(super) fn recorder(_: &HubConfig, _: Shard) -> Box<dyn Backplane + Send> {
    Box::new(Recorder)
}

impl Model {
    pub(super) fn new(setup: &Setup) -> Self {
        APPENDED.with_borrow_mut(Vec::clear);
        let certain =
            setup.history_ttl >= Duration::from_secs(300) && setup.history_bytes_max >= 1 << 30;
        Model {
            kept: certain.then_some(setup.history_size as usize),
            limits_commands: setup.commands_per_second < 1_000_000,
            has_backend: setup.backend != BackendUse::Nothing,
            asks_to_connect: setup.backend == BackendUse::All,
            drained: vec![false; setup.shards],
            ..Model::default()
        }
    }

    /// Something happened that runs are for.
    pub(super) fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A request id that no other command of the run has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Whether everything behind a position is kept for certain.
    pub(super) fn must_recover(&self, channel: &str, after: Position) -> bool {
        let next = self.index_after(channel, after);
        let missed = next.map(|next| self.len(channel) - next);
        missed.zip(self.kept).is_some_and(|(missed, kept)| missed <= kept)
    }

    /// Takes what owners have taken since this was called last.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.now = Some(now);
        for (channel, number, filling) in APPENDED.with_borrow_mut(std::mem::take) {
            self.check_taken(&channel, number, filling);
            let order = self.channels.entry(channel.clone()).or_default();
            let before = self.taken.insert(number, (channel.clone(), order.len()));
            assert!(before.is_none(), "publication {number} is taken twice");
            order.push(number);
            self.times.entry(channel).or_default().push(now);
        }
    }

    /// A connection, or the control plane, hands in the next publication or request.
    pub(super) fn hand_in(&mut self, filling: usize, author: Option<Author>) -> u64 {
        let number = self.published;
        self.published += 1;
        self.sent.insert(number, Sent { filling, author });
        number
    }

    /// The filling of a publication or request as it was handed in.
    pub(super) fn filling(&self, number: u64) -> Option<usize> {
        self.sent.get(&number).map(|sent| sent.filling)
    }

    /// A publication was refused.
    pub(super) fn refuse(&mut self, number: u64) {
        assert!(!self.is_taken(number), "{number} is refused, but was taken");
        self.refused.insert(number);
    }

    /// Checks a publication that an owner takes: the application has consented where it decides, and those of
    /// one connection come in order.
    fn check_taken(&mut self, channel: &str, number: u64, filling: usize) {
        assert!(!self.refused.contains(&number), "{number} is taken, but was refused");
        let Some(Sent { filling: sent, author }) = self.sent.get(&number) else {
            panic!("{number} was never handed in")
        };
        let mut expected = Some(*sent);
        if let Some(author) = *author {
            if self.has_backend && asks(channel) {
                expected = self.consented(number);
            }
            let last = self.last.insert((author, channel.to_owned()), number);
            assert!(
                last.is_none_or(|last| last < number),
                "{number} comes after {last:?} in {channel}"
            );
        }
        assert_eq!(Some(filling), expected, "{number} in {channel} is what it must be");
    }

    /// Whether the application decides about a channel or service.
    pub(super) fn asks(&self, name: &str) -> bool {
        self.has_backend && asks(name)
    }

    /// How many publications of a channel have been taken.
    pub(super) fn len(&self, channel: &str) -> usize {
        self.channels.get(channel).map_or(0, Vec::len)
    }

    /// The index of the first publication that a client may hear which subscribes now. In a channel with
    /// history the owner decides; elsewhere a client also hears what is on its way to its shard.
    pub(super) fn first(&self, channel: &str, now: Instant) -> usize {
        let arrived = |&&taken: &&Instant| now.saturating_duration_since(taken) > ON_ITS_WAY;
        match self.times.get(channel) {
            Some(times) if !keeps_history(channel) => times.iter().take_while(arrived).count(),
            _ => self.len(channel),
        }
    }

    /// Whether an owner took the publication.
    pub(super) fn is_taken(&self, number: u64) -> bool {
        self.taken.contains_key(&number)
    }

    /// The index of the publication that follows a position, if it is known.
    pub(super) fn index_after(&self, channel: &str, position: Position) -> Option<usize> {
        let base = *self.bases.get(&(channel.to_owned(), position.epoch))?;
        Some(base + position.offset as usize)
    }

    /// The index of a publication, which is of this channel.
    pub(super) fn index(&self, channel: &str, number: u64) -> usize {
        let taken = self.taken.get(&number);
        let (of, index) = taken.unwrap_or_else(|| panic!("{number} was never taken by an owner"));
        assert_eq!(of, channel, "{number} was published to another channel");
        *index
    }

    /// The publication with this index has this position: so have all others of the epoch.
    pub(super) fn learn(&mut self, channel: &str, position: Position, index: usize) {
        let base = index.checked_sub(position.offset as usize - 1);
        let base = base.expect("no more publications have offsets than were taken");
        let known = *self.bases.entry((channel.to_owned(), position.epoch)).or_insert(base);
        assert_eq!(known, base, "{channel}: {position:?} is publication {index}");
    }
}

/// The longest time from the owner of a channel to a shard: a mailbox that is full is tried again each
/// millisecond.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// A client's place in a channel.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    channel: String,
    /// The index of the next publication: one of these, until the first has been heard.
    lo: usize,
    hi: usize,
    /// The position of the last publication, or where the reader began; with history only.
    pub(super) seen: Option<Position>,
    /// Publications left out since then.
    dropped: u64,
    /// For each publication of that index, when the reader began.
    pub(super) heard: u64,
}

impl Reader {
    /// Begins with what is published from now on: `before` is the [first](Model::first) publication when
    /// the client asked.
    pub(super) fn live(
        channel: &str,
        before: usize,
        position: Option<Position>,
        model: &Model,
    ) -> Self {
        let (mut lo, mut hi) = (before, model.len(channel));
        if let Some(index) = position.and_then(|position| model.index_after(channel, position)) {
            let fits = (lo..=hi).contains(&index);
            assert!(fits, "{channel}: begins at {index}, not from {lo} to {hi}");
            (lo, hi) = (index, index);
        }
        Reader { channel: channel.to_owned(), lo, hi, seen: position, dropped: 0, heard: 0 }
    }

    /// Goes on behind a position.
    pub(super) fn recovered(channel: &str, after: Position, model: &Model) -> Self {
        let (lo, hi) = match model.index_after(channel, after) {
            Some(index) => (index, index),
            None => (0, model.len(channel)),
        };
        Reader { channel: channel.to_owned(), lo, hi, seen: Some(after), dropped: 0, heard: 0 }
    }

    /// The next publication, which must be this one.
    pub(super) fn hear(&mut self, publication: &Publication, model: &mut Model) {
        let Publication { channel, offset, number } = publication;
        assert_eq!(*channel, self.channel, "it is of the channel");
        model.note("a publication heard");
        let index = model.index(channel, *number);
        let fits = (self.lo..=self.hi).contains(&index);
        let (lo, hi) = (self.lo, self.hi);
        assert!(fits, "{channel}: heard {number}, which is {index}, where {lo} to {hi} is next");
        (self.lo, self.hi) = (index + 1, index + 1);
        self.heard += 1;
        assert_eq!(offset.is_some(), self.seen.is_some(), "{channel}: offsets come with history");
        if let (Some(offset), Some(seen)) = (*offset, &mut self.seen) {
            let next = seen.offset + self.dropped + 1;
            assert_eq!(offset, next, "{channel}: heard {number} at {offset} after {seen:?}");
            seen.offset = offset;
            model.learn(channel, *seen, index);
        }
        self.dropped = 0;
    }

    /// So many publications were left out.
    pub(super) fn skip(&mut self, count: u64, model: &mut Model) {
        model.note("publications dropped");
        assert!(count > 0, "`dropped` counts what was left out");
        self.lo += count as usize;
        self.hi = (self.hi + count as usize).min(model.len(&self.channel));
        assert!(self.lo <= self.hi, "{}: more was dropped than published", self.channel);
        self.dropped += count;
    }

    /// Everything that was published since has been heard, or was told to be dropped.
    pub(super) fn must_be_complete(&self, model: &Model) {
        let len = model.len(&self.channel);
        assert!(self.hi >= len, "{}: has heard up to {} of {len}", self.channel, self.hi);
    }
}
