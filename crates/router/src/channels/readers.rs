//! Readers, and how long their members keep the server waiting.

use std::collections::{HashMap, VecDeque};
use std::ops::{Index, IndexMut};

use slab::Slab;

use super::publication::Publication;
use crate::memory::Trim;
use crate::names::Member;

/// A subscription whose member is behind in the channel.
pub(super) struct Reader {
    pub(super) member: Member,
    /// The index of the subscription among those of the member.
    pub(super) index: u32,
    /// The channel's key.
    pub(super) channel: u32,
    /// Its id for the channel's owner, unique among the readers of the shard.
    pub(super) id: u32,
    pub(super) state: ReaderState,
    /// Whether the owner holds history for it. The hold may have lapsed.
    pub(super) held: bool,
    /// The sequence number of its next publication.
    pub(super) cursor: u64,
    /// Number of skipped publications that the member has not been told of.
    pub(super) dropped: u64,
}

const _: () = assert!(size_of::<Reader>() == 40);

impl Reader {
    /// Moves the cursor forward and counts the publications in between as dropped.
    pub(super) fn skip_to(&mut self, cursor: u64) {
        self.dropped = self.dropped.saturating_add(cursor - self.cursor);
        self.cursor = cursor;
    }
}

/// What a reader can expect of the log of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderState {
    /// It was not slow at the last check: the log keeps the publications that it has yet to get.
    Fast,
    /// It has kept the server waiting for too long: the log may drop its publications.
    Slow,
    /// Its connection ends: it gets nothing more.
    Ended,
}

/// A member that is behind in at least one channel.
#[derive(Default)]
struct MemberBehind {
    /// Its readers that have not ended, in the order of their turns.
    turns: VecDeque<u32>,
    /// Number of its readers, including ended ones.
    readers: u32,
    /// The moment at which it was last handed a publication.
    last_handed: Moment,
    /// Milliseconds for which it has kept the server waiting since it fell behind.
    waited: u64,
    slice: Slice,
}

/// A moment in time and in turns of the shard.
#[derive(Clone, Copy, Default)]
struct Moment {
    ms: u64,
    turn: u64,
}

/// A slice of history for one of a member's readers.
#[derive(Default)]
pub(super) enum Slice {
    #[default]
    None,
    /// The owner has been asked.
    Asked { reader: u32 },
    /// The owner has answered with consecutive publications from index `first` on, or none.
    Here { reader: u32, first: u64, publications: VecDeque<Publication> },
}

/// All readers of a shard that are behind.
pub(super) struct Readers {
    readers: Slab<Reader>,
    members: HashMap<Member, MemberBehind>,
    slow_grace_ms: u64,
    /// Turns of the shard, that is calls of `deliver`.
    turn: u64,
    /// The time of the last turn or pull.
    now: u64,
    next_id: u32,
}

/// A member that pulls within this many turns, or milliseconds, has not kept the server waiting.
const PROMPT_TURNS: u64 = 2;
const PROMPT_MS: u64 = 10;

impl Readers {
    pub(super) fn new(slow_grace_ms: u64) -> Self {
        let (readers, members) = (Slab::new(), HashMap::new());
        Readers { readers, members, slow_grace_ms, turn: 0, now: 0, next_id: 0 }
    }

    pub(super) fn begin_turn(&mut self, now: u64) {
        self.now = now;
        self.turn = self.turn.wrapping_add(1);
    }

    /// A new id for a reader.
    pub(super) fn next_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    pub(super) fn len(&self) -> usize {
        self.readers.len()
    }

    /// Members that are behind.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    pub(super) fn is_behind(&self, member: Member) -> bool {
        !self.is_empty() && self.members.contains_key(&member)
    }

    /// Adds a reader. Its turn comes after those of the member's other readers.
    pub(super) fn insert(&mut self, reader: Reader, now: u64) -> u32 {
        let last_handed = Moment { ms: now, turn: self.turn };
        let fresh = || MemberBehind { last_handed, ..MemberBehind::default() };
        let behind = self.members.entry(reader.member).or_insert_with(fresh);
        let key = self.readers.insert(reader) as u32;
        behind.turns.push_back(key);
        behind.readers += 1;
        key
    }

    /// Removes a reader and its slice. Also returns whether the member waited for that slice.
    pub(super) fn remove(&mut self, key: u32) -> (Reader, bool) {
        let reader = self.readers.remove(key as usize);
        self.readers.trim();
        let behind = self.members.get_mut(&reader.member).expect("it is behind");
        let waited = behind.drop_slice(key);
        if waited {
            // Its wait for the owner does not count as its own.
            behind.last_handed = Moment { ms: self.now, turn: self.turn };
        }
        behind.drop_turn(key);
        behind.readers -= 1;
        if behind.readers == 0 {
            self.members.remove(&reader.member);
            self.members.trim();
        }
        (reader, waited)
    }

    /// Drops the slice of a reader.
    pub(super) fn drop_slice(&mut self, key: u32) {
        let member = self.readers[key as usize].member;
        self.members.get_mut(&member).expect("it is behind").drop_slice(key);
    }

    /// Ends a reader: it gets nothing more, and has no more turns.
    pub(super) fn end(&mut self, key: u32) {
        let reader = &mut self.readers[key as usize];
        reader.state = ReaderState::Ended;
        let behind = self.members.get_mut(&reader.member).expect("it is behind");
        behind.drop_slice(key);
        behind.drop_turn(key);
    }

    /// Begins a pull: counts for how long the member has kept the server waiting.
    pub(super) fn begin_pull(&mut self, member: Member, now: u64) {
        let turn = self.turn;
        self.now = now;
        if let Some(behind) = self.members.get_mut(&member) {
            behind.waited = behind.waited.saturating_add(behind.waiting_ms(now, turn));
            behind.last_handed = Moment { ms: now, turn };
        }
    }

    /// The member's reader whose turn it is.
    pub(super) fn next(&self, member: Member) -> Option<u32> {
        self.members.get(&member)?.turns.front().copied()
    }

    /// Gives the turn to the member's next reader, unless part of a slice is left.
    pub(super) fn rotate(&mut self, member: Member) {
        let behind = self.members.get_mut(&member).expect("it is behind");
        if !matches!(behind.slice, Slice::Here { .. }) {
            behind.turns.rotate_left(1);
        }
    }

    /// Whether the member is slow. It stays so until it has caught up in all channels.
    pub(super) fn is_slow(&self, member: Member, now: u64) -> bool {
        let behind = &self.members[&member];
        behind.waited.saturating_add(behind.waiting_ms(now, self.turn)) > self.slow_grace_ms
    }

    /// The member's slice of history.
    pub(super) fn slice(&mut self, member: Member) -> &mut Slice {
        &mut self.members.get_mut(&member).expect("it is behind").slice
    }

    /// Stores the owner's answer for the reader with this id. Returns whether the member waits for it.
    pub(super) fn answered(
        &mut self,
        member: Member,
        id: u32,
        (first, publications): (u64, Vec<Publication>),
        now: u64,
    ) -> bool {
        let Some(behind) = self.members.get_mut(&member) else { return false };
        let Slice::Asked { reader } = behind.slice else { return false };
        if self.readers[reader as usize].id != id {
            return false;
        }
        behind.slice = Slice::Here { reader, first, publications: publications.into() };
        behind.last_handed = Moment { ms: now, turn: self.turn };
        true
    }
}

