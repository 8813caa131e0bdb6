//! Whether a shard accepts connections, and how fast.
//!
//! Three things hold new connections back:
//!
//! - **They come too fast**, or **every slot is taken**: they wait in the kernel's backlog. A short wait
//!   in order costs no round trip, and a storm is over sooner than if every client were sent away to try
//!   again. Where the backlog is full the kernel drops SYNs, and clients' kernels send them again, each
//!   time after twice as long.
//! - **Memory is short**: the first request of each is answered with 503 and `Retry-After`, and so is each
//!   request on any connection that would start a session: a proxy sends new clients' requests on
//!   connections that it has kept. Memory does not come back in the time for which a client waits, and one that waits in the backlog has a socket
//!   already (2.5 KB); a load balancer takes a 503 elsewhere at once, and a timeout only after a while.
//!   The answer follows the request, because clients take bytes that come before it for an error of the
//!   connection. Connections that are open stay open.
//! - **Memory is very short**: they wait in the backlog, which is bounded. A peer that connects and sends
//!   nothing would hold 4.2 KB until the handshake's deadline, and there can be many.
//!
//! A connection that is refused because of its address does not count against the rate: one client that
//! opens many of them delays no other. Their bound is the number of accepts in a turn.
//!
//! No connection is accepted and then dropped without an answer. Another thread, which may read files,
//! finds out whether memory is short: shards read one atomic number ([`Gate`]).

use std::mem;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::token_bucket::{BucketState, TokenBucket};

/// How new connections are treated, from closed to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// They wait in the backlog.
    Wait,
    /// They are accepted, and their first request is answered with 503. So is each request of any
    /// connection that would start a session.
    Refuse,
    /// They are accepted and served.
    Open,
}

/// The [`Admission`] of all shards of a server, which one thread decides. Open at first.
#[derive(Debug)]
pub struct Gate(AtomicU8);

impl Default for Gate {
    fn default() -> Self {
        Gate(AtomicU8::new(Admission::Open as u8))
    }
}

impl Gate {
    /// Changes the admission. Shards that are awake obey from their next turn on.
    pub fn set(&self, admission: Admission) {
        self.0.store(admission as u8, Ordering::Relaxed);
    }

    /// The admission in force.
    pub fn admission(&self) -> Admission {
        [Admission::Wait, Admission::Refuse, Admission::Open]
            [usize::from(self.0.load(Ordering::Relaxed))]
    }
}

/// The accepts of one shard: how many are in flight, and when the next may be.
pub(crate) struct Accepts {
    /// Accepts in flight. Each holds a slot, so that every accepted connection has one.
    pub(crate) armed: u32,
    /// The shard has a listener, and it is not shut down.
    pub(crate) listening: bool,
    /// Every slot is taken by a connection.
    full: bool,
    bucket: TokenBucket,
    taken: BucketState,
    began: Instant,
    /// No accept before this: the last failed for want of descriptors or memory, or the gate is closed.
    paused_until: Option<Instant>,
    /// No accept before this: the bucket is empty. A refused connection ends the wait.
    paced_until: Option<Instant>,
    /// No accept while the shard has so many connections, because other shards of its thread have fewer.
    pub(crate) conns_below: u32,
}

/// A shard that has rested may accept at once what it may in this time: its other connections wait
/// for about half as long.
const BURST: Duration = Duration::from_millis(100);
/// A shard whose bucket is empty sleeps for at least this long, and then accepts several.
const STEP: Duration = Duration::from_millis(5);
/// How long the backlog is left alone when the machine has nothing left to accept with.
const PAUSE: Duration = Duration::from_millis(100);
/// Enough for several connections a turn; few, because the kernel wakes the shards' accepts in the order
/// they were armed, so that connections that come together go to one shard in blocks of this size.
const ARMED_MAX: u32 = 8;

impl Accepts {
    /// No accept is in flight. `interval` is the time from one accept to the next; zero is no limit.
    pub(crate) fn new(interval: Duration, listening: bool, now: Instant) -> Self {
        Accepts {
            armed: 0,
            listening,
            full: false,
            bucket: TokenBucket::with_interval(interval, BURST),
            taken: BucketState::FULL,
            began: now,
            paused_until: None,
            paced_until: None,
            conns_below: u32::MAX,
        }
    }

