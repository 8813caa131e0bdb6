//! A hash table in parts. A single table moves all entries when it grows, which takes tens of milliseconds
//! for 100,000 members; here at most a part grows at a time.

use hashbrown::HashTable;

/// A table of small entries, such as keys, which it finds by hash and comparison.
pub(super) struct Table<T> {
    /// One part, or [`PARTS`] of them.
    parts: Vec<HashTable<T>>,
    len: usize,
}

/// Parts of a large table.
const PARTS: usize = 256;
/// A table with more entries has parts: 4,096 are moved in less than 1 ms.
const LARGE: usize = 4096;
/// A table with parts that has fewer entries is one part again.
const SMALL: usize = LARGE / 4;
/// A part keeps room for this many entries and gives the rest back.
const KEPT: usize = 32;

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Table { parts: vec![HashTable::new()], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The part of a hash. A part itself looks at the lowest bits and at the highest seven.
    fn part(&self, hash: u64) -> usize {
        (hash >> 40) as usize % self.parts.len()
    }

    pub(super) fn find(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts[self.part(hash)].find(hash, is)
    }

    pub(super) fn find_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let part = self.part(hash);
        self.parts[part].find_mut(hash, is)
    }

    /// Adds an entry. `of` is the hash of an entry.
    pub(super) fn insert(&mut self, entry: T, of: impl Fn(&T) -> u64) {
        if self.len >= LARGE && self.parts.len() == 1 {
            self.divide(PARTS, &of);
        }
        let hash = of(&entry);
        let part = self.part(hash);
        self.parts[part].insert_unique(hash, entry, &of);
        self.len += 1;
    }

    /// Removes an entry, and gives back room that is not used any more.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        is: impl FnMut(&T) -> bool,
        of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let at = self.part(hash);
        let part = &mut self.parts[at];
        let (entry, _) = part.find_entry(hash, is).ok()?.remove();
        self.len -= 1;
        if part.capacity() > KEPT && part.len() <= part.capacity() / 8 {
            part.shrink_to(part.len() * 2, &of);
        }
        if self.len < SMALL && self.parts.len() > 1 {
            self.divide(1, &of);
        }
        Some(entry)
    }

    fn divide(&mut self, parts: usize, of: &impl Fn(&T) -> u64) {
        let before = std::mem::take(&mut self.parts);
        self.parts.resize_with(parts, HashTable::new);
        for entry in before.into_iter().flatten() {
            let hash = of(&entry);
            let part = self.part(hash);
            self.parts[part].insert_unique(hash, entry, of);
        }
    }

    /// The number of entries for which there is room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.parts.iter().map(HashTable::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: &u32) -> u64 {
        u64::from(*number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Entries are found in one part and in many, until they are removed, and the room of many is given
    /// back.
    #[test]
    fn entries_are_found() {
        let mut table = Table::new();
        let count = 3 * LARGE as u32;
        for number in 0..count {
            table.insert(number, of);
        }
        assert_eq!((table.len(), table.parts.len()), (count as usize, PARTS));
        // No part is so large that growing it takes long.
        assert!(table.parts.iter().all(|part| part.len() < 3 * count as usize / PARTS));
        for number in 0..count {
            assert_eq!(table.find(of(&number), |entry| *entry == number), Some(&number));
            assert_eq!(table.remove(of(&number), |entry| *entry == number, of), Some(number));
            assert_eq!(table.find_mut(of(&number), |entry| *entry == number), None);
        }
        assert!(table.len() == 0 && table.parts.len() == 1 && table.capacity() <= KEPT);
        assert_eq!(table.remove(of(&1), |entry| *entry == 1, of), None);
    }
}
