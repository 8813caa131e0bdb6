//! The publications of one channel that subscribers on this shard have yet to get.

use std::collections::{BTreeSet, VecDeque};

use super::fanout::Fanout;
use super::publication::Publication;
use super::readers::ReaderState;
use super::subscribers::Encoded;

/// One channel's log on this shard.
///
/// ```text
///   entries    base                 base + handed_out            end
///              ├─ their fan-out is over ─┼─ wait for their fan-out ─┤
///   cursors         ▲      ▲  ▲                 ▲
/// ```
///
/// A publication is appended at the end and waits for its fan-out to the channel's list. After that it
/// stays for as long as a cursor points at it or before it. The sequence number of a publication is its
/// index in a channel with history, otherwise its number in this log.
pub(super) struct Log<E> {
    /// The channel's key; `None` if its last member has left: nothing waits then.
    pub(super) channel: Option<u32>,
    /// Tells logs in the same slot apart.
    pub(super) generation: u32,
    pub(super) keeps_history: bool,
    /// Whether it is in the queue for the shard's fan-outs.
    pub(super) has_turn: bool,
    /// Whether it waits for a sweep, because readers may have lost their place.
    pub(super) is_swept: bool,
    /// Whether the owner of the channel has been told that this log is full.
    pub(super) is_behind: bool,
    pub(super) fanout: Fanout,
    entries: VecDeque<Entry<E>>,
    base: u64,
    /// Number of entries at the front whose fan-out is over.
    handed_out: usize,
    /// Number of these that are in the shard's order of eviction.
    ordered: usize,
    bytes: u64,
    /// Readers by sequence number and key. Fast readers hold the publications that they have yet to get,
    /// slow readers do not.
    fast: BTreeSet<(u64, u32)>,
    slow: BTreeSet<(u64, u32)>,
}

/// A publication and its encoding by the caller.
pub(super) struct Entry<E> {
    pub(super) publication: Publication,
    pub(super) encoded: E,
    bytes: u64,
}

/// Bytes of an entry without payload and encoding: its record, and the counts and allocations of the
/// shared parts.
const ENTRY_BYTES: u64 = 160;

/// A log with at most this much room may be used again for another channel.
const SPARE_ROOM: usize = 64;

impl<E: Encoded> Entry<E> {
    fn measure(&self) -> u64 {
        (self.publication.payload.bytes.len() as u64)
            .saturating_add(self.encoded.bytes() as u64)
            .saturating_add(ENTRY_BYTES)
    }
}

impl<E: Encoded> Log<E> {
    pub(super) fn new() -> Self {
        Log {
            channel: None,
            generation: 0,
            keeps_history: false,
            has_turn: false,
            is_swept: false,
            is_behind: false,
            fanout: Fanout::default(),
            entries: VecDeque::new(),
            base: 0,
            handed_out: 0,
            ordered: 0,
            bytes: 0,
            fast: BTreeSet::new(),
            slow: BTreeSet::new(),
        }
    }

    /// Starts over for a channel whose next publication has the sequence number `next`.
    pub(super) fn open(&mut self, channel: u32, keeps_history: bool, next: u64) {
        assert!(self.entries.is_empty() && self.has_no_readers() && self.bytes == 0);
        self.channel = Some(channel);
        self.keeps_history = keeps_history;
        (self.base, self.handed_out, self.ordered) = (next, 0, 0);
        (self.has_turn, self.is_swept, self.is_behind) = (false, false, false);
    }

    /// Whether it has too much room to be kept for another channel.
    pub(super) fn is_large(&self) -> bool {
        self.entries.capacity() > SPARE_ROOM || self.fanout.capacity() > SPARE_ROOM
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The sequence number of the next publication.
    pub(super) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(super) fn has_no_readers(&self) -> bool {
        self.fast.is_empty() && self.slow.is_empty()
    }

    /// Whether it has neither publications nor readers.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.has_no_readers()
    }

