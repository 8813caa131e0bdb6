//! A growable table of values under small keys. The key that was freed last is used first.
//!
//! The `slab` crate, which the router uses, has keys of eight bytes and does not give memory back; a
//! connection has four bytes for a key.

/// Stands for "no key" where a key is stored in four bytes.
pub(crate) const NONE: u32 = u32::MAX;

/// Values under `u32` keys. When it becomes empty after a burst it frees its memory.
pub struct Pool<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    used: u32,
}

enum Slot<T> {
    Used(T),
    /// The next free key.
    Free(u32),
}

/// An empty pool keeps up to this many slots.
const KEPT_SLOTS: usize = 256;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool { slots: Vec::new(), free: NONE, used: 0 }
    }
}

impl<T> Pool<T> {
    /// Stores `value` and returns its key.
    pub fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if self.free == NONE {
            self.slots.push(Slot::Used(value));
            return self.slots.len() as u32 - 1;
        }
        let key = self.free;
        match std::mem::replace(&mut self.slots[key as usize], Slot::Used(value)) {
            Slot::Free(next) => self.free = next,
            Slot::Used(_) => unreachable!("a free key holds no value"),
        }
        key
    }

    /// Removes and returns the value under `key`, which must be in use. `insert` may return the key again
    /// at once.
    pub fn remove(&mut self, key: u32) -> T {
        let slot = std::mem::replace(&mut self.slots[key as usize], Slot::Free(self.free));
        let Slot::Used(value) = slot else { panic!("key {key} holds no value") };
        self.free = key;
        self.used -= 1;
        if self.used == 0 && self.slots.len() > KEPT_SLOTS {
            *self = Pool::default();
        }
        value
    }

    /// All values, each with its key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().zip(0..).filter_map(|(slot, key)| match slot {
            Slot::Used(value) => Some((key, value)),
            Slot::Free(_) => None,
        })
    }

    /// The value under `key`, which must be in use.
    pub fn get_mut(&mut self, key: u32) -> &mut T {
        match &mut self.slots[key as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => panic!("key {key} holds no value"),
        }
    }

    /// The value under `key`, which must be in use.
    pub fn get(&self, key: u32) -> &T {
        match &self.slots[key as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => panic!("key {key} holds no value"),
        }
    }

    /// How many values are stored.
    pub fn len(&self) -> u32 {
        self.used
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Freed keys are used again, last freed first, and values keep their keys.
    #[test]
    fn keys_are_reused() {
        let mut pool = Pool::default();
        let [a, b, c] = ["a", "b", "c"].map(|value| pool.insert(value));
        assert_eq!(pool.remove(a), "a");
        assert_eq!(pool.remove(c), "c");
        assert_eq!(pool.insert("d"), c);
        assert_eq!(pool.insert("e"), a);
        assert_eq!((*pool.get_mut(a), *pool.get_mut(b), *pool.get_mut(c)), ("e", "b", "d"));
        assert_eq!(pool.len(), 3);
    }

    /// The memory of a burst is freed when its last value is removed.
    #[test]
    fn a_burst_is_given_back() {
        let mut pool = Pool::default();
        let keys: Vec<u32> = (0..10 * KEPT_SLOTS).map(|value| pool.insert(value)).collect();
        for key in keys {
            pool.remove(key);
        }
        assert_eq!(pool.slots.capacity(), 0);
        assert!(pool.is_empty());
    }
}
