//! The pace of a worker's connects.

use std::time::{Duration, Instant};

use murre_core::{BucketState, TokenBucket};

/// A token bucket on the worker's clock.
pub(crate) struct Pace {
    bucket: TokenBucket,
    state: BucketState,
    epoch: Instant,
}

impl Pace {
    /// So many tokens a second, and those of `burst` at once, at least one. 0 a second is no limit.
    pub(crate) fn new(per_second: f64, burst: Duration) -> Pace {
        let interval = match per_second {
            0.0 => Duration::ZERO,
            rate => Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::MAX),
        };
        let bucket = TokenBucket::with_interval(interval, burst);
        Pace { bucket, state: BucketState::FULL, epoch: Instant::now() }
    }

    /// Whether there is a token. The error says when to look again.
    pub(crate) fn allows(&self, now: Instant) -> Result<(), Instant> {
        match self.bucket.next_at(self.state, now.saturating_duration_since(self.epoch)) {
            None => Ok(()),
            Some(at) => Err((self.epoch + at).max(now + PAUSE_MIN)),
        }
    }

    /// Takes `tokens`, on credit if there are fewer.
    pub(crate) fn take(&mut self, tokens: u32, now: Instant) {
        let now = now.saturating_duration_since(self.epoch);
        for _ in 0..tokens {
            // A token that the bucket refuses is a debt.
            let _ = self.bucket.take(&mut self.state, now);
        }
    }
}

/// A paced worker opens all connections that became due meanwhile, so that it does not wake for each.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(1);