    /// Adds a publication for the first `listed` subscribers of the channel and for all readers.
    pub(super) fn push(&mut self, publication: Publication, listed: u32) {
        let mut entry = Entry { publication, encoded: E::default(), bytes: 0 };
        entry.bytes = entry.measure();
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
        match listed {
            // Without subscribers no earlier publication waits for its fan-out.
            0 => self.handed_out += 1,
            _ => self.fanout.push(listed),
        }
    }

    /// The publication whose turn in the fan-out it is, with its sequence number.
    pub(super) fn waiting(&mut self) -> (u64, &mut Entry<E>) {
        (self.base + self.handed_out as u64, &mut self.entries[self.handed_out])
    }

    /// Records that the fan-out of the oldest publications is over.
    pub(super) fn handed_out(&mut self, publications: usize) {
        self.handed_out += publications;
    }

    /// The entry with this sequence number.
    pub(super) fn entry(&mut self, sequence: u64) -> &mut Entry<E> {
        &mut self.entries[(sequence - self.base) as usize]
    }

    /// Measures an entry again, which the caller may have encoded. Returns the change in bytes.
    pub(super) fn measure(&mut self, sequence: u64) -> i64 {
        let entry = self.entry(sequence);
        let (before, after) = (entry.bytes, entry.measure());
        entry.bytes = after;
        self.bytes = self.bytes - before + after;
        after as i64 - before as i64
    }

    /// Adds a reader at `cursor`.
    pub(super) fn add_reader(&mut self, cursor: u64, reader: u32, state: ReaderState) {
        match state {
            ReaderState::Fast => _ = self.fast.insert((cursor, reader)),
            ReaderState::Slow => _ = self.slow.insert((cursor, reader)),
            ReaderState::Ended => {}
        }
    }

    /// Removes a reader from `cursor`.
    pub(super) fn remove_reader(&mut self, cursor: u64, reader: u32) {
        if !self.fast.remove(&(cursor, reader)) {
            self.slow.remove(&(cursor, reader));
        }
    }

    /// A fast reader that has yet to get the oldest publication.
    pub(super) fn holder(&self) -> Option<u32> {
        self.fast.range((self.base, 0)..=(self.base, u32::MAX)).next().map(|(_, reader)| *reader)
    }

    /// A reader whose next publication has been dropped.
    pub(super) fn overrun(&self) -> Option<u32> {
        self.slow.first().filter(|(cursor, _)| *cursor < self.base).map(|(_, reader)| *reader)
    }

    /// Whether the oldest publication must stay for now.
    pub(super) fn is_held(&self) -> bool {
        !self.entries.is_empty() && (self.handed_out == 0 || self.holder().is_some())
    }

    /// Whether no subscriber needs the oldest publication any more.
    pub(super) fn is_done(&self) -> bool {
        let first = |readers: &BTreeSet<(u64, u32)>| readers.first().map(|(cursor, _)| *cursor);
        let is_past = |cursor: Option<u64>| cursor.is_none_or(|cursor| cursor > self.base);
        self.handed_out > 0 && is_past(first(&self.fast)) && is_past(first(&self.slow))
    }

    /// Drops the oldest publication, whose fan-out is over. Returns its bytes.
    pub(super) fn pop(&mut self) -> u64 {
        let entry = self.entries.pop_front().expect("its fan-out is over");
        self.handed_out -= 1;
        self.ordered = self.ordered.saturating_sub(1);
        self.base += 1;
        self.bytes -= entry.bytes;
        entry.bytes
    }

    /// Drops all publications, because the channel has no members on this shard any more. Returns their
    /// bytes.
    pub(super) fn clear(&mut self) -> u64 {
        self.base = self.end();
        self.entries = VecDeque::new();
        self.fanout = Fanout::default();
        (self.handed_out, self.ordered) = (0, 0);
        self.channel = None;
        self.is_behind = false;
        std::mem::take(&mut self.bytes)
    }

    /// The sequence number of the next entry to add to the order of eviction, if there is one. It counts
    /// as added.
    pub(super) fn take_unordered(&mut self) -> Option<u64> {
        let sequence = self.base + self.ordered as u64;
        (self.ordered < self.handed_out).then(|| {
            self.ordered += 1;
            sequence
        })
    }
}
