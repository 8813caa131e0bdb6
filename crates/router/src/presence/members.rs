//! The members of one channel: 24 bytes each, and two entries of an index in channels that are not tiny.

use slab::Slab;

use std::sync::Arc;

use super::HERE;
use super::member::{Count, Meta, Node, PresentMember, UserName};
use super::table::Table;
use crate::channels::Origin;
use crate::channels::name::Hashing;
use crate::memory::Trim;

/// One connection of a user in a channel.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) origin: Origin,
    /// The name is shared with the session that has sent it.
    pub(super) user: UserName,
    /// The version of the member, never 0.
    pub(super) stamp: u32,
    pub(super) node: Node,
    flags: u8,
}

/// A property of a member.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Flag {
    /// Some watcher may know this version.
    Known = 1,
    /// The member is in the list of joins of the channel's window.
    Fresh = 2,
    /// Its connection is lost, and its grace runs.
    Leaving = 4,
    /// It has metadata.
    Meta = 8,
    /// The index knows other connections of its user.
    Others = 16,
}

const _: () = assert!(size_of::<Option<Record>>() == 24);
/// An index has two tables. They have a byte of control for each slot, and 7/16 to 7/8 of the slots are full,
/// so a member takes 35 to 47 bytes beside its metadata and the name of its user, which its session has.
const SLOT_BYTES: usize = size_of::<u32>() + 1;
const _: () = assert!(size_of::<Option<Record>>() + 2 * SLOT_BYTES * 16 / 7 <= 50);

/// The members of a channel, under small keys.
pub(super) struct Members {
    records: Slab<Record>,
    users: u32,
    /// Number of members of other nodes.
    pub(super) foreign: u32,
    /// The metadata of members that have some, by their keys.
    metas: Option<Box<Table<(u32, Meta)>>>,
    index: Option<Box<Index>>,
}

/// Finds members by connection and by user.
struct Index {
    conns: Table<u32>,
    /// One member of each user.
    users: Table<u32>,
    /// The members of each user that has several, as a ring.
    rings: Table<Link>,
}

/// A member in the ring of its user.
#[derive(Clone, Copy)]
struct Link {
    key: u32,
    before: u32,
    after: u32,
}

/// Room that is added at a time, beside an eighth.
const RECORDS_ADDED: usize = 4;
/// With this number of members a channel needs no index.
const TINY: usize = 16;

impl Record {
    /// A version that nobody knows yet.
    pub(super) fn new(node: Node, origin: Origin, user: UserName, stamp: u32) -> Self {
        Record { origin, user, stamp, node, flags: 0 }
    }

    pub(super) fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    /// Sets a property. Returns whether the member had it.
    pub(super) fn set(&mut self, flag: Flag, value: bool) -> bool {
        let before = self.is(flag);
        self.flags = if value { self.flags | flag as u8 } else { self.flags & !(flag as u8) };
        before
    }

    fn is_of(&self, node: Node, origin: Origin) -> bool {
        self.node == node && self.origin == origin
    }
}

impl Members {
    pub(super) fn new() -> Self {
        Members { records: Slab::new(), users: 0, foreign: 0, metas: None, index: None }
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

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.records.iter().map(|(key, record)| (key as u32, record))
    }

    /// All keys are below this.
    pub(super) fn keys_end(&self) -> u32 {
        self.records.capacity() as u32
    }

    /// The member, as watchers see it.
    pub(super) fn shown(&self, key: u32) -> PresentMember {
        let Record { node, origin, stamp, ref user, .. } = self.records[key as usize];
        let meta = self.meta(key).cloned();
        PresentMember { node, origin, stamp, replaces: 0, user: user.clone(), meta }
    }

    /// All members, as watchers see them. From now on some watcher may know them.
    pub(super) fn show_all(&mut self) -> Arc<[PresentMember]> {
        for (_, record) in &mut self.records {
            record.set(Flag::Known, true);
        }
        self.records.iter().map(|(key, _)| self.shown(key as u32)).collect()
    }

    /// The members of this node. From now on some watcher, on another node, may know them.
    pub(super) fn show_here(&mut self) -> Vec<PresentMember> {
        for (_, record) in &mut self.records {
            let is_here = record.node == HERE;
            is_here.then(|| record.set(Flag::Known, true));
        }
        let here = self.iter().filter(|(_, record)| record.node == HERE);
        here.map(|(key, _)| self.shown(key)).collect()
    }

