//! The number of bad tokens that each address has sent, in a table of bounded size.

use std::collections::HashMap;
use std::time::Duration;

use murre_core::{BucketState, TokenBucket};

/// A rate limit on bad tokens: a token bucket for each address that has recently sent one.
pub(super) struct Failures {
    bucket: TokenBucket,
    states: HashMap<u32, BucketState>,
}

/// The most addresses in the table, which take 64 KiB.
const ADDRESSES_MAX: usize = 4096;
/// The capacity that an empty table keeps, in addresses.
const KEPT: usize = 64;

impl Failures {
    /// A table that allows each address `per_second` bad tokens per second, and twice as many at
    /// once.
    pub(super) fn new(per_second: u32) -> Self {
        let bucket = TokenBucket::new(per_second, per_second.saturating_mul(2));
        Failures { bucket, states: HashMap::new() }
    }

    /// Whether the server may check another token of `address` at `now`.
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

    /// Removes addresses whose buckets are full again.
    pub(super) fn trim(&mut self, now: Duration) {
        self.states.retain(|_, state| state.owed(now) > 0);
        if self.states.len() <= self.states.capacity() / 4 {
            self.states.shrink_to(KEPT);
        }
    }

    /// The number of addresses in the table.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Removes the half of the addresses with the fewest failures. The cost of the search is spread
    /// over the insertions that fill the table again.
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

    /// The table stays within its bound when many addresses fail, and keeps the addresses with the
    /// most failures.
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

    /// A failure of an address that is already in a full table removes no other address.
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

    /// When all buckets are full again, the table is empty and has released its memory.
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

    /// A rate of 0 allows one failure a second, and the largest rate does not overflow.
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
