//! Holds: a channel's history that stays, whatever the retention, until readers have read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Shard;

/// The holds on one channel's history.
#[derive(Default)]
pub(super) struct Holds {
    /// The first index that each holder needs.
    firsts: BTreeSet<(u64, Holder)>,
    holders: BTreeMap<Holder, Hold>,
}

/// A reader that is behind, by its shard and its id there.
pub(super) type Holder = (Shard, u32);

#[derive(Clone, Copy)]
struct Hold {
    first: u64,
    until: u64,
}

impl Holds {
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// All holders, with the times at which their holds lapse.
    pub(super) fn holders(&self) -> impl Iterator<Item = (Holder, u64)> {
        self.holders.iter().map(|(holder, hold)| (*holder, hold.until))
    }

    /// The lowest index that any holder needs; the greatest number without holders.
    pub(super) fn lowest(&self) -> u64 {
        self.firsts.first().map_or(u64::MAX, |(first, _)| *first)
    }

    /// Holds history from the index `first` on for the holder until the time `until`. Returns the time at which its
    /// hold before would have lapsed, if it had one.
    pub(super) fn set(&mut self, holder: Holder, first: u64, until: u64) -> Option<u64> {
        let before = self.release(holder);
        self.firsts.insert((first, holder));
        self.holders.insert(holder, Hold { first, until });
        before
    }

    /// Ends the hold of a holder. Returns the time at which it would have lapsed, if there was one.
    pub(super) fn release(&mut self, holder: Holder) -> Option<u64> {
        let Hold { first, until } = self.holders.remove(&holder)?;
        self.firsts.remove(&(first, holder));
        Some(until)
    }
}
