//! How many bad tokens each address has sent, in a table with a bound.

use std::collections::HashMap;
use std::time::Duration;

use murre_core::{BucketState, TokenBucket};

/// A token bucket for each address that has sent bad tokens lately.
pub(super) struct Failures {
    bucket: TokenBucket,
    states: HashMap<u32, BucketState>,
}

/// Addresses in the table: 64 KiB.
const ADDRESSES_MAX: usize = 4096;
/// An empty table keeps room for so many.
const KEPT: usize = 64;

impl Failures {
    /// Allows each address `per_second` bad tokens, and twice as many at once.
    pub(super) fn new(per_second: u32) -> Self {
        let bucket = TokenBucket::new(per_second, per_second.saturating_mul(2));
        Failures { bucket, states: HashMap::new() }
    }

    /// Whether another token of `address` may be checked at `now`.
    pub(super) fn allows(&self, address: u32, now: Duration) -> bool {
        self.states.get(&address).is_none_or(|&state| self.bucket.allows(state, now))
    }

    /// Counts a bad token of `address`.
    pub(super) fn count(&mut self, address: u32, now: Duration) {
        if self.states.len() >= ADDRESSES_MAX && !self.states.contains_key(&address) {
            self.make_room(now);
        }
        self.bucket.take(self.states.entry(address).or_default(), now);
    }

    /// Forgets addresses whose buckets are full.
    pub(super) fn trim(&mut self, now: Duration) {
        self.states.retain(|_, state| state.owed(now) > 0);
        if self.states.len() <= self.states.capacity() / 4 {
            self.states.shrink_to(KEPT);
        }
    }

    /// Addresses in the table.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Forgets the half of the addresses that have failed least, so that the cost of searching for
    /// them is shared by as many that come.
    fn make_room(&mut self, now: Duration) {
        self.trim(now);
        if self.states.len() < ADDRESSES_MAX {
            return;
        }
        let mut owed: Vec<_> = self.states.values().map(|state| state.owed(now)).collect();
        let (_, &mut median, _) = owed.select_nth_unstable(ADDRESSES_MAX / 2);
        self.states.retain(|_, state| state.owed(now) > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    /// However many addresses fail, the table has its bound, and those that fail most stay in it.
    #[test]
    fn the_worst_are_remembered() {
        let mut failures = Failures::new(100);
        for worst in 0..100 {
            for _ in 0..200 {
                failures.count(worst, NOW);
            }
        }
        for address in 100..100_000 {
            failures.count(address, NOW);
            assert!(failures.len() <= ADDRESSES_MAX);
        }
        assert!((0..100).all(|worst| !failures.allows(worst, NOW)));
        assert!(failures.allows(200_000, NOW));
    }

    /// An address that is in a full table fails again without putting others out.
    #[test]
    fn a_known_address_needs_no_room() {
        let mut failures = Failures::new(100);
        for address in 0..ADDRESSES_MAX as u32 {
            failures.count(address, NOW);
        }
        failures.count(7, NOW);
        assert_eq!(failures.len(), ADDRESSES_MAX);
        failures.count(ADDRESSES_MAX as u32, NOW);
        assert_eq!(failures.len(), 2);
    }

    /// When all buckets are full again the table is empty and has given its memory back.
    #[test]
    fn it_is_trimmed() {
        let mut failures = Failures::new(100);
        for address in 0..ADDRESSES_MAX as u32 {
            failures.count(address, NOW);
        }
        failures.trim(NOW);
        assert_eq!(failures.len(), ADDRESSES_MAX);
        failures.trim(NOW + Duration::from_secs(1));
        assert_eq!(failures.len(), 0);
        assert!(failures.states.capacity() <= 4 * KEPT);
    }

    /// A rate of 0 is one failure a second, and the largest does not overflow.
    #[test]
    fn extreme_rates() {
        for (per_second, allowed) in [(0, false), (1, true), (u32::MAX, true)] {
            let mut failures = Failures::new(per_second);
            failures.count(7, NOW);
            assert_eq!(failures.allows(7, NOW), allowed, "{per_second}");
            assert!(failures.allows(7, Duration::MAX));
        }
    }
}
