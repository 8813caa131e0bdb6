//! One channel as one shard sees it: its subscribers here.

use super::list::List;
use crate::{Member, Shard};

/// A channel that members of this shard are subscribed to, or have asked to be. A cache line with its
/// name.
pub(super) struct Channel {
    /// Contiguous: publications are handed out by slices of it.
    pub(super) subscribers: List<Subscriber>,
    /// Members who have asked and not withdrawn, and whom the owner has not answered.
    pub(super) pending: u32,
    /// How many the owner was told there are.
    pub(super) reported: u32,
    /// What waits for subscribers; `NONE` if nothing does.
    pub(super) fanout: u32,
    pub(super) owner: Shard,
    /// The owner has answered: publications reach this shard for as long as this record lives.
    pub(super) joined: bool,
    pub(super) keeps_history: bool,
}

/// One subscription, seen from the channel: half of what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    member: Member,
    /// Among the member's own memberships.
    pub(super) index: u32,
}

/// Stands for "no fan-out".
pub(super) const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<Subscriber>() == 8);
const _: () = assert!(super::name::ByName::<Channel>::SLOT_BYTES == 64);

impl Subscriber {
    pub(super) fn new(member: Member, index: u32) -> Self {
        Subscriber { member, index }
    }

    /// Who it is.
    pub fn member(&self) -> Member {
        self.member
    }
}

impl Channel {
    pub(super) fn new(owner: Shard, keeps_history: bool) -> Self {
        let subscribers = List::new();
        let fanout = NONE;
        Channel { subscribers, pending: 0, reported: 0, fanout, owner, joined: false, keeps_history }
    }

    /// Members who are subscribed or have asked to be.
    pub(super) fn members(&self) -> u32 {
        self.subscribers.len() as u32 + self.pending
    }
}
