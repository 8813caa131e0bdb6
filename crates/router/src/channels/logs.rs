//! All logs of a shard: the turns of their fan-outs, and their bounds.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};

use slab::Slab;

use super::channel::{Channel, NONE};
use super::log::Log;
use super::publication::Publication;
use super::readers::{ReaderState, Readers};
use super::subscribers::Encoded;
use crate::memory::{KEPT, Trim};

/// The logs of a shard. Channels take turns in their fan-outs, so that a large one does not delay small
/// ones.
pub(super) struct Logs<E> {
    logs: Slab<Log<E>>,
    /// Logs with publications that wait for their fan-out, each once.
    turns: VecDeque<u32>,
    /// Logs of channels without history that have dropped publications which readers have yet to get.
    sweeps: VecDeque<u32>,
    /// Logs that are full and whose owners have been told so.
    pub(super) full: BTreeSet<u32>,
    /// Publications that stay after their fan-out, in the order of eviction. Some have been dropped
    /// since.
    order: VecDeque<Retained>,
    /// Closed logs that keep their slot and their room for the next ones.
    spare: Vec<u32>,
    next_generation: u32,
    publications: u64,
    bytes: u64,
    /// Number of deliveries that wait.
    waiting: u64,
    log_bytes_max: u64,
}

/// A publication in a log. It is stale if the slot has another log now.
struct Retained {
    log: u32,
    generation: u32,
    sequence: u64,
}

/// Number of closed logs that keep their room at most.
const SPARE_MAX: usize = 32;
/// Number of publications that one call of `evict_oldest` visits at most.
const EVICTION_SCAN_MAX: usize = 4096;

impl<E: Encoded> Logs<E> {
    pub(super) fn new(log_bytes_max: u64) -> Self {
        Logs {
            logs: Slab::new(),
            turns: VecDeque::new(),
            sweeps: VecDeque::new(),
            full: BTreeSet::new(),
            order: VecDeque::new(),
            spare: Vec::new(),
            next_generation: 0,
            publications: 0,
            bytes: 0,
            waiting: 0,
            log_bytes_max,
        }
    }

    pub(super) fn publications(&self) -> u64 {
        self.publications
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The log of a channel. A new log starts at the sequence number `next`.
    pub(super) fn open(&mut self, key: u32, channel: &mut Channel, next: u64) -> u32 {
        if channel.log == NONE {
            let spare = self.spare.pop();
            channel.log = spare.unwrap_or_else(|| self.logs.insert(Log::new()) as u32);
            self.next_generation = self.next_generation.wrapping_add(1);
            let log = &mut self.logs[channel.log as usize];
            log.open(key, channel.keeps_history, next);
            log.generation = self.next_generation;
        }
        channel.log
    }

    /// Appends a publication to a log, for the first `listed` subscribers of the channel.
    pub(super) fn push(&mut self, log: u32, listed: u32, publication: Publication) {
        let this = &mut self.logs[log as usize];
        let before = this.bytes();
        this.push(publication, listed);
        self.bytes += this.bytes() - before;
        self.publications += 1;
        self.waiting += u64::from(listed);
        if listed > 0 && !this.has_turn {
            this.has_turn = true;
            self.turns.push_back(log);
        }
    }

    /// Closes the gap that one of `len` listed subscribers leaves. `moved(from, to)` moves another one into
    /// it; while publications wait for their fan-out there may be several to move.
    pub(super) fn close_gap(
        &mut self,
        log: u32,
        gap: u32,
        len: u32,
        mut moved: impl FnMut(u32, u32),
    ) {
        match self.logs.get_mut(log as usize) {
            Some(log) => {
                let closed = log.fanout.close_gap(gap, len, moved);
                log.handed_out(closed.finished);
                self.waiting -= closed.cancelled;
            }
            None if gap < len - 1 => moved(len - 1, gap),
            None => {}
        }
    }

    /// Whether fan-outs or sweeps are left.
    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty() || !self.sweeps.is_empty()
    }

    pub(super) fn next_turn(&mut self) -> Option<u32> {
        self.turns.pop_front()
    }

    /// Ends a turn. Returns whether the log is idle, so that it can be closed.
    pub(super) fn end_turn(&mut self, log: u32) -> bool {
        if !self.logs[log as usize].fanout.is_empty() {
            self.turns.push_back(log);
            return false;
        }
        self.turns.trim();
        self.logs[log as usize].has_turn = false;
        self.logs[log as usize].is_idle()
    }

    /// Records deliveries of the publication whose fan-out it is.
    pub(super) fn delivered(&mut self, log: u32, sequence: u64, deliveries: usize) {
        let this = &mut self.logs[log as usize];
        let done = this.fanout.delivered(deliveries);
        this.handed_out(usize::from(done));
        self.waiting -= deliveries as u64;
        self.measure(log, sequence);
    }

    /// Measures a publication again.
    pub(super) fn measure(&mut self, log: u32, sequence: u64) {
        let more = self.logs[log as usize].measure(sequence);
        self.bytes = self.bytes.wrapping_add_signed(more);
    }

