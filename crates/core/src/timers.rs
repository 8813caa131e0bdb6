//! One coarse timer per connection, two bytes each.
//!
//! A dense array holds for each slot the tick at which its timer runs out. Once a tick the whole
//! array is looked through, in slices spread evenly over the tick, so that connections opened
//! together do not all act at the same moment and no turn looks at more than a slice. A timer never
//! runs out early and at most one tick late.

use std::time::{Duration, Instant};

/// Bytes that a connection's timer takes.
pub const TIMER_BYTES: usize = size_of::<u16>();

/// The timers of one shard.
pub(crate) struct Timers {
    /// By slot: the tick at which it runs out; 0 is never.
    ends: Vec<u16>,
    tick: Duration,
    slices: u32,
    /// The tick that is being swept, modulo 2^16.
    now: u16,
    started: Instant,
    /// The next slice of this tick.
    slice: u32,
    /// How many slots this tick sweeps: those that existed when it began.
    swept: u32,
}

/// The furthest a timer may be set: half the range, so that late and early can be told apart.
const TICKS_MAX: u16 = 0x7FFF;

impl Timers {
    pub(crate) fn new(conns_max: u32, tick: Duration, slices: u32, now: Instant) -> Self {
        assert!(slices > 0 && !tick.is_zero());
        let ends = Vec::with_capacity(conns_max as usize);
        Timers { ends, tick, slices, now: 1, started: now, slice: 0, swept: 0 }
    }

    /// How long a tick is.
    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    /// Sets the timer of slot `index`, in place of the one it had.
    pub(crate) fn set(&mut self, index: u32, ticks: u16) {
        if self.ends.len() <= index as usize {
            self.ends.resize(index as usize + 1, 0);
        }
        // A slot that this tick's sweep has passed sees tick `n` earlier than `n` ticks from now.
        let passed = u16::from(index < self.boundary(self.slice));
        let end = self.now.wrapping_add(ticks.clamp(1, TICKS_MAX - 1) + passed);
        // Where 0 would be the end, a tick later is.
        self.ends[index as usize] = end.max(1);
    }

    /// Forgets the timer of slot `index`.
    pub(crate) fn clear(&mut self, index: u32) {
        if let Some(end) = self.ends.get_mut(index as usize) {
            *end = 0;
        }
    }

    /// The first slot of a slice.
    fn boundary(&self, slice: u32) -> u32 {
        (u64::from(self.swept) * u64::from(slice) / u64::from(self.slices)) as u32
    }

    /// When the next slice is due.
    pub(crate) fn next(&self) -> Instant {
        self.started + self.tick * self.slice / self.slices
    }

    /// Begins a new tick now: nothing is set, so the ticks that have passed do not matter.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.started = now;
        self.slice = 0;
    }

    /// Looks at the next slice, if it is due by `now`, and adds the slots that ran out to
    /// `expired`. Their timers are cleared. Returns whether there was a slice to look at.
    pub(crate) fn sweep(&mut self, now: Instant, expired: &mut Vec<u32>) -> bool {
        if now < self.next() {
            return false;
        }
        if self.slice == 0 {
            self.swept = self.ends.len() as u32;
        }
        let (from, to) = (self.boundary(self.slice), self.boundary(self.slice + 1));
        for (end, index) in self.ends[from as usize..to as usize].iter_mut().zip(from..) {
            if *end != 0 && self.now.wrapping_sub(*end) < TICKS_MAX {
                *end = 0;
                expired.push(index);
            }
        }
        self.slice += 1;
        if self.slice == self.slices {
            self.slice = 0;
            self.started += self.tick;
            self.now = self.now.wrapping_add(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// A timer set at any moment, for any slot, runs out neither early nor more than a tick late.
    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut timers = Timers::new(64, TICK, 8, start);
        let mut set: Vec<Option<(Instant, u16)>> = vec![None; 64];
        let mut now = start;
        let mut ran_out = 0;
        // Long enough for the ticks to wrap.
        for _ in 0..800_000 {
            now += Duration::from_micros(rng.u64(0..20_000));
            let mut expired = Vec::new();
            while timers.sweep(now, &mut expired) {}
            for index in expired.drain(..) {
                let (at, ticks) = set[index as usize].take().expect("was set");
                let took = now - at;
                let span = TICK * u32::from(ticks);
                // The clock of this test steps by up to 20 ms, and a wrap can cost a tick.
                let late = TICK * 2 + Duration::from_millis(20);
                assert!(took >= span && took <= span + late, "{took:?} for {span:?}");
                ran_out += 1;
            }
            let (index, ticks) = (rng.u32(0..64), rng.u16(1..50));
            timers.set(index, ticks);
            set[index as usize] = Some((now, ticks));
            if rng.u8(0..8) == 0 {
                timers.clear(index);
                set[index as usize] = None;
            }
        }
        assert!(ran_out > 1000, "{ran_out} timers ran out");
    }

    /// The timers of slots set together run out spread over a tick, a slice at a time.
    #[test]
    fn expiries_are_spread() {
        let start = Instant::now();
        let mut timers = Timers::new(1000, TICK, 10, start);
        (0..1000).for_each(|index| timers.set(index, 3));
        let mut expired = Vec::new();
        let mut most = 0;
        for ms in 0..1000 {
            let before = expired.len();
            while timers.sweep(start + Duration::from_millis(ms), &mut expired) {}
            most = most.max(expired.len() - before);
        }
        assert_eq!(expired.len(), 1000);
        assert_eq!(most, 100);
    }
}
