//! The bounds of an endpoint, and its circuit breaker.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Failure;

/// Calls of one kind that are in flight at once.
pub(super) const IN_FLIGHT_MAX: usize = 256;
/// Calls of one kind that wait for one of those to end.
const WAITING_MAX: usize = 1024;
/// Bytes of all calls of one kind, in flight and waiting.
const BYTES_MAX: usize = 16 << 20;

/// Failures in a row after which calls are not made for a while.
const FAILURES_MAX: u32 = 20;
/// That while. Then one call is made: if it has an answer, all are made again.
const PAUSE: Duration = Duration::from_secs(1);

/// The admission of calls: a bound on their number, and a circuit breaker. All shards and the worker share it.
pub(super) struct Gate {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    /// Failures since the last answer.
    failures: AtomicU32,
    /// Milliseconds after `began` before which no call is made; 0 if the breaker is closed.
    closed_until: AtomicU64,
    began: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            closed_until: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

impl Gate {
    /// Lets a call of this many bytes in.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] and [`Failure::Suspended`].
    pub(super) fn enter(&self, bytes: usize) -> Result<(), Failure> {
        self.enter_at(bytes, self.began.elapsed())
    }

    fn enter_at(&self, bytes: usize, now: Duration) -> Result<(), Failure> {
        let closed_until = self.closed_until.load(Ordering::Relaxed);
        if closed_until > 0 {
            let now = now.as_millis() as u64;
            if now < closed_until {
                return Err(Failure::Suspended);
            }
            // Of the callers that find the pause over, one makes a call.
            let next = now.saturating_add(PAUSE.as_millis() as u64);
            let order = Ordering::Relaxed;
            if self.closed_until.compare_exchange(closed_until, next, order, order).is_err() {
                return Err(Failure::Suspended);
            }
        }
        let most = IN_FLIGHT_MAX.saturating_add(WAITING_MAX);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if calls >= most || before.saturating_add(bytes) > BYTES_MAX {
            self.leave(bytes);
            return Err(Failure::Overloaded);
        }
        Ok(())
    }

    /// Whether more than half of the places are taken.
    pub(super) fn is_crowded(&self) -> bool {
        let half = IN_FLIGHT_MAX.saturating_add(WAITING_MAX) / 2;
        self.calls.load(Ordering::Relaxed) >= half
    }

    /// A call that was let in has ended.
    pub(super) fn leave(&self, bytes: usize) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Fills the gate in a simulation, so that it takes no call, and empties it again.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn fill(&self, was_full: bool, is_full: bool) {
        self.bytes.fetch_sub(BYTES_MAX * usize::from(was_full), Ordering::Relaxed);
        self.bytes.fetch_add(BYTES_MAX * usize::from(is_full), Ordering::Relaxed);
    }

    /// Suspends calls in a simulation, or makes them again.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn suspend(&self, is_suspended: bool) {
        self.closed_until.store(if is_suspended { u64::MAX } else { 0 }, Ordering::Relaxed);
    }

    /// Tells the breaker whether a call has got an answer.
    pub(super) fn ended(&self, answered: bool) {
        self.ended_at(answered, self.began.elapsed());
    }

    fn ended_at(&self, answered: bool, now: Duration) {
        if answered {
            self.failures.store(0, Ordering::Relaxed);
            self.closed_until.store(0, Ordering::Relaxed);
        } else if self.failures.fetch_add(1, Ordering::Relaxed) >= FAILURES_MAX.saturating_sub(1) {
            // A number that grows for ever would wrap.
            self.failures.store(FAILURES_MAX, Ordering::Relaxed);
            let until = now.saturating_add(PAUSE).as_millis() as u64;
            self.closed_until.store(until, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls are bounded by number and by bytes, and those that end make room.
    #[test]
    fn bounds() {
        let gate = Gate::default();
        for _ in 0..IN_FLIGHT_MAX + WAITING_MAX {
            gate.enter(1).expect("there is room");
        }
        assert!(gate.is_crowded());
        assert_eq!(gate.enter(1), Err(Failure::Overloaded));
        gate.leave(1);
        assert_eq!((gate.enter(BYTES_MAX), gate.enter(1)), (Err(Failure::Overloaded), Ok(())));
        (0..IN_FLIGHT_MAX + WAITING_MAX).for_each(|_| gate.leave(1));
        let left = (gate.calls.load(Ordering::Relaxed), gate.bytes.load(Ordering::Relaxed));
        assert_eq!(left, (0, 0));
        assert!(!gate.is_crowded());
        assert_eq!(gate.enter(BYTES_MAX), Ok(()));
    }

    /// Failures in a row suspend calls; then one call decides whether the next ones are made.
    #[test]
    fn breaker() {
        let gate = Gate::default();
        let at = Duration::from_millis;
        for _ in 1..FAILURES_MAX {
            gate.ended_at(false, at(5));
        }
        gate.ended_at(true, at(5));
        for _ in 0..FAILURES_MAX {
            assert_eq!(gate.enter_at(0, at(10)), Ok(()));
            gate.ended_at(false, at(10));
        }
        assert_eq!(gate.enter_at(0, at(1009)), Err(Failure::Suspended));
        assert_eq!(
            (gate.enter_at(0, at(1010)), gate.enter_at(0, at(1010)).is_ok()),
            (Ok(()), false)
        );
        gate.ended_at(false, at(1500));
        assert_eq!(gate.enter_at(0, at(2499)), Err(Failure::Suspended));
        assert_eq!(gate.enter_at(0, at(2500)), Ok(()));
        gate.ended_at(true, at(2501));
        assert_eq!((gate.enter_at(0, at(2502)), gate.enter_at(0, at(2502))), (Ok(()), Ok(())));
        gate.ended_at(false, at(2503));
        assert_eq!(gate.enter_at(0, at(2503)), Ok(()));
    }
}
