//! A growable table of values under small keys, the last freed key used first.

/// Stands for "no key" where a key is stored in four bytes.
pub(crate) const NONE: u32 = u32::MAX;

/// Values under `u32` keys. Gives its memory back whenever it becomes empty after a burst.
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

/// An empty pool keeps this many slots; what a burst added beyond them goes back.
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

    /// Takes the value under `key` out; the key may be used again at once.
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

    /// Freed keys are used again, last freed first, and values stay where they were put.
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

    /// A burst's slots are given back when the last value of it leaves.
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
