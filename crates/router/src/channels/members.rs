//! The subscriptions of each member of this shard.

use std::mem;

use super::list::List;
use crate::names::Member;

/// The memberships of all members, by member. The table keeps its size for as long as the shard lives,
/// like the slots of its connections.
pub(super) struct Members {
    lists: Vec<List<Membership>>,
    memberships: u64,
}

/// One subscription in a member's list. The channel's [`Subscriber`](super::channel::Subscriber), the
/// pending join or the reader is the other half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    /// The channel's key.
    pub(super) channel: u32,
    place: u32,
}

/// The place of a member in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberPlace {
    /// At this place of the channel's list.
    Listed(u32),
    /// In no list yet: the owner has not answered this join.
    Joining(u32),
    /// In no list: this reader is behind.
    Behind(u32),
}

/// The upper two bits of `Membership::place`. There are fewer than 2^30 of each kind.
const KIND: u32 = 3 << 30;
const JOINING: u32 = 1 << 30;
const BEHIND: u32 = 2 << 30;

const _: () = assert!(size_of::<Membership>() == 8);
/// A member's record, with two memberships inline.
const _: () = assert!(size_of::<List<Membership>>() == 24);

impl Membership {
    pub(super) fn new(channel: u32, place: MemberPlace) -> Self {
        let (kind, key) = match place {
            MemberPlace::Listed(place) => (0, place),
            MemberPlace::Joining(join) => (JOINING, join),
            MemberPlace::Behind(reader) => (BEHIND, reader),
        };
        assert!(key & KIND == 0, "there are too many memberships");
        Membership { channel, place: kind | key }
    }

    pub(super) fn place(self) -> MemberPlace {
        let key = self.place & !KIND;
        match self.place & KIND {
            0 => MemberPlace::Listed(key),
            JOINING => MemberPlace::Joining(key),
            _ => MemberPlace::Behind(key),
        }
    }
}

impl Members {
    /// No memberships, with room for `room` members.
    pub(super) fn new(room: usize) -> Self {
        Members { lists: Vec::with_capacity(room), memberships: 0 }
    }

    /// Number of memberships of all members.
    pub(super) fn memberships(&self) -> u64 {
        self.memberships
    }

    /// The member's subscriptions, in no order.
    pub(super) fn of(&self, member: Member) -> &[Membership] {
        self.lists.get(member as usize).map_or(&[], |list| list)
    }

    /// Adds a membership and returns its index.
    pub(super) fn add(&mut self, member: Member, membership: Membership) -> u32 {
        let members = member as usize + 1;
        if members > self.lists.len() {
            if members > self.lists.capacity() {
                self.lists.reserve_exact(members + members / 8 - self.lists.len());
            }
            self.lists.resize_with(members, List::new);
        }
        let list = &mut self.lists[member as usize];
        list.push(membership);
        self.memberships += 1;
        list.len() as u32 - 1
    }

    /// Sets the place of the member in a channel.
    pub(super) fn place(&mut self, member: Member, index: u32, place: MemberPlace) {
        let membership = &mut self.lists[member as usize][index as usize];
        *membership = Membership::new(membership.channel, place);
    }

    /// Removes one membership. Also returns the membership that has its index now, if there is one.
    pub(super) fn remove(
        &mut self,
        member: Member,
        index: u32,
    ) -> (Membership, Option<Membership>) {
        let list = &mut self.lists[member as usize];
        let removed = list[index as usize];
        list.swap_remove(index as usize);
        self.memberships -= 1;
        (removed, list.get(index as usize).copied())
    }

    /// Removes all memberships of a member.
    pub(super) fn leave(&mut self, member: Member) -> List<Membership> {
        let Some(list) = self.lists.get_mut(member as usize) else { return List::new() };
        self.memberships -= list.len() as u64;
        mem::replace(list, List::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A membership returns the place that it was made with, of all three kinds.
    #[test]
    fn places_are_told_apart() {
        for key in [0, 7, JOINING - 1] {
            for place in
                [MemberPlace::Listed(key), MemberPlace::Joining(key), MemberPlace::Behind(key)]
            {
                assert_eq!(Membership::new(3, place).place(), place);
            }
        }
    }

    /// When one of several memberships ends, the last takes its index.
    #[test]
    fn the_last_takes_the_index() {
        let mut members = Members::new(0);
        for channel in 0..3 {
            members.add(9, Membership::new(channel, MemberPlace::Listed(channel)));
        }
        let (removed, moved) = members.remove(9, 0);
        assert_eq!((removed.channel, moved.map(|moved| moved.channel)), (0, Some(2)));
        let (removed, moved) = members.remove(9, 1);
        assert_eq!((removed.channel, moved.is_none()), (1, true));
        assert_eq!((members.of(9).len(), members.memberships()), (1, 1));
        assert_eq!((members.leave(9).len(), members.leave(1000).len()), (1, 0));
        assert_eq!((members.of(9).len(), members.memberships()), (0, 0));
    }
}
