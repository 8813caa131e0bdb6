//! The members of one channel: 32 bytes each, and an index in channels that are not tiny.

use hashbrown::HashTable;
use slab::Slab;

use super::member::{Count, Meta, Node};
use super::users::spread;
use crate::channels::Origin;
use crate::channels::name::Hashing;
use crate::memory::Trim;

/// One connection of a user in a channel.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) origin: Origin,
    pub(super) meta: Option<Meta>,
    /// The user's key in `Users`.
    pub(super) user: u32,
    /// The version of the member, never 0.
    pub(super) stamp: u32,
    /// The newest version that some watcher may know; 0 is none.
    pub(super) known: u32,
    pub(super) node: Node,
    /// Whether the member is in the list of joins of the channel's window.
    pub(super) is_fresh: bool,
    /// Whether its connection is lost, and its grace runs.
    pub(super) is_leaving: bool,
}

/// An entry of the table of connections: the member's key.
type Conn = u32;
/// An entry of the table of users: the user's key and the number of its connections.
type Connections = (u32, u32);

/// A member takes at most 50 bytes beside its metadata and the name of its user, in full tables, which
/// have a byte of control for each entry and are 7/8 full.
const _: () = assert!(
    size_of::<Option<Record>>() + (size_of::<Conn>() + 1 + size_of::<Connections>() + 1) * 8 / 7
        <= 50
);
const _: () = assert!(size_of::<Option<Record>>() == 32);

/// The members of a channel, under small keys.
pub(super) struct Members {
    records: Slab<Record>,
    users: u32,
    /// Number of members of other nodes.
    pub(super) foreign: u32,
    index: Option<Box<Index>>,
}

struct Index {
    conns: HashTable<Conn>,
    users: HashTable<Connections>,
}

/// With this number of members a channel needs no index.
const TINY: usize = 16;

