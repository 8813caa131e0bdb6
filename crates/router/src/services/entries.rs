//! A table of entries of one kind, each of which is in the list of its member.

use serde::{Deserialize, Serialize};

use crate::memory::KEPT;

/// The key of an entry, for as long as the entry exists.
///
/// Slots are used again; the generation tells an old key from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The slot: unique among the entries that exist at one time.
    pub index: u32,
    /// Tells entries in the same slot apart.
    pub generation: u32,
}

/// The list of one member's entries. The links are in the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List {
    first: u32,
    len: u32,
}

/// All entries of one kind on a shard. It gives its memory back whenever it becomes empty after a burst.
pub(super) struct Entries<T> {
    slots: Vec<Slot<T>>,
    /// The first free slot.
    free: u32,
    used: u32,
    /// The generation of the newest entry. All slots share the count, so it outlives them; a key comes
    /// again after 2^32 entries.
    generation: u32,
}

enum Slot<T> {
    Used(Entry<T>),
    /// The next free slot.
    Free(u32),
}

struct Entry<T> {
    generation: u32,
    previous: u32,
    next: u32,
    value: T,
}

/// No slot.
const NONE: u32 = u32::MAX;

impl Default for List {
    fn default() -> Self {
        List { first: NONE, len: 0 }
    }
}

impl List {
    pub(super) fn len(self) -> u32 {
        self.len
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Entries { slots: Vec::new(), free: NONE, used: 0, generation: 0 }
    }
}

impl<T> Entries<T> {
    /// Stores `value` at the front of `list`.
    pub(super) fn insert(&mut self, list: &mut List, value: T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let entry = Entry { generation, previous: NONE, next: list.first, value };
        let index = match self.free {
            NONE => {
                self.slots.push(Slot::Used(entry));
                self.slots.len() as u32 - 1
            }
            index => {
                let slot = std::mem::replace(&mut self.slots[index as usize], Slot::Used(entry));
                let Slot::Free(next) = slot else { panic!("slot {index} is not free") };
                self.free = next;
                index
            }
        };
        if list.first != NONE {
            self.entry(list.first).previous = index;
        }
        *list = List { first: index, len: list.len + 1 };
        self.used += 1;
        Key { index, generation }
    }

    /// Removes an entry, which must be in `list`.
    ///
    /// # Panics
    /// If there is no such entry.
    pub(super) fn remove(&mut self, list: &mut List, key: Key) -> T {
        assert!(self.get(key).is_some(), "{key:?} is not there");
        let slot = &mut self.slots[key.index as usize];
        let Slot::Used(entry) = std::mem::replace(slot, Slot::Free(self.free)) else {
            unreachable!("just looked")
        };
        self.free = key.index;
        match entry.previous {
            NONE => list.first = entry.next,
            previous => self.entry(previous).next = entry.next,
        }
        if entry.next != NONE {
            self.entry(entry.next).previous = entry.previous;
        }
        list.len -= 1;
        self.used -= 1;
        if self.used == 0 && self.slots.len() > KEPT {
            *self = Entries { generation: self.generation, ..Entries::default() };
        }
        entry.value
    }

    fn entry(&mut self, index: u32) -> &mut Entry<T> {
        match &mut self.slots[index as usize] {
            Slot::Used(entry) => entry,
            Slot::Free(_) => panic!("slot {index} is free"),
        }
    }

    fn find(&self, key: Key) -> Option<&Entry<T>> {
        match self.slots.get(key.index as usize)? {
            Slot::Used(entry) if entry.generation == key.generation => Some(entry),
            _ => None,
        }
    }

    /// The entry, if it still exists.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.find(key).map(|entry| &entry.value)
    }

    /// The entry, if it still exists.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize)? {
            Slot::Used(entry) if entry.generation == key.generation => Some(&mut entry.value),
            _ => None,
        }
    }

    /// The list's entries, the newest first.
    pub(super) fn of(&self, list: List) -> impl Iterator<Item = (Key, &T)> {
        let at = |index: u32| match self.slots.get(index as usize)? {
            Slot::Used(entry) => Some((index, entry)),
            Slot::Free(_) => None,
        };
        std::iter::successors(at(list.first), move |(_, entry)| at(entry.next))
            .map(|(index, entry)| (Key { index, generation: entry.generation }, &entry.value))
    }

    /// The list's newest entry.
    pub(super) fn first(&self, list: List) -> Option<Key> {
        self.of(list).next().map(|(key, _)| key)
    }

    /// Calls `each` for all entries of the list.
    pub(super) fn for_each(&mut self, list: List, mut each: impl FnMut(Key, &mut T)) {
        let mut index = list.first;
        while index != NONE {
            let entry = self.entry(index);
            each(Key { index, generation: entry.generation }, &mut entry.value);
            index = entry.next;
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.used as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists keep their entries in order while others are removed, and old keys find nothing.
    #[test]
    fn lists_and_names() {
        let (mut entries, mut lists) = (Entries::default(), [List::default(); 3]);
        let mut kept: [Vec<(Key, u32)>; 3] = Default::default();
        let mut gone = Vec::new();
        let mut rng = fastrand::Rng::with_seed(1);
        for value in 0..2000 {
            let which = rng.usize(0..3);
            let (list, keys) = (&mut lists[which], &mut kept[which]);
            if rng.u8(0..9) < 4 {
                keys.push((entries.insert(list, value), value));
            } else if !keys.is_empty() {
                let (key, value) = keys.remove(rng.usize(0..keys.len()));
                assert_eq!(entries.remove(list, key), value);
                gone.push(key);
            }
            let found: Vec<_> = entries.of(*list).map(|(key, value)| (key, *value)).collect();
            assert_eq!(found, keys.iter().copied().rev().collect::<Vec<_>>());
            assert_eq!(
                (list.len() as usize, entries.first(*list)),
                (keys.len(), found.first().map(|(key, _)| *key))
            );
        }
        assert!(gone.iter().all(|key| entries.get(*key).is_none()));
        assert_eq!(entries.len(), kept.iter().map(Vec::len).sum::<usize>());
    }

    /// The slots of a burst are given back, and old keys still find nothing.
    #[test]
    fn a_burst_is_given_back() {
        let (mut entries, mut list) = (Entries::default(), List::default());
        let keys: Vec<Key> = (0..10 * KEPT).map(|value| entries.insert(&mut list, value)).collect();
        for key in &keys {
            entries.remove(&mut list, *key);
        }
        assert_eq!((entries.slots.capacity(), entries.len(), list), (0, 0, List::default()));
        entries.insert(&mut list, 0);
        assert!(keys.iter().all(|key| entries.get(*key).is_none()));
    }
}
