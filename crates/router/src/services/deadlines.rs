//! Deadlines of entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::entries::{Entries, Key};
use crate::memory::{KEPT, Trim};

/// The deadlines of one kind of entries.
///
/// The deadline of an entry that has ended before stays until it is due, comes to the top, or more than
/// half of all deadlines are of that kind.
#[derive(Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, Key)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, at: u64, key: Key) {
        self.heap.push(Reverse((at, key)));
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns an entry whose deadline has come. The entry may have ended.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Key> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// Drops deadlines of ended entries: those on top, so that `next` is the deadline of an entry, and all
    /// others once they outnumber the entries. Call it when an entry has ended.
    pub(super) fn trim<T>(&mut self, entries: &Entries<T>) {
        let is_there = |entry: &Reverse<(u64, Key)>| entries.get(entry.0.1).is_some();
        while self.heap.peek().is_some_and(|top| !is_there(top)) {
            self.heap.pop();
        }
        if self.heap.len() > 2 * entries.len() + KEPT {
            self.heap.retain(is_there);
        }
        self.heap.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::List;
    use super::*;

    /// However many entries end before their deadlines, the deadlines kept for them do not outnumber the
    /// entries, and the next deadline is that of an entry.
    #[test]
    fn ended_entries_are_forgotten() {
        let (mut deadlines, mut entries) = (Deadlines::default(), Entries::default());
        let mut list = List::default();
        let mut rng = fastrand::Rng::with_seed(3);
        let first = entries.insert(&mut list, 0);
        deadlines.push(0, first);
        let mut keys = Vec::new();
        for at in 1..20_000_u64 {
            let key = entries.insert(&mut list, at);
            deadlines.push(at, key);
            keys.push(key);
            // Many, then few.
            if keys.len() > if at < 10_000 { 3000 } else { 10 } {
                for _ in 0..2 {
                    entries.remove(&mut list, keys.swap_remove(rng.usize(0..keys.len())));
                    deadlines.trim(&entries);
                }
            }
            assert!(deadlines.heap.len() <= 2 * entries.len() + KEPT);
            assert_eq!(deadlines.next(), Some(0));
        }
        entries.remove(&mut list, first);
        deadlines.trim(&entries);
        let next = keys.iter().filter_map(|key| entries.get(*key)).min().copied();
        assert_eq!(deadlines.next(), next);
        assert!(deadlines.heap.capacity() < 500, "{}", deadlines.heap.capacity());
    }

    /// Deadlines come in order and not before their time.
    #[test]
    fn due_in_order() {
        let (mut deadlines, mut entries) = (Deadlines::default(), Entries::default());
        let mut list = List::default();
        let keys = [7, 3, 5].map(|at| {
            let key = entries.insert(&mut list, at);
            deadlines.push(at, key);
            key
        });
        let due: Vec<_> = std::iter::from_fn(|| deadlines.take_due(5)).collect();
        assert_eq!((due, deadlines.next()), (vec![keys[1], keys[2]], Some(7)));
    }
}
