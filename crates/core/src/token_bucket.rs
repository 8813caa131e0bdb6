//! Token buckets: how often something may happen, with eight bytes of state for each bucket.
//!
//! A bucket is described by the time at which it will be full again (the generic cell rate algorithm,
//! ITU-T I.371). Times are on the caller's clock, since any fixed point; a coarse clock will do.

use std::time::Duration;

/// The rate and the burst of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Nanoseconds until a token that was taken is back.
    cost: u64,
    /// Nanoseconds until an empty bucket is full.
    burst: u64,
}

/// The state of one bucket: the time at which it is full again, in nanoseconds of the caller's clock. The
/// default is a full bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketState(pub(crate) u64);

const _: () = assert!(size_of::<BucketState>() == 8);

/// The decision of a bucket on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateDecision {
    /// The bucket had a token.
    Allow,
    /// The bucket was empty.
    Refuse,
    /// The bucket was empty, and as many requests as a burst have been refused since.
    Disconnect,
}

impl BucketState {
    /// A full bucket.
    pub const FULL: BucketState = BucketState(0);

    /// Nanoseconds from `now` until the bucket is full.
    pub fn owed(self, now: Duration) -> u64 {
        self.0.saturating_sub(nanos(now))
    }
}

impl TokenBucket {
    /// Allows `rate` requests per second, at least one, and `burst` at once. Rates above 10^9 are no
    /// limit.
    pub fn new(rate: u32, burst: u32) -> Self {
        let cost = SECOND.checked_div(u64::from(rate)).unwrap_or(SECOND);
        TokenBucket { cost, burst: cost.saturating_mul(u64::from(burst)) }
    }

    /// Allows a request every `interval`, and at once as many as fit into `burst`, at least one. No
    /// interval is no limit.
    pub fn with_interval(interval: Duration, burst: Duration) -> Self {
        TokenBucket { cost: nanos(interval), burst: nanos(burst.max(interval)) }
    }

    /// Takes a token. A request that is refused costs as much as one that is allowed, so a client must
    /// slow down to be served.
    pub fn take(self, state: &mut BucketState, now: Duration) -> RateDecision {
        *state = self.after_one_more(*state, now);
        match state.owed(now) {
            owed if owed <= self.burst => RateDecision::Allow,
            owed if owed <= self.burst.saturating_mul(2) => RateDecision::Refuse,
            _ => RateDecision::Disconnect,
        }
    }

    /// Takes a token if there is one, and returns whether there was. A request that is refused costs
    /// nothing, so of many clients that try again and again some are always served.
    pub fn try_take(self, state: &mut BucketState, now: Duration) -> bool {
        let allowed = self.allows(*state, now);
        if allowed {
            *state = self.after_one_more(*state, now);
        }
        allowed
    }

    /// Whether there is a token.
    pub fn allows(self, state: BucketState, now: Duration) -> bool {
        self.after_one_more(state, now).owed(now) <= self.burst
    }

    /// When there will be a token, if there is none at `now`.
    pub fn next_at(self, state: BucketState, now: Duration) -> Option<Duration> {
        let next = self.after_one_more(state, now);
        let at = Duration::from_nanos(next.0.saturating_sub(self.burst));
        (next.owed(now) > self.burst).then_some(at)
    }

    /// Puts tokens back that were taken.
    pub(crate) fn give_back(self, state: &mut BucketState, tokens: u32) {
        state.0 = state.0.saturating_sub(self.cost.saturating_mul(u64::from(tokens)));
    }

    fn after_one_more(self, state: BucketState, now: Duration) -> BucketState {
        BucketState(state.0.max(nanos(now)).saturating_add(self.cost))
    }
}

const SECOND: u64 = 1_000_000_000;

/// A time in nanoseconds. Times after 584 years are that long.
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

    /// `try_take` allows what `take` does, and a request that it refuses costs nothing: the next token
    /// comes when `next_at` says, and tokens that are given back can be taken again, up to a full bucket.
    #[test]
    fn refusals_can_be_free() {
        let bucket = bucket();
        let (mut state, start) = (BucketState::FULL, Duration::from_secs(1));
        let served = |state: &mut _, now| (0..1000).filter(|_| bucket.try_take(state, now)).count();
        assert_eq!(served(&mut state, start), 200);
        let next = bucket.next_at(state, start).expect("there is no token left");
        assert_eq!(next, start + Duration::from_millis(10));
        assert!(!bucket.allows(state, next - Duration::from_nanos(1)));
        assert_eq!(bucket.next_at(state, next), None);
        assert_eq!(served(&mut state, next), 1);
        bucket.give_back(&mut state, 3);
        assert_eq!(served(&mut state, next), 3);
        bucket.give_back(&mut state, u32::MAX);
        assert_eq!(served(&mut state, next), 200);
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
