//! Names of channels. A name is hashed once, when a command arrives, and travels with its hash.

use std::sync::Arc;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use slab::Slab;

use crate::names::Shard;

/// A channel's name with its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelName {
    /// The hash of `text` under the seed that all shards share.
    pub hash: u32,
    /// The name.
    pub text: Arc<str>,
}

impl ChannelName {
    /// Whether this is the channel's name. The same allocation needs no look at the text: an owner has
    /// its name from the first shard that subscribed.
    pub(crate) fn is(&self, text: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.text, text) || self.text == *text
    }
}

/// The hash of names: the same on all shards, and not predictable by clients, which choose the names.
#[derive(Clone, Copy)]
pub(crate) struct Hashing(SipHasher13);

impl Hashing {
    pub(crate) fn new(seed: u64) -> Self {
        Hashing(SipHasher13::new_with_keys(seed, 0))
    }

    pub(crate) fn hash(&self, bytes: &[u8]) -> u32 {
        self.0.hash(bytes) as u32
    }
}

/// The owner of the channels with this hash, of `shards` shards. The upper bits choose it, because the
/// lower ones choose the bucket of a table.
pub(crate) fn owner(hash: u32, shards: u16) -> Shard {
    ((u64::from(hash) * u64::from(shards)) >> 32) as Shard
}

/// Values under small keys, found by name.
pub(crate) struct ByName<T> {
    entries: HashTable<Entry>,
    values: Slab<(ChannelName, T)>,
}

/// An entry of the table. It has the hash, so that growing and searching need not read the values.
struct Entry {
    hash: u32,
    key: u32,
}

/// An empty table keeps room for this many entries and gives the rest back.
const KEPT: usize = 256;

impl<T> ByName<T> {
    /// Bytes of a value in its slot, its place in the table not counted.
    pub(crate) const SLOT_BYTES: usize = size_of::<(ChannelName, T)>();

    pub(crate) fn new() -> Self {
        ByName { entries: HashTable::new(), values: Slab::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn find(&self, hash: u32, text: &str) -> Option<u32> {
        let same = |entry: &Entry| entry.hash == hash && *self.name(entry.key).text == *text;
        self.entries.find(spread(hash), same).map(|entry| entry.key)
    }

    /// Stores `value` under a name that is not here yet.
    pub(crate) fn insert(&mut self, name: ChannelName, value: T) -> u32 {
        let hash = name.hash;
        let key = self.values.insert((name, value)) as u32;
        self.entries.insert_unique(spread(hash), Entry { hash, key }, Entry::spread);
        key
    }

    /// Removes a value. Its key may be used again at once.
    pub(crate) fn remove(&mut self, key: u32) -> (ChannelName, T) {
        let (name, value) = self.values.remove(key as usize);
        match self.entries.find_entry(spread(name.hash), |entry| entry.key == key) {
            Ok(entry) => _ = entry.remove(),
            Err(_) => unreachable!("every value is in the table"),
        }
        if self.entries.capacity() > KEPT && self.entries.len() <= self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2, Entry::spread);
            self.values.shrink_to_fit(); // As far as the last one that is used.
        }
        if self.values.is_empty() && self.values.capacity() > KEPT {
            self.values = Slab::new();
        }
        (name, value)
    }

    pub(crate) fn name(&self, key: u32) -> &ChannelName {
        &self.values[key as usize].0
    }

    pub(crate) fn value(&self, key: u32) -> &T {
        &self.values[key as usize].1
    }

    pub(crate) fn value_mut(&mut self, key: u32) -> &mut T {
        &mut self.values[key as usize].1
    }

    /// The name and the value under `key`, if there are any.
    pub(crate) fn get(&self, key: u32) -> Option<(&ChannelName, &T)> {
        self.values.get(key as usize).map(|(name, value)| (name, value))
    }

    /// The value under `key`, if there is one.
    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.values.get_mut(key as usize).map(|(_, value)| value)
    }

    /// All keys are below this.
    pub(crate) fn keys_end(&self) -> u32 {
        self.values.capacity() as u32
    }
}

impl Entry {
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// The table looks at the lowest bits and at the highest seven of 64.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15) // 2^64 / the golden ratio, odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(hashing: &Hashing, text: &str) -> ChannelName {
        ChannelName { hash: hashing.hash(text.as_bytes()), text: Arc::from(text) }
    }

    /// Every shard owns about as many channels as any other, also where the number of shards and the
    /// size of the tables are powers of two.
    #[test]
    fn owners_are_spread() {
        let hashing = Hashing::new(7);
        for shards in [1, 3, 8, 64] {
            let mut owned = vec![0; usize::from(shards)];
            for channel in 0..64_000_u32 {
                owned[usize::from(owner(hashing.hash(&channel.to_le_bytes()), shards))] += 1;
            }
            let even = 64_000 / i32::from(shards);
            assert!(owned.iter().all(|owned| (even * 4 / 5..even * 6 / 5).contains(owned)));
        }
    }

    /// The hash depends on the seed, so that clients cannot predict it.
    #[test]
    fn hashes_depend_on_the_seed() {
        assert_ne!(Hashing::new(1).hash(b"channel"), Hashing::new(2).hash(b"channel"));
        assert_eq!(Hashing::new(1).hash(b"channel"), Hashing::new(1).hash(b"channel"));
    }

    /// Values are found by name until they are removed, also those whose hashes are the same.
    #[test]
    fn names_are_found() {
        let mut channels = ByName::new();
        let [a, b] = ["a", "b"].map(|text| {
            channels.insert(ChannelName { hash: 5, text: Arc::from(text) }, text.to_uppercase())
        });
        assert_eq!((channels.find(5, "a"), channels.find(5, "b")), (Some(a), Some(b)));
        assert_eq!((channels.find(5, "c"), channels.find(6, "a")), (None, None));
        assert_eq!(channels.remove(a).1, "A");
        assert_eq!((channels.find(5, "a"), channels.find(5, "b")), (None, Some(b)));
        assert_eq!((channels.value(b).as_str(), channels.len()), ("B", 1));
    }

    /// The room that a burst of channels took is given back.
    #[test]
    fn a_burst_is_given_back() {
        let (hashing, mut channels) = (Hashing::new(1), ByName::new());
        let keys: Vec<u32> = (0..40 * KEPT)
            .map(|number| channels.insert(name(&hashing, &number.to_string()), number))
            .collect();
        for key in keys {
            channels.remove(key);
        }
        assert!(channels.entries.capacity() <= KEPT && channels.values.capacity() == 0);
    }
}
