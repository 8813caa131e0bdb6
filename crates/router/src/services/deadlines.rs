//! When entries end, if nothing ends them before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::entries::{Entries, Key};
use crate::memory::{KEPT, Trim};

/// The deadlines of one kind of entries.
///
/// That of an entry that has ended stays until it is due, comes to the top, or half of all are of
/// that kind.
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

    /// Takes an entry whose deadline has come. It may have ended.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Key> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// Forgets entries that have ended: those on top, so that `next` is somebody's, and all others
    /// once they are more than those that are there. To be called when one has ended.
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

    /// However many entries have ended before their deadlines, no more of these are kept than of
    /// those that are there, and the next one is that of an entry that is there.
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

    /// Deadlines come in order, not before their time.
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
