//! One coarse timer per connection, two bytes each.
//!
//! A dense array holds for each slot the tick at which its timer expires. A sweep reads the whole array
//! once a tick, in slices spread evenly over the tick, so that connections opened together do not all
//! expire at the same moment and no turn reads more than a slice. A slot's slice never changes, so a
//! timer never expires early, and at most one tick late.

use std::time::{Duration, Instant};

/// Bytes that a connection's timer takes.
pub const TIMER_BYTES: usize = size_of::<u16>();

/// The timers of one shard.
pub(crate) struct Timers {
    /// By slot: the tick at which the timer expires; 0 is never.
    ends: Vec<u16>,
    tick: Duration,
    slices: u32,
    /// The tick that is being swept, modulo 2^16.
    now: u16,
    started: Instant,
    /// The next slice of this tick.
    slice: u32,
    /// How many ticks the clock is ahead of the sweep: 0 unless turns are late.
    ahead: u16,
    /// The slices whose moment in the clock's tick has passed: those with lower numbers.
    passed: u32,
}

/// The furthest a timer can be set: half the range, so that late and early can be told apart.
const TICKS_MAX: u16 = 0x7FFF;
/// Connections in one slice of a tick at most.
const SLICE_MAX: u32 = 4096;
/// Slots that are read together: a cache line of them. Slices take turns at lines.
const LINE: usize = 64 / TIMER_BYTES;

impl Timers {
    pub(crate) fn new(max_conns: u32, tick: Duration, slices: u32, now: Instant) -> Self {
        assert!(slices > 0 && !tick.is_zero());
        let slices = slices.max(max_conns.div_ceil(SLICE_MAX));
        let ends = Vec::with_capacity(max_conns as usize);
        Timers { ends, tick, slices, now: 1, started: now, slice: 0, ahead: 0, passed: 0 }
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
        // A slot whose moment in this tick has passed is read `n` ticks from now in tick `n + 1`.
        let passed = u16::from(self.slice_of(index) < self.passed);
        let ticks = ticks.max(1).saturating_add(self.ahead + passed).min(TICKS_MAX - 1);
        // 0 means that no timer is set, so 1 stands for it.
        self.ends[index as usize] = self.now.wrapping_add(ticks).max(1);
    }

    /// Puts the timer of slot `index` off, if it is set, so that it expires in `ticks` ticks at the
    /// earliest.
    pub(crate) fn defer(&mut self, index: u32, ticks: u16) {
        let left = match self.ends.get(index as usize) {
            None | Some(0) => return,
            Some(end) => end.wrapping_sub(self.now).wrapping_sub(self.ahead),
        };
        if left <= ticks || left >= TICKS_MAX {
            self.set(index, ticks);
        }
    }

    /// Clears the timer of slot `index`.
    pub(crate) fn clear(&mut self, index: u32) {
        if let Some(end) = self.ends.get_mut(index as usize) {
            *end = 0;
        }
    }

    fn slice_of(&self, index: u32) -> u32 {
        index / LINE as u32 % self.slices
    }

    /// When the next slice is due.
    pub(crate) fn next(&self) -> Instant {
        self.started + self.tick * self.slice / self.slices
    }

