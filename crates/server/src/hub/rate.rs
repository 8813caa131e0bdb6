//! Token buckets with eight bytes of state each.

use std::time::Duration;

/// The rate and the burst of a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Nanoseconds until a token that was taken is back.
    cost: u64,
    /// Nanoseconds until an empty bucket is full.
    burst: u64,
}

/// The state of one bucket: the time at which it is full again, in nanoseconds of the caller's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BucketState(u64);

const _: () = assert!(size_of::<BucketState>() == 8);

/// The decision of a bucket on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateDecision {
    /// The bucket had a token.
    Allow,
    /// The bucket was empty.
    Refuse,
    /// The bucket was empty, and as many requests as a burst have been refused since.
    Disconnect,
}

impl BucketState {
    /// A full bucket.
    pub(crate) const FULL: BucketState = BucketState(0);

    /// Nanoseconds from `now` until the bucket is full.
    pub(crate) fn owed(self, now: Duration) -> u64 {
        self.0.saturating_sub(nanos(now))
    }
}

impl TokenBucket {
    /// Allows `rate` requests per second, at least one, and `burst` at once. Rates above 10^9 are no
    /// limit.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let cost = SECOND.checked_div(u64::from(rate)).unwrap_or(SECOND);
        TokenBucket { cost, burst: cost.saturating_mul(u64::from(burst)) }
    }

    /// Takes a token at `now`, the time since any fixed point; a coarse clock will do. A request that
    /// is refused costs as much as one that is allowed, so a client must slow down to be served.
    pub(crate) fn take(self, state: &mut BucketState, now: Duration) -> RateDecision {
        let now_nanos = nanos(now);
        state.0 = state.0.max(now_nanos).saturating_add(self.cost);
        match state.0.saturating_sub(now_nanos) {
            owed if owed <= self.burst => RateDecision::Allow,
            owed if owed <= self.burst.saturating_mul(2) => RateDecision::Refuse,
            _ => RateDecision::Disconnect,
        }
    }

    /// Whether [`take`](Self::take) would allow a request at `now`.
    pub(crate) fn allows(self, mut state: BucketState, now: Duration) -> bool {
        self.take(&mut state, now) == RateDecision::Allow
    }
}

const SECOND: u64 = 1_000_000_000;

/// Times after 584 years are that long.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> TokenBucket {
        TokenBucket::new(100, 200)
    }

    /// How many requests get `decision` before another one comes.
    fn count(state: &mut BucketState, at_ms: u64, decision: RateDecision) -> u32 {
        let mut count = 0;
        let mut next = *state;
        while bucket().take(&mut next, Duration::from_millis(at_ms)) == decision {
            *state = next;
            count += 1;
        }
        count
    }

    /// A burst is allowed, as many requests are refused, and the next one ends the connection.
    #[test]
    fn a_burst_then_refusals_then_the_end() {
        let mut state = BucketState::default();
        assert_eq!(count(&mut state, 5, RateDecision::Allow), 200);
        assert_eq!(count(&mut state, 5, RateDecision::Refuse), 200);
        let decision = bucket().take(&mut state, Duration::from_millis(5));
        assert_eq!(decision, RateDecision::Disconnect);
    }

    /// Tokens come back with time, up to a burst and no further.
    #[test]
    fn waiting_helps() {
        let mut state = BucketState::default();
        assert_eq!(count(&mut state, 0, RateDecision::Allow), 200);
        assert_eq!(count(&mut state, 500, RateDecision::Allow), 50);
        assert_eq!(count(&mut state, 86_400_000, RateDecision::Allow), 200);
    }

    /// The rate itself can be kept for ever, also on a clock that stands still for a quarter of a
    /// second at a time; a hundredth more cannot.
    #[test]
    fn the_rate_can_be_kept() {
        for (per_second, lasting) in [(100, true), (101, false)] {
            let mut state = BucketState::default();
            let mut decisions = (0..per_second * 1000).map(|request| {
                let now = Duration::from_millis(250 * (request * 4 / per_second));
                bucket().take(&mut state, now)
            });
            let kept = decisions.all(|decision| decision == RateDecision::Allow);
            assert_eq!(kept, lasting, "{per_second}");
        }
    }

    /// Rates that do not divide a second still allow exactly a burst, and `allows` says what `take`
    /// does.
    #[test]
    fn bursts_are_exact() {
        for (rate, burst) in [(1, 1), (3, 6), (7, 14), (999_999_937, 5), (100, 0)] {
            let bucket = TokenBucket::new(rate, burst);
            let mut state = BucketState::FULL;
            let now = Duration::from_secs(1);
            for request in 0..burst + 2 {
                assert_eq!(bucket.allows(state, now), request < burst, "{rate} {request}");
                let decision = bucket.take(&mut state, now);
                assert_eq!(decision == RateDecision::Allow, request < burst, "{rate} {request}");
            }
        }
    }

    /// No time, rate or burst overflows, and a clock that steps back only costs.
    #[test]
    fn extremes() {
        let mut state = BucketState::default();
        let allow = RateDecision::Allow;
        assert_eq!(TokenBucket::new(1, 2).take(&mut state, Duration::MAX), allow);
        assert_eq!(TokenBucket::new(u32::MAX, u32::MAX).take(&mut state, Duration::MAX), allow);
        assert_eq!(TokenBucket::new(1, u32::MAX).take(&mut state, Duration::MAX), allow);
        assert_eq!(state.owed(Duration::MAX), 0);
        assert_eq!(state.owed(Duration::ZERO), u64::MAX);
        let decision = TokenBucket::new(0, 0).take(&mut state, Duration::ZERO);
        assert_eq!(decision, RateDecision::Disconnect);
        let decision = TokenBucket::new(1, u32::MAX).take(&mut state, Duration::ZERO);
        assert_eq!(decision, RateDecision::Disconnect);
    }
}
