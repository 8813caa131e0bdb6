//! Holds: a channel's history that stays, whatever the retention, until readers have read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Shard;

/// The holds on one channel's history.
#[derive(Default)]
pub(super) struct Holds {
    /// The first offset that each holder needs.
    offsets: BTreeSet<(u64, Holder)>,
    holders: BTreeMap<Holder, Hold>,
}

/// A reader that is behind, by its shard and its id there.
pub(super) type Holder = (Shard, u32);

#[derive(Clone, Copy)]
struct Hold {
    offset: u64,
    until: u64,
}

impl Holds {
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// The lowest offset that any holder needs; the greatest number without holders.
    pub(super) fn lowest(&self) -> u64 {
        self.offsets.first().map_or(u64::MAX, |(offset, _)| *offset)
    }

    /// Holds history from `offset` on for the holder until the time `until`. Returns the time at which its
    /// hold before would have lapsed, if it had one.
    pub(super) fn set(&mut self, holder: Holder, offset: u64, until: u64) -> Option<u64> {
        let before = self.release(holder);
        self.offsets.insert((offset, holder));
        self.holders.insert(holder, Hold { offset, until });
        before
    }

    /// Ends the hold of a holder. Returns the time at which it would have lapsed, if there was one.
    pub(super) fn release(&mut self, holder: Holder) -> Option<u64> {
        let Hold { offset, until } = self.holders.remove(&holder)?;
        self.offsets.remove(&(offset, holder));
        Some(until)
    }
}
