//! When each of many connections that were lost together reconnects: at once, or at a random moment of
//! a span; after a failure again, with a pause that doubles.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// One worker's connections that will reconnect.
pub(crate) struct Reconnects {
    rng: Rng,
    /// The span in which each comes back for the first time.
    over: Duration,
    begun: Instant,
    /// How many have not tried yet.
    untried: u32,
    /// At which part of the span the next of them does.
    part: f64,
    /// Connections that have failed: how often, and when they try again.
    again: BinaryHeap<Reverse<(Instant, Tries)>>,
    /// By slot: the tries of its connection.
    tries: Vec<Tries>,
}

/// How often a connection has tried in vain.
pub(crate) type Tries = u8;

impl Reconnects {
    /// `missing` connections come back over `over`.
    pub(crate) fn new(missing: u32, over: Duration, now: Instant, seed: u64) -> Reconnects {
        let (rng, again) = (Rng::with_seed(seed), BinaryHeap::new());
        let (begun, tries) = (now, Vec::new());
        let mut reconnects =
            Reconnects { rng, over, begun, untried: missing, part: 0.0, again, tries };
        reconnects.draw();
        reconnects
    }

    /// Moves on to the next of the random moments, in their order: of `n` the first is as far away as
    /// the n-th root of a random number says.
    fn draw(&mut self) {
        let root = self.rng.f64().powf(1.0 / f64::from(self.untried.max(1)));
        self.part += (1.0 - self.part) * (1.0 - root);
    }

    fn untried_at(&self) -> Option<Instant> {
        (self.untried > 0).then(|| self.begun + self.over.mul_f64(self.part))
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let again = self.again.peek().map(|Reverse((at, _))| *at);
        [self.untried_at(), again].into_iter().flatten().min()
    }

    /// Takes one that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Tries> {
        if self.untried_at().is_some_and(|at| at <= now) {
            self.untried -= 1;
            self.draw();
            return Some(0);
        }
        let Reverse((at, _)) = self.again.peek()?;
        if *at > now {
            return None;
        }
        self.again.pop().map(|Reverse((_, tries))| tries)
    }

    /// One that was due tries in slot `index`.
    pub(crate) fn tries_in(&mut self, index: u32, tries: Tries) {
        let index = index as usize;
        if self.tries.len() <= index {
            self.tries.resize(index + 1, 0);
        }
        self.tries[index] = tries;
    }

    /// There was no slot for one that was due.
    pub(crate) fn wait(&mut self, tries: Tries, until: Instant) {
        self.again.push(Reverse((until, tries)));
    }

    /// The connection of slot `index` tries again. If the first tries are spread, so are these: a random part
    /// of the pause is waited for.
    pub(crate) fn missed(&mut self, index: u32, now: Instant) {
        let tries = self.tries.get(index as usize).copied().unwrap_or_default();
        let pause = PAUSE * 2_u32.pow(u32::from(tries.min(DOUBLED_MAX)));
        let part = if self.over.is_zero() { 1.0 } else { self.rng.f64() };
        self.wait(tries.saturating_add(1), now + pause.mul_f64(part));
    }
}

/// Before the second try; before the third it is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it doubles.
const DOUBLED_MAX: Tries = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Shows that no connection is forgotten or late, that a tenth comes in each tenth, and that without
    /// a span all come at once.
    #[test]
    fn all_come_back_in_the_span_and_evenly() {
        let start = Instant::now();
        let mut reconnects = Reconnects::new(10_000, 10 * SECOND, start, 7);
        let mut tenths = Vec::new();
        for tenth in 1..=10 {
            let mut came = 0;
            while reconnects.due(start + tenth * SECOND).is_some() {
                came += 1;
            }
            tenths.push(came);
        }
        assert_eq!(tenths.iter().sum::<u32>(), 10_000);
        assert!(tenths.iter().all(|came| (850..1150).contains(came)), "{tenths:?}");
        assert_eq!(reconnects.next_at(), None);

        let mut reconnects = Reconnects::new(1000, Duration::ZERO, start, 7);
        let came = std::iter::from_fn(|| reconnects.due(start)).count();
        assert_eq!(came, 1000);
    }

    /// Shows the pauses of one connection without a span, and that those with one are shorter.
    #[test]
    fn a_failed_connection_tries_again_later_and_later() {
        let start = Instant::now();
        let mut reconnects = Reconnects::new(0, Duration::ZERO, start, 7);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 16] {
            reconnects.missed(3, now);
            assert_eq!(reconnects.next_at(), Some(now + seconds * SECOND));
            now += seconds * SECOND;
            let tries = reconnects.due(now).expect("it is due");
            reconnects.tries_in(3, tries);
        }
        let mut reconnects = Reconnects::new(0, SECOND, start, 7);
        (0..100).for_each(|index| reconnects.missed(index, start));
        assert!(reconnects.next_at().expect("100 wait") < start + SECOND / 10);
    }
}
