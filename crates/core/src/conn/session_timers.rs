//! Timers of sessions: exact to the turn. Only sessions that set one take memory for it.
//!
//! The coarse timer of each connection ([`timers`](super::timers)) belongs to the protocol, for pings and
//! time limits.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// The timers that are set, at most one for each slot.
#[derive(Default)]
pub(crate) struct SessionTimers {
    /// In the order of their ends. Its nodes are freed as they empty.
    ends: BTreeSet<(Instant, u32)>,
    by_slot: HashMap<u32, Instant>,
}

/// The table keeps room for this many timers after a burst.
const KEPT: usize = 256;

impl SessionTimers {
    /// Sets the timer of slot `index`, in place of the one it had.
    pub(crate) fn set(&mut self, index: u32, end: Instant) {
        if let Some(before) = self.by_slot.insert(index, end) {
            self.ends.remove(&(before, index));
        }
        self.ends.insert((end, index));
    }

    /// Clears the timer of slot `index`, if it has one.
    pub(crate) fn clear(&mut self, index: u32) {
        if self.by_slot.is_empty() {
            return;
        }
        if let Some(end) = self.by_slot.remove(&index) {
            self.ends.remove(&(end, index));
        }
        // Only below a quarter, so that it does not grow again at once.
        if self.by_slot.capacity() > KEPT && self.by_slot.len() < self.by_slot.capacity() / 4 {
            self.by_slot.shrink_to(KEPT.max(self.by_slot.len() * 2));
        }
    }

    /// When the first timer expires.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.ends.first().map(|&(end, _)| end)
    }

    /// The slot of a timer that has expired by `now`, earliest first. The timer is cleared.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<u32> {
        let &(end, index) = self.ends.first()?;
        if end > now {
            return None;
        }
        self.clear(index);
        Some(index)
    }

    /// How many timers are set.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Timers expire in the order of their ends, once, never early, with the last end that was set, and
    /// not after they were cleared.
    #[test]
    fn timers_run_out_in_order() {
        let (start, mut timers) = (Instant::now(), SessionTimers::default());
        let mut rng = fastrand::Rng::with_seed(7);
        let mut model: HashMap<u32, u64> = HashMap::new();
        for _ in 0..20_000 {
            let (index, end) = (rng.u32(0..1000), rng.u64(0..1_000_000));
            if rng.u8(0..4) == 0 {
                timers.clear(index);
                model.remove(&index);
            } else {
                timers.set(index, start + Duration::from_micros(end));
                model.insert(index, end);
            }
        }
        let mut expected: Vec<_> = model.into_iter().map(|(index, end)| (end, index)).collect();
        expected.sort();
        assert_eq!(timers.len(), expected.len());
        for (end, index) in expected {
            let end = start + Duration::from_micros(end);
            assert_eq!(timers.next(), Some(end));
            assert_eq!(timers.expire(end - Duration::from_nanos(1)), None);
            assert_eq!(timers.expire(end), Some(index));
        }
        assert_eq!((timers.next(), timers.len()), (None, 0));
        assert!(timers.by_slot.capacity() <= 2 * KEPT, "{}", timers.by_slot.capacity());
    }
}