    /// Drops the publications that no subscriber needs any more.
    pub(super) fn trim(&mut self, log: u32) {
        while self.logs[log as usize].is_done() {
            self.pop(log);
        }
        let this = &mut self.logs[log as usize];
        while let Some(sequence) = this.take_unordered() {
            self.order.push_back(Retained { log, generation: this.generation, sequence });
        }
        if self.order.len() as u64 > 2 * self.publications + KEPT as u64 {
            let logs = &self.logs;
            self.order.retain(|retained| retained.find(logs).is_some());
        }
        self.order.trim();
    }

    fn pop(&mut self, log: u32) {
        self.bytes -= self.logs[log as usize].pop();
        self.publications -= 1;
    }

    /// Whether the log has reached its bound and its oldest publication must stay.
    pub(super) fn is_full(&self, log: u32) -> bool {
        let log = &self.logs[log as usize];
        log.bytes() > self.log_bytes_max && log.is_held()
    }

    /// Whether a full log has room again.
    pub(super) fn has_room(&self, log: u32) -> bool {
        let log = &self.logs[log as usize];
        log.bytes() <= self.log_bytes_max / 2 || !log.is_held()
    }

    /// Drops the oldest publications beyond the log's bound, except for the newest one.
    pub(super) fn evict(&mut self, log: u32, readers: &mut Readers, now: u64) {
        while self.logs[log as usize].bytes() > self.log_bytes_max
            && !self.is_held(log, readers, now)
            && self.logs[log as usize].len() > 1
        {
            self.drop_oldest(log);
        }
    }

    /// Whether the oldest publication of a log must stay: its fan-out is not over, or a reader that is not
    /// slow has yet to take it. Marks readers that have become slow.
    pub(super) fn is_held(&mut self, log: u32, readers: &mut Readers, now: u64) -> bool {
        let this = &mut self.logs[log as usize];
        while let Some(holder) = this.holder() {
            let reader = &readers[holder];
            if !readers.is_slow(reader.member, now) {
                return true;
            }
            let cursor = reader.cursor;
            readers[holder].state = ReaderState::Slow;
            this.remove_reader(cursor, holder);
            this.add_reader(cursor, holder, ReaderState::Slow);
        }
        this.is_held()
    }

    /// Drops the oldest publication of a log, which slow readers may have yet to take.
    fn drop_oldest(&mut self, log: u32) {
        self.pop(log);
        let this = &mut self.logs[log as usize];
        if !this.keeps_history && !this.is_swept && this.overrun().is_some() {
            this.is_swept = true;
            self.sweeps.push_back(log);
        }
    }

    /// Drops the oldest publications of all logs, apart from those that must stay, until no more than
    /// `bytes_max` bytes are left. Visits a bounded number of publications.
    pub(super) fn evict_oldest(&mut self, bytes_max: u64, readers: &mut Readers, now: u64) {
        for _ in 0..self.order.len().min(EVICTION_SCAN_MAX) {
            if self.bytes <= bytes_max {
                break;
            }
            let retained = self.order.pop_front().expect("just counted");
            let Some(base) = retained.find(&self.logs).map(Log::base) else { continue };
            // Older publications of the log had to stay before. They come later in the order.
            for _ in base..=retained.sequence {
                if self.is_held(retained.log, readers, now) {
                    self.order.push_back(retained);
                    break;
                }
                self.drop_oldest(retained.log);
            }
        }
    }

    /// The next log that waits for a sweep.
    pub(super) fn next_sweep(&mut self) -> Option<u32> {
        self.sweeps.front().copied()
    }

    /// Ends the sweep of the next log.
    pub(super) fn end_sweep(&mut self) {
        let log = self.sweeps.pop_front().expect("just looked");
        self.logs[log as usize].is_swept = false;
        self.sweeps.trim();
    }

    /// Drops the log of a channel whose last member has left, at once or when its turn comes.
    pub(super) fn forget(&mut self, log: u32) {
        if log == NONE {
            return;
        }
        let this = &mut self.logs[log as usize];
        assert!(this.has_no_readers());
        self.publications -= this.len() as u64;
        self.bytes -= this.clear();
        self.full.remove(&log);
        if !this.has_turn {
            self.remove(log);
        }
    }

    /// Removes a log that is idle.
    pub(super) fn remove(&mut self, key: u32) {
        let log = &mut self.logs[key as usize];
        log.channel = None;
        if std::mem::take(&mut log.is_swept) {
            self.sweeps.retain(|sweep| *sweep != key);
        }
        if self.spare.len() < SPARE_MAX && !log.is_large() {
            self.spare.push(key);
        } else {
            self.logs.remove(key as usize);
        }
        if self.logs.len() == self.spare.len() && self.logs.capacity() > KEPT {
            self.spare.clear();
            self.logs.clear();
            self.logs.trim();
        }
    }
}

impl Retained {
    /// The log, if it still has the publication.
    fn find<'l, E: Encoded>(&self, logs: &'l Slab<Log<E>>) -> Option<&'l Log<E>> {
        let log = logs.get(self.log as usize)?;
        (log.generation == self.generation && log.base() <= self.sequence).then_some(log)
    }
}

impl<E> Index<u32> for Logs<E> {
    type Output = Log<E>;

    fn index(&self, log: u32) -> &Log<E> {
        &self.logs[log as usize]
    }
}

impl<E> IndexMut<u32> for Logs<E> {
    fn index_mut(&mut self, log: u32) -> &mut Log<E> {
        &mut self.logs[log as usize]
    }
}