    /// Number of members of this node.
    pub(super) fn here(&self) -> usize {
        self.len().saturating_sub(self.foreign as usize)
    }

    // ---- metadata ----

    pub(super) fn meta(&self, key: u32) -> Option<&Meta> {
        if !self.records[key as usize].is(Flag::Meta) {
            return None;
        }
        let metas = self.metas.as_ref().expect("a member has metadata");
        metas.find(hash_key(key), |(of, _)| *of == key).map(|(_, meta)| meta)
    }

    pub(super) fn set_meta(&mut self, key: u32, meta: Option<Meta>) {
        let has = meta.is_some();
        let had = self.records[key as usize].set(Flag::Meta, has);
        let hash = |(key, _): &(u32, Meta)| hash_key(*key);
        if had {
            let metas = self.metas.as_mut().expect("a member has metadata");
            metas.remove(hash_key(key), |(of, _)| *of == key, hash);
            if metas.len() == 0 && !has {
                self.metas = None;
            }
        }
        if let Some(meta) = meta {
            self.metas.get_or_insert_with(|| Box::new(Table::new())).insert((key, meta), hash);
        }
    }

    // ---- members ----

    /// The key of the member of a connection.
    pub(super) fn find(&self, hashing: Hashing, node: Node, origin: Origin) -> Option<u32> {
        let Some(index) = &self.index else {
            let found = self.iter().find(|(_, record)| record.is_of(node, origin));
            return found.map(|(key, _)| key);
        };
        let is = |key: &u32| self.records[*key as usize].is_of(node, origin);
        index.conns.find(hash_conn(hashing, node, origin), is).copied()
    }

    /// Adds a member whose connection has none. Returns its key.
    pub(super) fn insert(&mut self, hashing: Hashing, record: Record) -> u32 {
        self.foreign += u32::from(record.node != HERE);
        if self.records.len() == self.records.capacity() {
            // Twice the room, as `Slab` would take, is more than most members take.
            self.records.reserve_exact(self.records.len() / 8 + RECORDS_ADDED);
        }
        let key = self.records.insert(record) as u32;
        let is_first = match &mut self.index {
            Some(index) => index.insert(&mut self.records, key, hashing),
            None => self.is_only(key),
        };
        self.users += u32::from(is_first);
        if self.index.is_none() && self.records.len() > TINY {
            self.index = Some(Box::new(Index::of(&mut self.records, hashing)));
        }
        key
    }

    /// Removes a member with its metadata.
    pub(super) fn remove(&mut self, hashing: Hashing, key: u32) -> Record {
        self.set_meta(key, None);
        let is_last = match &mut self.index {
            Some(index) => index.remove(&mut self.records, key, hashing),
            None => self.is_only(key),
        };
        self.users -= u32::from(is_last);
        let record = self.records.remove(key as usize);
        self.foreign -= u32::from(record.node != HERE);
        if self.records.len() < TINY / 2 && self.index.take().is_some() {
            for (_, record) in &mut self.records {
                record.set(Flag::Others, false);
            }
        }
        self.records.trim();
        record
    }

    /// Whether no other member has the same user, in a channel without an index.
    fn is_only(&self, key: u32) -> bool {
        let user = &self.records[key as usize].user;
        self.iter().filter(|(_, record)| record.user == *user).count() == 1
    }
}