impl MemberBehind {
    /// Milliseconds for which the member has kept the server waiting since it was last handed a
    /// publication.
    fn waiting_ms(&self, now: u64, turn: u64) -> u64 {
        let ms = now.saturating_sub(self.last_handed.ms);
        let prompt = ms <= PROMPT_MS || turn.wrapping_sub(self.last_handed.turn) <= PROMPT_TURNS;
        match (prompt, &self.slice) {
            (true, _) | (_, Slice::Asked { .. }) => 0,
            _ => ms,
        }
    }

    fn drop_turn(&mut self, reader: u32) {
        // Mostly the first one is removed.
        if let Some(at) = self.turns.iter().position(|turn| *turn == reader) {
            self.turns.remove(at);
        }
    }

    /// Drops the slice of a reader. Returns whether the owner has yet to answer.
    fn drop_slice(&mut self, of: u32) -> bool {
        let asked = match self.slice {
            Slice::Asked { reader } if reader == of => true,
            Slice::Here { reader, .. } if reader == of => false,
            _ => return false,
        };
        self.slice = Slice::None;
        asked
    }
}

impl Index<u32> for Readers {
    type Output = Reader;

    fn index(&self, key: u32) -> &Reader {
        &self.readers[key as usize]
    }
}

impl IndexMut<u32> for Readers {
    fn index_mut(&mut self, key: u32) -> &mut Reader {
        &mut self.readers[key as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(member: Member) -> Reader {
        let (index, channel, id, held, cursor) = (0, 0, 7, false, 1);
        Reader { member, index, channel, id, state: ReaderState::Fast, held, cursor, dropped: 0 }
    }

    /// A member is slow once it has kept the server waiting for longer than the grace time in sum. Pulls
    /// within ten milliseconds or two turns do not count, and neither does a wait for the owner.
    #[test]
    fn only_the_members_own_time_counts() {
        let mut readers = Readers::new(100);
        let key = readers.insert(reader(3), 0);
        readers.begin_pull(3, 5000);
        assert!(!readers.is_slow(3, 5000), "no turn has passed");
        (0..3).for_each(|_| readers.begin_turn(0));
        assert!(!readers.is_slow(3, 5100) && readers.is_slow(3, 5101));
        readers.begin_pull(3, 5060);
        (0..3).for_each(|_| readers.begin_turn(0));
        readers.begin_pull(3, 5070);
        assert!(!readers.is_slow(3, 5070), "60 ms");
        *readers.slice(3) = Slice::Asked { reader: key };
        (0..3).for_each(|_| readers.begin_turn(0));
        assert!(!readers.is_slow(3, 9000), "the owner is slow");
        assert!(!readers.answered(3, 8, (1, Vec::new()), 9000));
        assert!(readers.answered(3, 7, (1, Vec::new()), 9000));
        (0..3).for_each(|_| readers.begin_turn(0));
        assert!(!readers.is_slow(3, 9040) && readers.is_slow(3, 9041));
        readers.begin_pull(3, 9041);
        assert!(readers.is_slow(3, 9041), "it stays slow");
        readers.remove(key);
        assert!(!readers.is_behind(3) && readers.is_empty());
    }

    /// A wait for the owner does not count either if the waiting reader is removed.
    #[test]
    fn a_wait_that_is_off_does_not_count() {
        let mut readers = Readers::new(100);
        let [asks, _] = [reader(3), reader(3)].map(|reader| readers.insert(reader, 0));
        *readers.slice(3) = Slice::Asked { reader: asks };
        (0..3).for_each(|_| readers.begin_turn(500));
        assert!(readers.remove(asks).1);
        (0..3).for_each(|_| readers.begin_turn(600));
        assert!(!readers.is_slow(3, 600) && readers.is_slow(3, 601));
    }
}
