//! The newest publications of one topic, and its count.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Payload, Position, Publication};

/// How much of a topic is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many publications at most; with 0, the topic has no history.
    pub size: u32,
    /// A publication is put out after this time.
    pub ttl_ms: u64,
}

/// A topic's history, at its owner.
pub(super) struct History {
    retention: Retention,
    /// Of the newest publication, kept or not.
    position: Position,
    /// Oldest first; their offsets lead up to `position` without a gap, their times go up.
    kept: VecDeque<Kept>,
    payload_bytes: usize,
}

struct Kept {
    published: u64,
    payload: Payload,
}

const _: () = assert!(size_of::<Kept>() == 32);

impl History {
    pub(super) fn new(retention: Retention, epoch: u32) -> Self {
        let position = Position { epoch, offset: 0 };
        History { retention, position, kept: VecDeque::new(), payload_bytes: 0 }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// When the oldest publication is to be put out.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.kept.front().map(|oldest| self.end_of(oldest))
    }

    fn end_of(&self, kept: &Kept) -> u64 {
        kept.published.saturating_add(self.retention.ttl_ms)
    }

    /// Counts a publication and keeps it.
    pub(super) fn append(&mut self, payload: Payload, now: u64) -> Position {
        let size = self.retention.size as usize;
        if self.kept.len() == size {
            self.drop_oldest();
        }
        if self.kept.len() == self.kept.capacity() {
            let room = (self.kept.len() + 1).next_power_of_two().min(size);
            self.kept.reserve_exact(room - self.kept.len());
        }
        self.payload_bytes += shared_bytes(payload.bytes.len());
        self.kept.push_back(Kept { published: now, payload });
        self.position.offset += 1;
        self.position
    }

    /// How many of the newest publications a reader at `from` has missed; `None` if that cannot be
    /// known, or if not all of them are still there.
    pub(super) fn missed(&self, from: Position, now: u64) -> Option<usize> {
        if from.epoch != self.position.epoch {
            return None;
        }
        let missed = self.position.offset.checked_sub(from.offset)?;
        (missed <= self.fresh(now) as u64).then_some(missed as usize)
    }

    /// How many publications are not past their time, whether or not the others are still here.
    pub(super) fn fresh(&self, now: u64) -> usize {
        self.kept.len() - self.kept.partition_point(|kept| self.end_of(kept) <= now)
    }

    /// At most `limit` publications, from the oldest of the `newest` on.
    pub(super) fn publications(
        &self,
        topic: &Arc<str>,
        newest: usize,
        limit: usize,
    ) -> Vec<Publication> {
        let publication = |at: usize| Publication {
            topic: topic.clone(),
            position: Some(Position {
                offset: self.position.offset - (self.kept.len() - 1 - at) as u64,
                ..self.position
            }),
            payload: self.kept[at].payload.clone(),
        };
        let first = self.kept.len() - newest;
        (first..first + newest.min(limit)).map(publication).collect()
    }

    /// Puts out at most `max` publications that are past their time; returns how many.
    pub(super) fn expire(&mut self, now: u64, max: usize) -> usize {
        let expired = (self.kept.len() - self.fresh(now)).min(max);
        for _ in 0..expired {
            self.drop_oldest();
        }
        self.give_back();
        expired
    }

    /// Puts out the oldest publication before its time.
    pub(super) fn evict(&mut self) {
        self.drop_oldest();
        self.give_back();
    }

    fn drop_oldest(&mut self) {
        let oldest = self.kept.pop_front().expect("something is kept");
        self.payload_bytes -= shared_bytes(oldest.payload.bytes.len());
    }

    /// Shrinks when a quarter of the room is used.
    fn give_back(&mut self) {
        if self.kept.len() <= self.kept.capacity() / 4 {
            self.kept.shrink_to(self.kept.len());
        }
    }

    /// What it takes; the formula is at `Stats::history_bytes`.
    pub(super) fn bytes(&self) -> usize {
        let room = self.kept.capacity() * size_of::<Kept>();
        allocated(size_of::<History>()) + allocated(room) + self.payload_bytes
    }
}

/// What bytes behind an `Arc` take: two counts come with them.
pub(super) fn shared_bytes(len: usize) -> usize {
    allocated(2 * size_of::<usize>() + len)
}

/// What the allocator takes for so many bytes: its own 8, rounded up (glibc; others differ little).
fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => (bytes + 8).next_multiple_of(16).max(32),
    }
}
