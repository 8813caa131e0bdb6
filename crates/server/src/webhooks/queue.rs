//! The events that wait for one endpoint, in order and within a bound of bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use murre_core::Counter;
use tokio::sync::Notify;

/// The queue of an endpoint: shards add events, the endpoint's sender takes them in batches.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Notified when the queue is not empty any more, when a batch is full, and by [`hurry`](Self::hurry).
    changed: Notify,
    /// Notified when nothing waits and nothing is being sent any more.
    settled: Condvar,
    bytes_max: usize,
    /// With so many events a batch is full.
    batch_max: u32,
    pub(super) counts: Counts,
}

/// Numbers of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Events that the endpoint has taken.
    pub(super) delivered: Counter,
    /// Events that were dropped.
    pub(super) missed: Counter,
    /// Batches that the endpoint has taken.
    pub(super) batches: Counter,
    /// Requests that failed.
    pub(super) failed: Counter,
    /// Bytes of the events that wait.
    pub(super) bytes: Counter,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Bytes of all chunks.
    bytes: usize,
    /// Events in all chunks.
    events: u64,
    /// Events that were dropped after those that wait.
    missed: u64,
    /// A batch has been taken whose outcome is not known.
    is_sending: bool,
}

/// Events one after the other, each a line.
struct Chunk {
    /// Events that were dropped just before these.
    missed: u64,
    text: Vec<u8>,
    /// Where the first line begins that has not been taken.
    at: usize,
    /// When the first of them was added.
    since: Instant,
}

/// Events for one request, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Events that were dropped just before these.
    pub(super) missed: u64,
    pub(super) events: u32,
    /// Each event is a line.
    pub(super) lines: Vec<u8>,
}

/// The state of the events that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Nothing,
    /// Some, the oldest since then. They do not fill a batch.
    Since(Instant),
    /// A batch, or the number of events that were dropped, of which the endpoint has yet to learn.
    Batch,
}

/// A chunk takes further events until it has this number of bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes that a chunk counts for beside its text.
const CHUNK_COST: usize = 128;

impl Queue {
    pub(super) fn new(bytes_max: usize, batch_max: u32) -> Self {
        Queue {
            state: Mutex::default(),
            changed: Notify::new(),
            settled: Condvar::new(),
            bytes_max,
            batch_max,
            counts: Counts::default(),
        }
    }

    /// Adds events, each a line. If there is no room for all of them, all are dropped and counted.
    pub(super) fn add(&self, lines: &[u8], events: u32) {
        let mut state = self.lock();
        let before = state.waiting(self.batch_max);
        if !state.add(lines, events, self.bytes_max) {
            state.missed = state.missed.saturating_add(u64::from(events));
            self.counts.missed.add(u64::from(events));
        }
        self.counts.bytes.set(state.bytes as u64);
        let changed = before == Waiting::Nothing
            || before != Waiting::Batch && state.waiting(self.batch_max) == Waiting::Batch;
        drop(state);
        if changed {
            self.changed.notify_one();
        }
    }

    /// What waits.
    pub(super) fn waiting(&self) -> Waiting {
        self.lock().waiting(self.batch_max)
    }

    /// Returns after the queue has changed so that there may be a batch now.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Makes [`changed`](Self::changed) return.
    pub(super) fn hurry(&self) {
        self.changed.notify_one();
    }

