//! All logs of a shard: whose turn it is, and what may stay.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};

use slab::Slab;

use super::Publication;
use super::channel::{Channel, NONE};
use super::log::Log;
use super::readers::{ReaderState, Readers};
use super::subscribers::Encoded;
use crate::memory::{KEPT, Trim};

/// The logs of a shard. Channels take turns in their fan-outs, so that a large one does not hold up
/// small ones.
pub(super) struct Logs<E> {
    logs: Slab<Log<E>>,
    /// Logs in which something waits for its fan-out, each once.
    turns: VecDeque<u32>,
    /// Logs without history of which something was dropped that readers have yet to get.
    sweeps: VecDeque<u32>,
    /// Logs that are full, and whose owners were told so.
    pub(super) full: BTreeSet<u32>,
    /// Publications that are retained after their fan-out, in this order; some are gone.
    order: VecDeque<Retained>,
    /// Logs that are closed and keep their slot and their room, for the next ones.
    spare: Vec<u32>,
    next_generation: u32,
    publications: u64,
    bytes: u64,
    /// Deliveries that wait.
    waiting: u64,
    log_bytes_max: u64,
}

/// A publication in a log, which is stale if the log is another one now.
struct Retained {
    log: u32,
    generation: u32,
    sequence: u64,
}

/// As many logs that are over keep their room.
const SPARE_MAX: usize = 32;
/// Publications that one call of `evict_oldest` looks at.
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

    /// The log of a channel, whose next publication has this sequence number if it has no log yet.
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

    /// Puts a publication into the log of a channel that has subscribers.
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

    /// Closes the gap that one of `len` listed subscribers leaves: `moved(from, to)` moves another
    /// one. Only while something waits for the channel is there more than one to move.
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

    /// Whether a fan-out or a sweep is left to do.
    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty() || !self.sweeps.is_empty()
    }

    pub(super) fn next_turn(&mut self) -> Option<u32> {
        self.turns.pop_front()
    }

    /// A turn is over. Returns whether the log is over, too: then its channel is to forget it.
    pub(super) fn end_turn(&mut self, log: u32) -> bool {
        if !self.logs[log as usize].fanout.is_empty() {
            self.turns.push_back(log);
            return false;
        }
        self.turns.trim();
        self.logs[log as usize].has_turn = false;
        self.logs[log as usize].is_idle()
    }

    /// Some deliveries of a log's turn are made.
    pub(super) fn delivered(&mut self, log: u32, sequence: u64, deliveries: usize) {
        let this = &mut self.logs[log as usize];
        let done = this.fanout.delivered(deliveries);
        this.handed_out(usize::from(done));
        self.waiting -= deliveries as u64;
        self.measure(log, sequence);
    }

    /// Counts the bytes of a publication anew.
    pub(super) fn measure(&mut self, log: u32, sequence: u64) {
        let more = self.logs[log as usize].measure(sequence);
        self.bytes = self.bytes.wrapping_add_signed(more);
    }

    /// Drops what nobody needs any more.
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

    /// Whether the log has reached its bound because of what has to stay.
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

    /// Whether the oldest publication of a log has to stay: its fan-out is not over, or a reader that
    /// is not slow has yet to take it. Readers that have become slow do not count any more.
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

    /// Drops the oldest publication of a log, which some readers may have yet to take.
    fn drop_oldest(&mut self, log: u32) {
        self.pop(log);
        let this = &mut self.logs[log as usize];
        if !this.keeps_history && !this.is_swept && this.overrun().is_some() {
            this.is_swept = true;
            self.sweeps.push_back(log);
        }
    }

    /// Drops the oldest publications of all logs that may be dropped, until there are no more than
    /// `bytes_max`. Looks at a bounded number of them.
    pub(super) fn evict_oldest(&mut self, bytes_max: u64, readers: &mut Readers, now: u64) {
        for _ in 0..self.order.len().min(EVICTION_SCAN_MAX) {
            if self.bytes <= bytes_max {
                break;
            }
            let retained = self.order.pop_front().expect("just counted");
            let Some(base) = retained.find(&self.logs).map(Log::base) else { continue };
            // Older ones of the log had to stay before, and are in the order behind this one.
            for _ in base..=retained.sequence {
                if self.is_held(retained.log, readers, now) {
                    self.order.push_back(retained);
                    break;
                }
                self.drop_oldest(retained.log);
            }
        }
    }

    /// A log whose readers have lost their place.
    pub(super) fn next_sweep(&mut self) -> Option<u32> {
        self.sweeps.front().copied()
    }

    /// The readers of that log have their place again.
    pub(super) fn end_sweep(&mut self) {
        let log = self.sweeps.pop_front().expect("just looked");
        self.logs[log as usize].is_swept = false;
        self.sweeps.trim();
    }

    /// The channel has lost its last member here: its log goes, at once or when its turn comes.
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
    /// The log, if the publication is still in it.
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
