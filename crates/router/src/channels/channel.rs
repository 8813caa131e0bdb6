//! One channel as one shard sees it: its subscribers here.

use super::list::List;
use crate::{Member, Shard};

/// A channel that members of this shard are subscribed to, or have asked to be. A cache line with
/// its name.
pub(super) struct Channel {
    /// The subscribers that have caught up. Contiguous: publications are handed out by slices of it.
    pub(super) subscribers: List<Subscriber>,
    /// Members that are not in the list: those that the owner has not answered, and those that are
    /// behind.
    pub(super) unlisted: u32,
    /// The number of subscribers that the owner was told.
    pub(super) reported: u32,
    /// The channel's log; `NONE` while nothing waits and nobody is behind.
    pub(super) log: u32,
    pub(super) owner: Shard,
    /// The owner has answered: publications reach this shard for as long as this record lives.
    pub(super) joined: bool,
    pub(super) keeps_history: bool,
}

/// One subscription in a channel's list: half of what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    pub(super) member: Member,
    /// Among the member's own memberships.
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

    /// Members that are subscribed or have asked to be.
    pub(super) fn members(&self) -> u32 {
        self.subscribers.len() as u32 + self.unlisted
    }
}