    /// Takes the oldest events, or only their number if they were dropped. `None` if there are none. The
    /// caller reports the outcome by [`delivered`](Self::delivered) or [`lost`](Self::lost).
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        let batch = state.take(self.batch_max)?;
        state.is_sending = true;
        self.counts.bytes.set(state.bytes as u64);
        Some(batch)
    }

    /// The endpoint has taken a batch.
    pub(super) fn delivered(&self, batch: &Batch) {
        self.counts.delivered.add(u64::from(batch.events));
        self.counts.batches.add(1);
        self.settle(&mut self.lock());
    }

    /// The events of a batch are lost: the next batch has their number.
    pub(super) fn lost(&self, batch: &Batch) {
        let mut state = self.lock();
        let missed = batch.missed.saturating_add(u64::from(batch.events));
        self.counts.missed.add(u64::from(batch.events));
        let next = match state.chunks.front_mut() {
            Some(chunk) => &mut chunk.missed,
            None => &mut state.missed,
        };
        *next = next.saturating_add(missed);
        self.settle(&mut state);
    }

    fn settle(&self, state: &mut State) {
        state.is_sending = false;
        if state.is_settled() {
            self.settled.notify_all();
        }
    }

    /// Blocks until nothing waits and nothing is being sent, or until this moment. Returns the number of
    /// events that wait or were dropped without the endpoint knowing.
    pub(super) fn settle_until(&self, moment: Instant) -> u64 {
        let mut state = self.lock();
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if state.is_settled() || left.is_zero() {
                return state.events.saturating_add(state.missed);
            }
            let waited = self.settled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, lines: &[u8], events: u32, bytes_max: usize) -> bool {
        let joins = self.missed == 0
            && self.chunks.back().is_some_and(|chunk| chunk.text.len() < CHUNK_BYTES);
        let cost = if joins { lines.len() } else { lines.len().saturating_add(CHUNK_COST) };
        let bytes = self.bytes.saturating_add(cost);
        if bytes > bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.events = self.events.saturating_add(u64::from(events));
        match self.chunks.back_mut().filter(|_| joins) {
            Some(chunk) => chunk.text.extend_from_slice(lines),
            None => {
                let missed = std::mem::take(&mut self.missed);
                let chunk = Chunk { missed, text: lines.to_vec(), at: 0, since: Instant::now() };
                self.chunks.push_back(chunk);
            }
        }
        true
    }

    fn waiting(&self, batch_max: u32) -> Waiting {
        match self.chunks.front() {
            _ if self.events >= u64::from(batch_max) => Waiting::Batch,
            Some(chunk) => Waiting::Since(chunk.since),
            None if self.missed > 0 => Waiting::Batch,
            None => Waiting::Nothing,
        }
    }

    fn take(&mut self, batch_max: u32) -> Option<Batch> {
        let missed = match self.chunks.front_mut() {
            Some(chunk) => std::mem::take(&mut chunk.missed),
            None => std::mem::take(&mut self.missed),
        };
        let mut batch = Batch { missed, ..Batch::default() };
        while let Some(chunk) = self.chunks.front_mut()
            && chunk.missed == 0
            && batch.events < batch_max
        {
            let rest = &chunk.text[chunk.at..];
            let ends = rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let wanted = batch_max.saturating_sub(batch.events) as usize;
            let (mut lines, mut length) = (0_u32, 0);
            for (at, _) in ends.take(wanted) {
                (lines, length) = (lines.saturating_add(1), at.saturating_add(1));
            }
            batch.lines.extend_from_slice(&rest[..length]);
            batch.events = batch.events.saturating_add(lines);
            chunk.at = chunk.at.saturating_add(length);
            self.bytes = self.bytes.saturating_sub(length);
            self.events = self.events.saturating_sub(u64::from(lines));
            if chunk.at == chunk.text.len() {
                self.chunks.pop_front();
                self.bytes = self.bytes.saturating_sub(CHUNK_COST);
            }
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
        (batch.missed > 0 || batch.events > 0).then_some(batch)
    }

    fn is_settled(&self) -> bool {
        self.chunks.is_empty() && self.missed == 0 && !self.is_sending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Vec<u8> {
        format!("{{\"number\":{number}}}\n").into_bytes()
    }

    /// Bytes and events that wait.
    fn left(queue: &Queue) -> (usize, u64) {
        let state = queue.lock();
        (state.bytes, state.events)
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let lines = batch.lines.split_inclusive(|byte| *byte == b'\n');
        let number = |line: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(line).expect("a line");
            value["number"].as_u64().expect("a number")
        };
        lines.map(number).collect()
    }

    /// Batches have the events in order, at most so many, whatever pieces they came in.
    #[test]
    fn batches_are_in_order() {
        let queue = Queue::new(1 << 20, 3);
        assert_eq!((queue.waiting(), queue.take()), (Waiting::Nothing, None));
        queue.add(&[line(0), line(1)].concat(), 2);
        assert!(matches!(queue.waiting(), Waiting::Since(_)));
        queue.add(&[line(2), line(3), line(4)].concat(), 3);
        assert_eq!(queue.waiting(), Waiting::Batch);
        for expected in [&[0, 1, 2][..], &[3, 4]] {
            let batch = queue.take().expect("a batch");
            assert_eq!((numbers(&batch), batch.missed), (expected.to_vec(), 0));
            queue.delivered(&batch);
        }
        assert_eq!((queue.take(), left(&queue)), (None, (0, 0)));
        assert_eq!(queue.settle_until(Instant::now()), 0);
    }

    /// Events beyond the bound are dropped; the batch of the next event that is kept has their number, and no
    /// earlier one. A batch that is lost counts, too.
    #[test]
    fn gaps_are_told_in_their_place() {
        let queue = Queue::new(CHUNK_COST + 40, 10);
        queue.add(&line(0), 1);
        queue.add(&line(1), 1);
        queue.add(&[line(2), line(3)].concat(), 2);
        queue.add(&line(4), 1);
        let first = queue.take().expect("a batch");
        assert_eq!((numbers(&first), first.missed), (vec![0, 1], 0));
        queue.add(&line(5), 1);
        queue.lost(&first);
        let second = queue.take().expect("a batch");
        assert_eq!((numbers(&second), second.missed), (vec![5], 5));
        queue.lost(&second);
        // Nothing else comes, and the endpoint still learns of the gap.
        assert_eq!(queue.waiting(), Waiting::Batch);
        assert_eq!(queue.settle_until(Instant::now()), 6);
        let gap = queue.take().expect("a gap");
        assert_eq!((gap.events, gap.missed, gap.lines.len()), (0, 6, 0));
        queue.delivered(&gap);
        assert_eq!((queue.counts.missed.get(), queue.counts.delivered.get()), (6, 0));
        assert_eq!((queue.waiting(), queue.lock().bytes), (Waiting::Nothing, 0));
    }

    /// A queue beside a list, through random additions, batches and losses: the events and the gaps of all
    /// batches are those of the list, in its order, and the bound holds.
    #[test]
    fn agrees_with_a_list() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (bytes_max, batch_max) = (random.usize(200..5000), random.u32(1..20));
            let queue = Queue::new(bytes_max, batch_max);
            // What the endpoint knows: the next number that it expects.
            let (mut next, mut heard) = (0, 0);
            let hear = |queue: &Queue, heard: &mut u64, is_lost: bool| {
                let Some(batch) = queue.take() else { return false };
                assert!(batch.events <= batch_max);
                if is_lost {
                    queue.lost(&batch);
                    return true;
                }
                *heard += batch.missed;
                for number in numbers(&batch) {
                    assert_eq!(number, *heard, "{seed}");
                    *heard += 1;
                }
                queue.delivered(&batch);
                true
            };
            for _ in 0..400 {
                if random.u32(..3) > 0 {
                    let count = random.u64(1..8);
                    let lines = (next..next + count).flat_map(line).collect::<Vec<u8>>();
                    queue.add(&lines, count as u32);
                    next += count;
                } else {
                    hear(&queue, &mut heard, random.u32(..4) == 0);
                }
                assert!(queue.lock().bytes <= bytes_max, "{seed}");
            }
            while hear(&queue, &mut heard, false) {}
            assert_eq!((heard, left(&queue)), (next, (0, 0)), "{seed}");
            assert_eq!(queue.counts.delivered.get() + queue.counts.missed.get(), next, "{seed}");
            assert_eq!(queue.waiting(), Waiting::Nothing);
        }
    }
}
