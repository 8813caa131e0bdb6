//! The newest publications of one channel, and its count.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Payload, Position, Publication};

/// How much of a channel is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many publications at most; with 0, the channel has no history.
    pub size: u32,
    /// A publication is put out after this time.
    pub ttl_ms: u64,
}

/// A channel's history, at its owner.
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
        channel: &Arc<str>,
        newest: usize,
        limit: usize,
    ) -> Vec<Publication> {
        let publication = |at: usize| Publication {
            channel: channel.clone(),
            position: Some(Position {
                offset: self.position.offset - (self.kept.len() - 1 - at) as u64,
                ..self.position
            }),
            payload: self.kept[at].payload.clone(),
            except: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::Form;

    fn history(size: u32) -> History {
        History::new(Retention { size, ttl_ms: 10 }, 5)
    }

    fn payload(byte: u8) -> Payload {
        Payload { form: Form::Raw, bytes: Arc::from([byte]) }
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 5, offset }
    }

    fn bytes(publications: &[Publication]) -> Vec<(u64, u8)> {
        let bytes = |publication: &Publication| {
            (publication.position.expect("it has one").offset, publication.payload.bytes[0])
        };
        publications.iter().map(bytes).collect()
    }

    /// The newest are kept, as many as there may be, with their offsets.
    #[test]
    fn the_newest_are_kept() {
        let (channel, mut history) = (Arc::from("channel"), history(3));
        for byte in 1..=5 {
            assert_eq!(history.append(payload(byte), 0), at(u64::from(byte)));
        }
        assert_eq!(bytes(&history.publications(&channel, 3, 9)), [(3, 3), (4, 4), (5, 5)]);
        assert_eq!(bytes(&history.publications(&channel, 2, 1)), [(4, 4)]);
        assert_eq!(bytes(&history.publications(&channel, 0, 1)), []);
    }

    /// A reader has missed what came since, or it cannot be told what it missed.
    #[test]
    fn what_was_missed_is_there_or_not() {
        let mut history = history(3);
        assert_eq!((history.missed(at(0), 0), history.missed(at(1), 0)), (Some(0), None));
        for now in 0..5 {
            history.append(payload(0), now);
        }
        let missed = |from| history.missed(from, 5);
        assert_eq!([at(5), at(4), at(2)].map(missed), [Some(0), Some(1), Some(3)]);
        assert_eq!([at(1), at(6), Position { epoch: 4, offset: 5 }].map(missed), [None; 3]);
        // The one of moment 2 is past its time, though it has not been put out.
        assert_eq!((history.missed(at(3), 12), history.missed(at(2), 12)), (Some(2), None));
    }

    /// What is past its time is put out, a bounded number in one go; the count goes on.
    #[test]
    fn time_puts_out() {
        let mut history = history(100);
        for now in 0..40 {
            history.append(payload(0), now);
        }
        assert_eq!(history.deadline(), Some(10));
        assert_eq!((history.expire(30, 15), history.expire(30, 15)), (15, 6));
        assert_eq!((history.expire(30, 15), history.len(), history.deadline()), (0, 19, Some(31)));
        history.expire(1000, 1000);
        assert_eq!((history.len(), history.deadline(), history.position()), (0, None, at(40)));
    }

    /// Room grows up to the retention's size and is given back; the bytes are counted from it.
    #[test]
    fn room_follows_what_is_kept() {
        let mut history = history(100);
        let empty = history.bytes();
        for now in 0..150 {
            history.append(payload(0), now);
            let room = history.len().next_power_of_two().min(100);
            assert_eq!(history.kept.capacity(), room);
            assert_eq!(history.bytes(), empty + allocated(room * 32) + history.len() * 32);
        }
        for now in 50..200 {
            history.expire(now, 100);
            assert!(history.kept.capacity() <= 4 * history.len());
        }
        assert_eq!((history.bytes(), history.kept.capacity()), (empty, 0));
    }
}
