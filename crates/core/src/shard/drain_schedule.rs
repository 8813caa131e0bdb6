//! Leaving in order: connections say goodbye a few at a time and in random order, so that their
//! clients do not all come back to somebody else in the same moment.
//!
//! Slots are given out in the order of arrival, so neighbours are clients that came together, as all
//! those behind one proxy do that was started anew. Told in that order, they would leave together.

use std::ops::Range;
use std::time::{Duration, Instant};

/// A drain in progress.
pub(crate) struct Drain {
    started: Instant,
    over: Duration,
    /// How long the last ones may take after that.
    linger: Duration,
    order: Order,
    /// Places in the order that have had their turn.
    told: u32,
}

impl Drain {
    /// How often a part of the connections is told.
    pub(crate) const STEP: Duration = Duration::from_millis(20);

    /// Tells those in the first `slots` slots, in an order that follows from `seed`. Who comes later
    /// is told on arrival.
    pub(crate) fn new(
        now: Instant,
        over: Duration,
        linger: Duration,
        slots: u32,
        seed: u32,
    ) -> Self {
        Drain { started: now, over, linger, order: Order::new(slots, seed), told: 0 }
    }

    /// The slots to be told now.
    pub(crate) fn due(&mut self, now: Instant) -> impl Iterator<Item = u32> + use<> {
        let part = (now - self.started + Self::STEP).as_secs_f64()
            / self.over.max(Self::STEP).as_secs_f64();
        let until = (f64::from(self.order.places()) * part.min(1.0)) as u32;
        let due = self.told..until.max(self.told);
        self.told = due.end;
        self.order.slots(due)
    }

    /// Whether those who are still here have had their time.
    pub(crate) fn over(&self, now: Instant) -> bool {
        now >= self.started + self.over + self.linger + Self::STEP
    }
}

/// Every slot once, in an order that is computed and not remembered, by a Feistel network: each round
/// changes one half of a number by what the other half says, and so gives different numbers to
/// different ones. Places beyond the slots stay empty.
#[derive(Clone, Copy)]
struct Order {
    slots: u32,
    /// Bits of half a place.
    half: u32,
    seed: u32,
}

impl Order {
    fn new(slots: u32, seed: u32) -> Self {
        let bits = slots.next_power_of_two().trailing_zeros();
        Order { slots, half: bits.div_ceil(2).max(1), seed }
    }

    fn places(self) -> u32 {
        1 << (2 * self.half)
    }

    fn slots(self, places: Range<u32>) -> impl Iterator<Item = u32> {
        places.map(move |place| self.slot(place)).filter(move |&slot| slot < self.slots)
    }

    fn slot(self, place: u32) -> u32 {
        let halves = (place >> self.half, place & ((1 << self.half) - 1));
        let (upper, lower) = (0..ROUNDS).fold(halves, |(left, right), round| {
            let keyed = right.wrapping_add(self.seed.rotate_left(8 * round));
            // Multiplying by 2^32 / golden ratio spreads them over the upper bits.
            (right, left ^ (keyed.wrapping_mul(2_654_435_769) >> (32 - self.half)))
        });
        upper << self.half | lower
    }
}

const ROUNDS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(over: Duration, slots: u32, seed: u32) -> Drain {
        Drain::new(Instant::now(), over, Duration::from_secs(1), slots, seed)
    }

    /// Every slot is told once, in even parts over the time given.
    #[test]
    fn everybody_is_told_once_and_evenly() {
        for (slots, seed) in [(1000, 0), (1000, 7), (1024, 1), (1025, u32::MAX)] {
            let mut drain = drain(Duration::from_secs(1), slots, seed);
            let mut told = Vec::new();
            for step in 0..=50 {
                let due: Vec<u32> = drain.due(drain.started + Drain::STEP * step).collect();
                assert!(due.len() <= 60, "{} at once", due.len());
                told.extend(due);
                let even = slots as usize * (step as usize + 1).min(50) / 50;
                assert!(told.len().abs_diff(even) < 100, "{} after step {step}", told.len());
            }
            told.sort();
            assert_eq!(told, (0..slots).collect::<Vec<_>>());
        }
    }

    /// However few the slots are, each is told once.
    #[test]
    fn any_number_of_slots() {
        for slots in 0..70 {
            let mut drain = drain(Duration::ZERO, slots, slots * 0x0123_4567);
            let mut told: Vec<u32> = drain.due(drain.started).collect();
            told.sort();
            assert_eq!(told, (0..slots).collect::<Vec<_>>());
        }
    }

    /// Neighbours do not leave together, the order says nothing of the arrival, and another seed
    /// gives another order.
    #[test]
    fn the_order_is_random() {
        const SLOTS: u32 = 10_000;
        let order = |seed| drain(Duration::ZERO, SLOTS, seed).order.slots(0..1 << 14);
        for seed in [0, 1, 2, 0xDEAD_BEEF, u32::MAX] {
            let told: Vec<u32> = order(seed).collect();
            let half = SLOTS / 2;
            let early = told[..half as usize].iter().filter(|&&slot| slot < half).count();
            // 2,500 of a shuffled half, with a standard deviation of 25.
            assert!((2350..2650).contains(&early), "seed {seed}: {early} of the first 5,000");
            let near = told.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
            // One pair of 50 by chance.
            assert!(near < 400, "seed {seed}: {near} neighbours leave one after the other");
        }
        let same = order(1).zip(order(2)).filter(|(one, other)| one == other).count();
        assert!(same < 100, "{same} slots have their turn at the same time");
    }
}