impl Index {
    fn of(records: &mut Slab<Record>, hashing: Hashing) -> Self {
        let mut index = Index { conns: Table::new(), users: Table::new(), rings: Table::new() };
        let keys: Vec<u32> = records.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            index.insert(records, key, hashing);
        }
        index
    }

    /// Adds a member. Returns whether it is the first of its user.
    fn insert(&mut self, records: &mut Slab<Record>, key: u32, hashing: Hashing) -> bool {
        let Record { ref user, .. } = records[key as usize];
        self.conns.insert(key, |key| records[*key as usize].hash(hashing));
        let is = |other: &u32| records[*other as usize].user == *user;
        let Some(&other) = self.users.find(hash_user(hashing, user), is) else {
            self.users.insert(key, |key| hash_user(hashing, &records[*key as usize].user));
            return true;
        };
        // The ring of one member is not stored.
        if !records[other as usize].set(Flag::Others, true) {
            self.rings.insert(Link { key: other, before: other, after: other }, Link::hash);
        }
        records[key as usize].set(Flag::Others, true);
        let after = std::mem::replace(&mut self.link(other).after, key);
        self.link(after).before = key;
        self.rings.insert(Link { key, before: other, after }, Link::hash);
        false
    }

    /// Removes a member. Returns whether it was the last of its user.
    fn remove(&mut self, records: &mut Slab<Record>, key: u32, hashing: Hashing) -> bool {
        let is = |other: &u32| *other == key;
        let record = &records[key as usize];
        let hash = record.hash(hashing);
        self.conns.remove(hash, is, |key| records[*key as usize].hash(hashing));
        let hash = hash_user(hashing, &record.user);
        if !record.is(Flag::Others) {
            let of = |key: &u32| hash_user(hashing, &records[*key as usize].user);
            self.users.remove(hash, is, of);
            return true;
        }
        let Link { before, after, .. } = self.unlink(key);
        if before == after {
            self.unlink(after);
            records[after as usize].set(Flag::Others, false);
        } else {
            self.link(before).after = after;
            self.link(after).before = before;
        }
        if let Some(entry) = self.users.find_mut(hash, is) {
            *entry = after;
        }
        false
    }
}

impl Index {
    fn link(&mut self, key: u32) -> &mut Link {
        self.rings.find_mut(hash_key(key), |link| link.key == key).expect("it is in a ring")
    }

    fn unlink(&mut self, key: u32) -> Link {
        let removed = self.rings.remove(hash_key(key), |link| link.key == key, Link::hash);
        removed.expect("it is in a ring")
    }
}

impl Link {
    fn hash(&self) -> u64 {
        hash_key(self.key)
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
    spread(hashing.hash(&bytes))
}

fn hash_user(hashing: Hashing, user: &str) -> u64 {
    spread(hashing.hash(user.as_bytes()))
}

/// Keys are small numbers that clients do not choose.
fn hash_key(key: u32) -> u64 {
    spread(key.wrapping_add(1))
}

/// A table looks at the lowest bits, at the highest seven of 64, and at some in between.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15) // 2^64 / the golden ratio, odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, users: u64) -> Record {
        let user = format!("user {}", number % users);
        Record::new((number % 3) as Node, Origin(number), user.into(), 1)
    }

    /// Members are found and users counted, with an index and without, whether users have one connection, two
    /// or all, and the room of many is given back.
    #[test]
    fn members_are_found() {
        let hashing = Hashing::new(3);
        for count in [1_u64, 16, 17, 9000] {
            for users in [count, count.div_ceil(2), 1] {
                let mut members = Members::new();
                let mut insert = |number| members.insert(hashing, record(number, users));
                let mut keys: Vec<(u64, u32)> =
                    (0..count).map(|number| (number, insert(number))).collect();
                assert_eq!(members.count(), Count { clients: count, users });
                // Some from the middle, then the others from the first on.
                keys.sort_by_key(|(number, _)| (number % 5 != 2, *number));
                let mut left = vec![count / users; users as usize];
                (0..count % users).for_each(|user| left[user as usize] += 1);
                for (number, key) in keys {
                    let node = (number % 3) as Node;
                    assert_eq!(members.find(hashing, node, Origin(number)), Some(key));
                    assert_eq!(members.find(hashing, node + 1, Origin(number)), None);
                    members.set_meta(key, Some(Meta::new(&number.to_le_bytes())));
                    assert_eq!(members.shown(key).meta, Some(Meta::new(&number.to_le_bytes())));
                    assert_eq!(members.remove(hashing, key).origin, Origin(number));
                    assert_eq!(members.find(hashing, node, Origin(number)), None);
                    left[(number % users) as usize] -= 1;
                    if number % 50 == 0 || count < 50 {
                        let users = left.iter().filter(|left| **left > 0).count() as u64;
                        assert_eq!(members.count().users, users, "{count}: without {number}");
                    }
                }
                assert_eq!(members.count(), Count::default());
                assert!(members.index.is_none() && members.metas.is_none());
                assert!(members.records.capacity() <= crate::memory::KEPT);
            }
        }
    }
}
