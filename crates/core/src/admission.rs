//! Who is let in, and how fast.
//!
//! What holds connections back, and what becomes of those held back:
//!
//! - **They come too fast**, or **every slot is taken**: they wait in the kernel's backlog. It is
//!   short waiting in order, which costs no round trip, and a storm is over sooner than if everybody
//!   were sent away to try again. Where the backlog is full the kernel drops SYNs, and clients'
//!   kernels send them again, each time after twice as long.
//! - **Memory is short**: their first request is answered with 503 and `Retry-After`, and so is each
//!   request that starts a session, as a proxy sends new clients' on connections that it kept. Memory does not
//!   come back in the time for which a client waits, and one that waits in the backlog has a socket
//!   already (2.5 KB); a load balancer takes a 503 elsewhere at once, and a timeout only after a
//!   while. The answer follows the request, as clients take what comes before it for an error of the
//!   connection. Whoever is connected stays, and goes on.
//! - **Memory is very short**: they wait in the backlog, which is bounded. A peer that connects and
//!   says nothing would hold 4.2 KB until the handshake's deadline, and there can be many.
//!
//! A connection that is refused because of its address does not count as one that came: somebody who
//! opens many of them delays nobody. Their bound is the number of accepts in a turn.
//!
//! Nobody is let in and then dropped. Whether memory is short is found out elsewhere, by a thread
//! that may read files: shards read one atomic number ([`Gate`]).

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Whether new connections are let in, closed to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// They wait in the backlog.
    Wait,
    /// They are accepted, and their first request is answered with 503. So is each request of any
    /// connection that would start a session.
    Refuse,
    /// They are let in.
    Open,
}

/// What one thread decides and every shard obeys. Open at first.
#[derive(Debug)]
pub struct Gate(AtomicU8);

impl Default for Gate {
    fn default() -> Self {
        Gate(AtomicU8::new(Admission::Open as u8))
    }
}

impl Gate {
    /// From now on, which is a turn later for a shard that is awake.
    pub fn set(&self, admission: Admission) {
        self.0.store(admission as u8, Ordering::Relaxed);
    }

    /// What is in force.
    pub fn admission(&self) -> Admission {
        [Admission::Wait, Admission::Refuse, Admission::Open]
            [usize::from(self.0.load(Ordering::Relaxed))]
    }
}

/// A token bucket, told by the time at which it will be full.
pub(crate) struct Pace {
    /// From one token to the next; zero: as fast as they come.
    interval: Duration,
    /// What a full bucket lasts for.
    burst: Duration,
    full_at: Instant,
}

/// A shard that has rested may accept at once what it may in this time: its other connections wait
/// for about half as long.
const BURST: Duration = Duration::from_millis(100);
/// A shard that is paced sleeps for so long at least, and then accepts several.
const STEP: Duration = Duration::from_millis(5);

impl Pace {
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Pace { interval, burst: BURST.max(interval), full_at: now }
    }

    /// When to ask again, if there is no token now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Instant> {
        let next = self.full_at + self.interval;
        (next > now + self.burst).then(|| (next - self.burst).max(now + STEP))
    }

    /// Takes a token that is there.
    pub(crate) fn spend(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// Gives back so many tokens that were spent.
    pub(crate) fn give_back(&mut self, tokens: u32) {
        let span = self.interval.saturating_mul(tokens);
        self.full_at = self.full_at.checked_sub(span).unwrap_or(self.full_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shard takes that accepts whenever it may: a burst, then one an interval, whatever the
    /// interval is; and a burst again after a rest, not more.
    #[test]
    fn a_burst_and_then_one_an_interval() {
        for interval in [1, 50, 3_000, 100_000, 2_000_000].map(Duration::from_micros) {
            let start = Instant::now();
            let mut pace = Pace::new(interval, start);
            let mut take = |from: Instant, until: Instant| {
                let (mut now, mut taken) = (from, 0.0);
                while now < until {
                    match pace.wait(now) {
                        Some(next) => now = next,
                        None => {
                            pace.spend(now);
                            taken += 1.0;
                        }
                    }
                }
                taken
            };
            let span = interval * 100;
            let burst = BURST.max(interval).as_secs_f64() / interval.as_secs_f64();
            let taken = take(start, start + span);
            let late = STEP.as_secs_f64() / interval.as_secs_f64() + 1.0;
            assert!(
                taken <= burst + 100.0 && taken >= burst + 99.0 - late,
                "{interval:?}: {taken}"
            );
            let later = start + span + Duration::from_secs(60);
            let taken = take(later, later + Duration::from_nanos(1));
            assert!((taken - burst).abs() <= 1.0, "{interval:?}: {taken} after a rest");
        }
    }

    /// Tokens that are given back can be spent at once, and a full bucket holds no more of them.
    #[test]
    fn tokens_come_back() {
        let (interval, now) = (Duration::from_millis(20), Instant::now());
        let mut pace = Pace::new(interval, now);
        let mut take = |returned| {
            pace.give_back(returned);
            let mut taken = 0;
            while pace.wait(now).is_none() {
                pace.spend(now);
                taken += 1;
            }
            taken
        };
        assert_eq!([0, 0, 3, 0, 1000].map(&mut take), [5, 0, 3, 0, 5]);
    }

    /// Without a rate nobody waits.
    #[test]
    fn as_fast_as_they_come() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, now);
        for _ in 0..10_000 {
            assert_eq!(pace.wait(now), None);
            pace.spend(now);
        }
    }
}