    /// When the next accept may be armed, if not now.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.paused_until.max(self.paced_until)
    }

    /// Arms none for a while.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
    }

    /// Takes the accepts of refused connections out of the rate.
    pub(crate) fn refund(&mut self, refused: u32) {
        if refused > 0 {
            self.bucket.give_back(&mut self.taken, refused);
            self.paced_until = None;
        }
    }

    /// Whether accepts may be armed in this turn.
    pub(crate) fn may_arm(&mut self, gate: &Gate, now: Instant) -> bool {
        if self.not_before().is_some_and(|time| now < time) {
            return false;
        }
        (self.paused_until, self.paced_until) = (None, None);
        if self.listening && gate.admission() == Admission::Wait {
            self.pause(now);
            return false;
        }
        self.listening
    }

    /// Whether there are fewer in flight than there should be, if `conns` slots are taken.
    pub(crate) fn wants_more(&self, conns: u32) -> bool {
        self.armed < ARMED_MAX && conns < self.conns_below
    }

    /// Whether the rate allows one more. If not, there are none for a while.
    pub(crate) fn is_in_rate(&mut self, now: Instant) -> bool {
        let next = self.bucket.next_at(self.taken, now - self.began);
        self.paced_until = next.map(|next| (self.began + next).max(now + STEP));
        next.is_none()
    }

    /// No slot is free. Returns whether a connection has taken the last one since the last accept.
    pub(crate) fn is_newly_full(&mut self) -> bool {
        self.armed == 0 && !mem::replace(&mut self.full, true)
    }

    /// One more is in flight.
    pub(crate) fn arm(&mut self, now: Instant) {
        self.bucket.take(&mut self.taken, now - self.began);
        self.armed += 1;
        self.full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many accepts as the rate allows from `from` to `until`, by a shard that arms one whenever it may.
    fn accepted(accepts: &mut Accepts, from: Instant, until: Instant) -> u32 {
        let (mut now, before) = (from, accepts.armed);
        while now < until {
            match accepts.is_in_rate(now) {
                true => accepts.arm(now),
                false => now = accepts.not_before().expect("the bucket is empty"),
            }
        }
        accepts.armed - before
    }

    /// A shard that accepts whenever it may takes a burst, then one connection an interval, whatever the
    /// interval is; and a burst again after a rest, not more.
    #[test]
    fn a_burst_and_then_one_an_interval() {
        for interval in [1, 50, 3_000, 100_000, 2_000_000].map(Duration::from_micros) {
            let start = Instant::now();
            let mut accepts = Accepts::new(interval, true, start);
            let span = interval * 100;
            let burst = BURST.max(interval).as_secs_f64() / interval.as_secs_f64();
            let taken = f64::from(accepted(&mut accepts, start, start + span));
            let late = STEP.as_secs_f64() / interval.as_secs_f64() + 1.0;
            assert!(
                taken <= burst + 100.0 && taken >= burst + 99.0 - late,
                "{interval:?}: {taken}"
            );
            let later = start + span + Duration::from_secs(60);
            let taken = f64::from(accepted(&mut accepts, later, later + Duration::from_nanos(1)));
            assert!((taken - burst).abs() <= 1.0, "{interval:?}: {taken} after a rest");
        }
    }

    /// The tokens of refused connections can be used at once, and a full bucket holds no more of them.
    #[test]
    fn refused_connections_are_refunded() {
        let (interval, now) = (Duration::from_millis(20), Instant::now());
        let mut accepts = Accepts::new(interval, true, now);
        let accepted = [0, 0, 3, 0, 1000].map(|refused| {
            accepts.refund(refused);
            accepted(&mut accepts, now, now + Duration::from_nanos(1))
        });
        assert_eq!(accepted, [5, 0, 3, 0, 5]);
    }

    /// Without an interval nothing waits.
    #[test]
    fn no_interval_is_no_limit() {
        let now = Instant::now();
        let mut accepts = Accepts::new(Duration::ZERO, true, now);
        for _ in 0..10_000 {
            assert!(accepts.is_in_rate(now));
            accepts.arm(now);
        }
    }

    /// While the gate says so no accept is armed, and the gate is asked again after a pause.
    #[test]
    fn a_closed_gate_pauses() {
        let (gate, now) = (Gate::default(), Instant::now());
        let mut accepts = Accepts::new(Duration::ZERO, true, now);
        assert!(accepts.may_arm(&gate, now));
        gate.set(Admission::Wait);
        assert!(!accepts.may_arm(&gate, now));
        gate.set(Admission::Refuse);
        assert!(!accepts.may_arm(&gate, now + PAUSE / 2));
        assert!(accepts.may_arm(&gate, now + PAUSE));
    }
}
