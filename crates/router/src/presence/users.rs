//! The names of users, each stored once on the shard that owns the channels they are in.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::channels::name::Hashing;
use crate::memory::Trim;

/// Names of users under small keys, with the number of members that have each.
pub(super) struct Users {
    hashing: Hashing,
    names: Slab<(Arc<str>, u32)>,
    keys: HashTable<u32>,
}

/// An empty table keeps room for this many entries.
const KEPT: usize = 256;

impl Users {
    pub(super) fn new(hashing: Hashing) -> Self {
        Users { hashing, names: Slab::new(), keys: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, key: u32) -> &Arc<str> {
        &self.names[key as usize].0
    }

    /// The key of a name, for one more member.
    pub(super) fn acquire(&mut self, name: &Arc<str>) -> u32 {
        let Users { hashing, names, keys } = self;
        let hash = u64::from(hashing.hash(name.as_bytes()));
        let is_name = |key: &u32| names[*key as usize].0 == *name;
        if let Some(&key) = keys.find(spread(hash), is_name) {
            names[key as usize].1 += 1;
            return key;
        }
        let key = names.insert((name.clone(), 1)) as u32;
        let rehash = |key: &u32| spread(hashing.hash(names[*key as usize].0.as_bytes()).into());
        keys.insert_unique(spread(hash), key, rehash);
        key
    }

    /// Forgets the name with its last member.
    pub(super) fn release(&mut self, key: u32) {
        let Users { hashing, names, keys } = self;
        let (name, members) = &mut names[key as usize];
        *members -= 1;
        if *members > 0 {
            return;
        }
        let hash = spread(hashing.hash(name.as_bytes()).into());
        match keys.find_entry(hash, |known| *known == key) {
            Ok(entry) => _ = entry.remove(),
            Err(_) => unreachable!("every name is in the table"),
        }
        names.remove(key as usize);
        names.trim();
        if keys.capacity() > KEPT && keys.len() <= keys.capacity() / 8 {
            let rehash = |key: &u32| spread(hashing.hash(names[*key as usize].0.as_bytes()).into());
            keys.shrink_to(keys.len() * 2, rehash);
        }
    }
}

/// The table looks at the lowest bits and at the highest seven of 64.
pub(super) fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) // 2^64 / the golden ratio, odd
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name has one key for as long as it has members, and nothing is left of a burst.
    #[test]
    fn names_are_shared() {
        let mut users = Users::new(Hashing::new(7));
        let [a, b]: [Arc<str>; 2] = ["", "__proto__"].map(Arc::from);
        let keys = [users.acquire(&a), users.acquire(&b), users.acquire(&Arc::from(""))];
        assert_eq!((keys[0], users.len()), (keys[2], 2));
        assert!(keys[0] != keys[1] && **users.name(keys[1]) == *"__proto__");
        keys.into_iter().for_each(|key| users.release(key));
        let many: Vec<u32> =
            (0..40 * KEPT).map(|n| users.acquire(&Arc::from(n.to_string()))).collect();
        many.into_iter().for_each(|key| users.release(key));
        assert!(users.len() == 0 && users.keys.capacity() <= KEPT && users.names.capacity() == 0);
    }
}