    /// Sets the clock: timers that are set from now on count from `now`, however far the sweep is behind
    /// it.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        let (since, tick) = (now - self.started, self.tick.as_nanos());
        let ahead = since.as_nanos() / tick;
        self.ahead = ahead.min(u128::from(TICKS_MAX)) as u16;
        let part = since.as_nanos() % tick;
        self.passed = (part * u128::from(self.slices)).div_ceil(tick) as u32;
    }

    /// Begins a new tick now. No timer may be set, so the ticks that have passed do not matter.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.started = now;
        self.slice = 0;
        self.begin_turn(now);
    }

    /// Whether slot `index` has a timer.
    pub(crate) fn is_set(&self, index: u32) -> bool {
        self.ends.get(index as usize).is_some_and(|end| *end != 0)
    }

    /// Reads the next slice, if it is due by `now`, clears the timers that have expired, and passes their
    /// slots to `expired`. Returns whether a slice was due.
    pub(crate) fn sweep(&mut self, now: Instant, mut expired: impl FnMut(u32)) -> bool {
        if now < self.next() {
            return false;
        }
        let (slice, slices) = (self.slice as usize, self.slices as usize);
        for (line, ends) in self.ends.chunks_mut(LINE).enumerate().skip(slice).step_by(slices) {
            for (end, index) in ends.iter_mut().zip((line * LINE) as u32..) {
                if *end != 0 && self.now.wrapping_sub(*end) < TICKS_MAX {
                    *end = 0;
                    expired(index);
                }
            }
        }
        self.slice += 1;
        if self.slice == self.slices {
            self.slice = 0;
            self.started += self.tick;
            self.now = self.now.wrapping_add(1);
            match self.ahead {
                // The last slice's moment comes before the tick's end.
                0 => self.passed = 0,
                ahead => self.ahead = ahead - 1,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// A timer set at any moment, for any slot, old or new, expires neither early nor more than a tick
    /// late, even if it is set while the sweep is behind the clock.
    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut timers = Timers::new(4096, TICK, 8, start);
        let mut set: Vec<Option<(Instant, u16)>> = vec![None; 4096];
        let (mut now, mut slots) = (start, 1);
        let mut ran_out = 0;
        // Long enough for the ticks to wrap.
        for _ in 0..400_000 {
            let step = Duration::from_micros(rng.u64(0..40_000));
            now += step;
            timers.begin_turn(now);
            if rng.bool() {
                let (index, ticks) = (rng.u32(0..slots), rng.u16(1..50));
                timers.set(index, ticks);
                set[index as usize] = Some((now, ticks));
            }
            let mut expired = Vec::new();
            while timers.sweep(now, |index| expired.push(index)) {}
            for index in expired.drain(..) {
                let (at, ticks) = set[index as usize].take().expect("was set");
                let (took, span) = (now - at, TICK * u32::from(ticks));
                // The clock of this test steps, and the wrap costs a tick.
                let wrapped = timers.now <= 2;
                let late = TICK * (1 + u32::from(wrapped)) + step;
                assert!(took >= span && took <= span + late, "{took:?} for {span:?}");
                ran_out += 1;
            }
            let index = rng.u32(0..slots);
            match rng.u8(0..8) {
                0 => {
                    timers.clear(index);
                    set[index as usize] = None;
                }
                1 => slots = (slots + rng.u32(0..3)).min(4096),
                _ => {
                    let ticks = rng.u16(1..50);
                    timers.set(index, ticks);
                    set[index as usize] = Some((now, ticks));
                }
            }
        }
        assert!(ran_out > 1000, "{ran_out} timers ran out");
    }

    /// A timer that is put off expires in its own time or after the time that it was put off by,
    /// whichever is later; one that is not set stays so.
    #[test]
    fn a_timer_can_be_put_off() {
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..10_000 {
            let mut timers = Timers::new(4096, TICK, 8, start);
            // Long enough for the ticks to wrap.
            timers.now = rng.u16(..).max(1);
            let (index, ticks, least) = (rng.u32(0..4096), rng.u16(1..20), rng.u16(1..20));
            timers.set(index, ticks);
            let passed = Duration::from_millis(rng.u64(0..100 * u64::from(ticks)));
            let mut now = start + passed;
            timers.begin_turn(now);
            while timers.sweep(now, |early| panic!("{early} ran out early")) {}
            timers.defer(index, least);
            timers.defer((index + 1) % 4096, least);
            let mut ran_out = None;
            while ran_out.is_none() {
                now += TICK / 8;
                timers.begin_turn(now);
                while timers.sweep(now, |index| ran_out = Some(index)) {}
            }
            let least = (TICK * u32::from(ticks)).max(passed + TICK * u32::from(least));
            // The wrap costs a tick.
            let late = least + TICK * 3;
            assert!(now - start >= least && now - start <= late, "{:?}: {least:?}", now - start);
            assert_eq!(ran_out, Some(index));
        }
    }

    /// Timers that are set together expire spread over a tick, a slice at a time.
    #[test]
    fn expiries_are_spread() {
        let start = Instant::now();
        let mut timers = Timers::new(10_000, TICK, 10, start);
        (0..10_000).for_each(|index| timers.set(index, 3));
        let mut expired = Vec::new();
        let mut most = 0;
        for ms in 0..1000 {
            let before = expired.len();
            while timers.sweep(start + Duration::from_millis(ms), |index| expired.push(index)) {}
            most = most.max(expired.len() - before);
        }
        assert_eq!(expired.len(), 10_000);
        assert!(most <= 1000 + LINE, "{most} at once");
    }
}
