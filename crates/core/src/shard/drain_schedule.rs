//! A drain ends connections a few at a time and in random order, so that their clients do not all come
//! back to other servers at the same moment.
//!
//! Slots are assigned in the order of arrival, so neighbours are clients that came together, as all
//! those behind one restarted proxy do. In that order they would leave together, too.

use std::ops::Range;
use std::time::{Duration, Instant};

/// When each connection of a drain is asked to end.
pub(crate) struct DrainSchedule {
    started: Instant,
    over: Duration,
    /// How long the last connections may take after that.
    linger: Duration,
    order: RandomOrder,
    /// How many positions of the order were due.
    passed: u32,
}

impl DrainSchedule {
    /// From one part of the connections to the next.
    pub(crate) const STEP: Duration = Duration::from_millis(20);

    /// Spreads the first `slots` slots over the time `over` from `now`, in an order that follows from
    /// `seed`. Connections in later slots have to be ended on arrival.
    pub(crate) fn new(
        now: Instant,
        over: Duration,
        linger: Duration,
        slots: u32,
        seed: u32,
    ) -> Self {
        DrainSchedule {
            started: now,
            over,
            linger,
            order: RandomOrder::new(slots, seed),
            passed: 0,
        }
    }

    /// The slots that are due and were not due before.
    pub(crate) fn due(&mut self, now: Instant) -> impl Iterator<Item = u32> + use<> {
        let part = (now - self.started + Self::STEP).as_secs_f64()
            / self.over.max(Self::STEP).as_secs_f64();
        let until = (f64::from(self.order.positions()) * part.min(1.0)) as u32;
        let due = self.passed..until.max(self.passed);
        self.passed = due.end;
        self.order.slots(due)
    }

    /// Whether the connections that are still open have had their time.
    pub(crate) fn over(&self, now: Instant) -> bool {
        now >= self.started + self.over + self.linger + Self::STEP
    }
}

/// Every slot once, in an order that is computed instead of stored, by a Feistel network: each round
/// changes one half of a number by a function of the other half, which is a bijection. Positions whose
/// number is no slot are skipped.
#[derive(Clone, Copy)]
struct RandomOrder {
    slots: u32,
    /// Bits of half a position.
    half: u32,
    seed: u32,
}

impl RandomOrder {
    fn new(slots: u32, seed: u32) -> Self {
        let bits = slots.next_power_of_two().trailing_zeros();
        RandomOrder { slots, half: bits.div_ceil(2).max(1), seed }
    }

    fn positions(self) -> u32 {
        1 << (2 * self.half)
    }

    fn slots(self, positions: Range<u32>) -> impl Iterator<Item = u32> {
        positions.map(move |position| self.slot(position)).filter(move |&slot| slot < self.slots)
    }

    fn slot(self, position: u32) -> u32 {
        let halves = (position >> self.half, position & ((1 << self.half) - 1));
        let (upper, lower) = (0..ROUNDS).fold(halves, |(left, right), round| {
            let keyed = right.wrapping_add(self.seed.rotate_left(8 * round));
            // Multiplying by 2^32 / golden ratio spreads neighbours over the upper bits.
            (right, left ^ (keyed.wrapping_mul(2_654_435_769) >> (32 - self.half)))
        });
        upper << self.half | lower
    }
}

const ROUNDS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(over: Duration, slots: u32, seed: u32) -> DrainSchedule {
        DrainSchedule::new(Instant::now(), over, Duration::from_secs(1), slots, seed)
    }

    /// Every slot is due once, in even parts over the time given.
    #[test]
    fn every_slot_is_due_once_and_evenly() {
        for (slots, seed) in [(1000, 0), (1000, 7), (1024, 1), (1025, u32::MAX)] {
            let mut drain = drain(Duration::from_secs(1), slots, seed);
            let mut due_so_far = Vec::new();
            for step in 0..=50 {
                let due: Vec<u32> = drain.due(drain.started + DrainSchedule::STEP * step).collect();
                assert!(due.len() <= 60, "{} at once", due.len());
                due_so_far.extend(due);
                let even = slots as usize * (step as usize + 1).min(50) / 50;
                assert!(
                    due_so_far.len().abs_diff(even) < 100,
                    "{} after step {step}",
                    due_so_far.len()
                );
            }
            due_so_far.sort();
            assert_eq!(due_so_far, (0..slots).collect::<Vec<_>>());
        }
    }

    /// However few slots there are, each is due once.
    #[test]
    fn any_number_of_slots() {
        for slots in 0..70 {
            let mut drain = drain(Duration::ZERO, slots, slots * 0x0123_4567);
            let mut due_so_far: Vec<u32> = drain.due(drain.started).collect();
            due_so_far.sort();
            assert_eq!(due_so_far, (0..slots).collect::<Vec<_>>());
        }
    }

    /// Neighbours are not due together, the order does not depend on the arrival, and another seed gives
    /// another order.
    #[test]
    fn the_order_is_random() {
        const SLOTS: u32 = 10_000;
        let order = |seed| drain(Duration::ZERO, SLOTS, seed).order.slots(0..1 << 14);
        for seed in [0, 1, 2, 0xDEAD_BEEF, u32::MAX] {
            let due_so_far: Vec<u32> = order(seed).collect();
            let half = SLOTS / 2;
            let early = due_so_far[..half as usize].iter().filter(|&&slot| slot < half).count();
            // 2,500 of a shuffled half, with a standard deviation of 25.
            assert!((2350..2650).contains(&early), "seed {seed}: {early} of the first 5,000");
            let near = due_so_far.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
            // One pair of 50 by chance.
            assert!(near < 400, "seed {seed}: {near} neighbours are due one after the other");
        }
        let same = order(1).zip(order(2)).filter(|(one, other)| one == other).count();
        assert!(same < 100, "{same} slots are due at the same time");
    }
}