impl Members {
    pub(super) fn new() -> Self {
        Members { records: Slab::new(), users: 0, foreign: 0, index: None }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn count(&self) -> Count {
        Count { clients: self.records.len() as u64, users: u64::from(self.users) }
    }

    pub(super) fn get(&self, key: u32) -> Option<&Record> {
        self.records.get(key as usize)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut Record> {
        self.records.get_mut(key as usize)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut().map(|(_, record)| record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.records.iter().map(|(key, record)| (key as u32, record))
    }

    /// All keys are below this.
    pub(super) fn keys_end(&self) -> u32 {
        self.records.capacity() as u32
    }

    /// The key of the member of a connection.
    pub(super) fn find(&self, hashing: Hashing, node: Node, origin: Origin) -> Option<u32> {
        let is = |record: &Record| record.node == node && record.origin == origin;
        let Some(index) = &self.index else {
            return self.iter().find(|(_, record)| is(record)).map(|(key, _)| key);
        };
        let hash = hash_conn(hashing, node, origin);
        index.conns.find(hash, |key| is(&self.records[*key as usize])).copied()
    }

    /// Adds a member whose connection has none. Returns its key.
    pub(super) fn insert(&mut self, hashing: Hashing, record: Record) -> u32 {
        let (user, node, origin) = (record.user, record.node, record.origin);
        self.foreign += u32::from(node != super::HERE);
        let key = self.records.insert(record) as u32;
        if self.index.is_none() {
            let of_user = self.records.iter().filter(|(_, record)| record.user == user).count();
            self.users += u32::from(of_user == 1);
            if self.records.len() > TINY {
                self.index = Some(Box::new(Index::of(&self.records, hashing)));
            }
            return key;
        }
        let Members { records, index: Some(index), users, .. } = self else { unreachable!() };
        let conn_hash = |key: &Conn| records[*key as usize].hash(hashing);
        index.conns.insert_unique(hash_conn(hashing, node, origin), key, conn_hash);
        *users += u32::from(index.add(user));
        key
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, hashing: Hashing, key: u32) -> Record {
        let record = self.records.remove(key as usize);
        self.foreign -= u32::from(record.node != super::HERE);
        match &mut self.index {
            None => {
                let mut others = self.records.iter();
                let is_last = !others.any(|(_, other)| other.user == record.user);
                self.users -= u32::from(is_last);
            }
            Some(index) => {
                self.users -= u32::from(index.remove(record.hash(hashing), key, record.user));
                if self.records.len() < TINY / 2 {
                    self.index = None;
                } else {
                    index.trim(&self.records, hashing);
                }
            }
        }
        self.records.trim();
        record
    }
}

impl Record {
    fn hash(&self, hashing: Hashing) -> u64 {
        hash_conn(hashing, self.node, self.origin)
    }
}

fn hash_conn(hashing: Hashing, node: Node, Origin(origin): Origin) -> u64 {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&origin.to_le_bytes());
    bytes[8..].copy_from_slice(&node.to_le_bytes());
    spread(hashing.hash(&bytes).into())
}

fn hash_user(&(user, _): &Connections) -> u64 {
    // Keys are small numbers that clients do not choose.
    spread(u64::from(user) + 1)
}

impl Index {
    fn of(records: &Slab<Record>, hashing: Hashing) -> Self {
        let mut index = Index { conns: HashTable::new(), users: HashTable::new() };
        for (key, record) in records {
            let hash = |key: &Conn| records[*key as usize].hash(hashing);
            index.conns.insert_unique(record.hash(hashing), key as u32, hash);
            index.add(record.user);
        }
        index
    }

    /// Counts a connection of a user. Returns whether it is the first.
    fn add(&mut self, user: u32) -> bool {
        let hash = hash_user(&(user, 0));
        match self.users.find_mut(hash, |(known, _)| *known == user) {
            Some((_, connections)) => {
                *connections += 1;
                false
            }
            None => {
                self.users.insert_unique(hash, (user, 1), hash_user);
                true
            }
        }
    }

    /// Removes a connection of a user. Returns whether it was the last.
    fn remove(&mut self, hash: u64, key: u32, user: u32) -> bool {
        match self.conns.find_entry(hash, |known| *known == key) {
            Ok(entry) => _ = entry.remove(),
            Err(_) => unreachable!("every member is in the table"),
        }
        let found = self.users.find_entry(hash_user(&(user, 0)), |(known, _)| *known == user);
        let Ok(mut entry) = found else { unreachable!("every user is in the table") };
        let (_, connections) = entry.get_mut();
        *connections -= 1;
        if *connections > 0 {
            return false;
        }
        entry.remove();
        true
    }

    fn trim(&mut self, records: &Slab<Record>, hashing: Hashing) {
        if self.conns.len() <= self.conns.capacity() / 8 {
            let hash = |key: &Conn| records[*key as usize].hash(hashing);
            self.conns.shrink_to(self.conns.len() * 2, hash);
        }
        if self.users.len() <= self.users.capacity() / 8 {
            self.users.shrink_to(self.users.len() * 2, hash_user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, user: u32) -> Record {
        Record {
            origin: Origin(number),
            meta: None,
            user,
            stamp: 1,
            known: 0,
            node: (number % 3) as Node,
            is_fresh: false,
            is_leaving: false,
        }
    }

    /// Members are found and users counted, with an index and without, and the room of many is given
    /// back.
    #[test]
    fn members_are_found() {
        let hashing = Hashing::new(3);
        for count in [1_u64, 16, 17, 5000] {
            let mut members = Members::new();
            let users = count.div_ceil(2);
            let keys: Vec<u32> = (0..count)
                .map(|number| members.insert(hashing, record(number, (number % users) as u32)))
                .collect();
            assert_eq!(members.count(), Count { clients: count, users });
            for (number, key) in (0..count).zip(keys) {
                let node = (number % 3) as Node;
                assert_eq!(members.find(hashing, node, Origin(number)), Some(key));
                assert_eq!(members.find(hashing, node + 1, Origin(number)), None);
                assert_eq!(members.remove(hashing, key).origin, Origin(number));
                assert_eq!(members.find(hashing, node, Origin(number)), None);
            }
            assert_eq!(members.count(), Count::default());
            assert!(members.index.is_none() && members.records.capacity() <= crate::memory::KEPT);
        }
    }
}
