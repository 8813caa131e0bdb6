//! One channel on a shard with subscribers.

use super::list::List;
use crate::names::{Member, Shard};

/// A channel with subscribers on this shard, pending ones included. With its name it takes a cache
/// line.
pub(super) struct Channel {
    /// The subscribers that have caught up. The list is contiguous: publications are handed out by
    /// slices of it.
    pub(super) subscribers: List<Subscriber>,
    /// Number of members that are not in the list, because their join is pending or they are behind.
    pub(super) unlisted: u32,
    /// The number of subscribers that was last reported to the owner.
    pub(super) reported: u32,
    /// The channel's log; `NONE` while no publication waits and no member is behind.
    pub(super) log: u32,
    pub(super) owner: Shard,
    /// The owner has answered a join: publications reach this shard for as long as this record lives.
    pub(super) joined: bool,
    pub(super) keeps_history: bool,
}

/// One subscription in a channel's list. The member's [`Membership`](super::members::Membership) is
/// the other half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    pub(super) member: Member,
    /// The index of the subscription among those of the member.
    pub(super) index: u32,
}

/// Stands for "no log".
pub(super) const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<Subscriber>() == 8);
const _: () = assert!(super::name::ByName::<Channel>::SLOT_BYTES == 64);

impl Channel {
    pub(super) fn new(owner: Shard, keeps_history: bool) -> Self {
        let (subscribers, log, joined) = (List::new(), NONE, false);
        Channel { subscribers, unlisted: 0, reported: 0, log, owner, joined, keeps_history }
    }

    /// Number of members that are subscribed, pending ones included.
    pub(super) fn members(&self) -> u32 {
        self.subscribers.len() as u32 + self.unlisted
    }
}
