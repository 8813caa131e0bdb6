//! Leaving in order: connections say goodbye a few at a time, so that their clients do not all come
//! back to somebody else in the same moment.

use std::ops::Range;
use std::time::{Duration, Instant};

/// A drain in progress.
pub(crate) struct Drain {
    started: Instant,
    over: Duration,
    /// How long the last ones may take after that.
    linger: Duration,
    /// Slots below have been told.
    told: u32,
}

impl Drain {
    /// How often a part of the connections is told.
    pub(crate) const STEP: Duration = Duration::from_millis(20);

    pub(crate) fn new(now: Instant, over: Duration, linger: Duration) -> Self {
        Drain { started: now, over, linger, told: 0 }
    }

    /// The slots to be told now, of `slots`.
    pub(crate) fn due(&mut self, now: Instant, slots: u32) -> Range<u32> {
        let part = (now - self.started + Self::STEP).as_secs_f64()
            / self.over.max(Self::STEP).as_secs_f64();
        let until = (f64::from(slots) * part.min(1.0)) as u32;
        let due = self.told..until.max(self.told);
        self.told = due.end;
        due
    }

    /// Whether the slot's turn has come already.
    pub(crate) fn has_told(&self, index: u32) -> bool {
        index < self.told
    }

    /// Whether those who are still here have had their time.
    pub(crate) fn over(&self, now: Instant) -> bool {
        now >= self.started + self.over + self.linger + Self::STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slot is told once, in even parts over the time given.
    #[test]
    fn everybody_is_told_once_and_evenly() {
        let start = Instant::now();
        let over = Duration::from_secs(1);
        let mut drain = Drain::new(start, over, Duration::from_secs(1));
        let mut told = 0;
        for step in 0..=50 {
            let due = drain.due(start + Drain::STEP * step, 1000);
            assert_eq!(due.start, told);
            assert!(due.len() <= 21, "{} at once", due.len());
            told = due.end;
        }
        assert_eq!(told, 1000);
    }
}
