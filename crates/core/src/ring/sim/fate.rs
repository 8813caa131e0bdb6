//! Decides when things go wrong.

use std::collections::HashSet;

use fastrand::Rng;
use nix::errno::Errno;

use super::faults::{self, Faults};

/// Draws everything random from one seed.
///
/// Decisions are numbered, and each depends on the seed and on its number alone. So a run can be
/// repeated with some of its misfortunes left out, and the rest stay what they were: that is how a
/// failure is made smaller.
pub(super) struct Fate {
    seed: u64,
    pub(super) faults: Faults,
    decisions: u64,
    /// The decisions that may go wrong; `None`: each.
    only: Option<HashSet<u64>>,
    /// The decisions that did, and how.
    happened: Vec<(u64, &'static str)>,
}

impl Fate {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Fate { seed, faults, decisions: 0, only: None, happened: Vec::new() }
    }

    pub(super) fn allow(&mut self, only: HashSet<u64>) {
        self.only = Some(only);
    }

    pub(super) fn happened(&self) -> &[(u64, &'static str)] {
        &self.happened
    }

    /// Whether `what` happens, which does so in `percent` of all cases; and if it does, from where
    /// to draw how.
    fn happens(&mut self, percent: u8, what: &'static str) -> Option<Rng> {
        if percent == 0 {
            return None;
        }
        self.decisions += 1;
        // Odd multiples of the golden ratio: the seeds of neighbours have nothing in common.
        let mut rng =
            Rng::with_seed(self.seed ^ self.decisions.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let happens = rng.u8(0..100) < percent;
        let allowed = || self.only.as_ref().is_none_or(|only| only.contains(&self.decisions));
        if !happens || !allowed() {
            return None;
        }
        self.happened.push((self.decisions, what));
        Some(rng)
    }

    fn one_of(&mut self, percent: u8, what: &'static str, errors: &[Errno]) -> Option<Errno> {
        let mut rng = self.happens(percent, what)?;
        Some(errors[rng.usize(0..errors.len())])
    }

    /// From where to draw an order, if it is not the one in which things began.
    pub(super) fn reorders(&mut self) -> Option<Rng> {
        self.happens(self.faults.reordered, "reordered")
    }

    pub(super) fn is_late(&mut self) -> bool {
        self.happens(self.faults.late, "late").is_some()
    }

    pub(super) fn is_ready_for_nothing(&mut self) -> bool {
        self.happens(self.faults.spurious_ready, "spurious readiness").is_some()
    }

    /// How much of `len` an operation gets to: mostly all of it.
    pub(super) fn cut(&mut self, len: usize) -> usize {
        if len < 2 {
            return len;
        }
        let cut = self.happens(self.faults.short, "short");
        cut.map_or(len, |mut rng| rng.usize(1..len))
    }

    /// How many of `pushed` operations the kernel takes at a time.
    pub(super) fn taken(&mut self, pushed: usize) -> usize {
        if pushed < 2 {
            return pushed;
        }
        let full = self.happens(self.faults.full_queue, "full submission queue");
        full.map_or(pushed, |mut rng| rng.usize(1..pushed))
    }

    pub(super) fn interrupts(&mut self) -> Option<Errno> {
        self.one_of(self.faults.interrupted, "interrupted", &faults::INTERRUPTED)
    }

    pub(super) fn breaks(&mut self) -> Option<Errno> {
        self.one_of(self.faults.broken, "broken", &faults::BROKEN)
    }

    pub(super) fn accept_fails(&mut self) -> Option<Errno> {
        self.one_of(self.faults.accept, "failed accept", &faults::ACCEPT)
    }

    pub(super) fn aborts(&mut self) -> Option<Errno> {
        self.one_of(self.faults.aborted, "aborted before it was accepted", &faults::ABORTED)
    }

    pub(super) fn connect_fails(&mut self) -> Option<Errno> {
        self.one_of(self.faults.connect, "failed connect", &faults::CONNECT)
    }

    pub(super) fn open_fails(&mut self) -> Option<Errno> {
        self.one_of(self.faults.connect, "no socket to connect", &[Errno::EMFILE])
    }

    pub(super) fn shutdown_is_slow(&mut self) -> bool {
        self.happens(self.faults.slow_shutdown, "slow shutdown").is_some()
    }

    pub(super) fn shutdown_fails(&mut self) -> Option<Errno> {
        self.one_of(self.faults.shutdown, "failed shutdown", &[Errno::EMFILE])
    }

    pub(super) fn close_fails(&mut self) -> Option<Errno> {
        self.one_of(self.faults.close, "failed close", &faults::CLOSE)
    }

    pub(super) fn wakes(&mut self) -> bool {
        self.happens(self.faults.woken, "woken for nothing").is_some()
    }

    /// Milliseconds that a wait lasts too long.
    pub(super) fn oversleeps(&mut self) -> u64 {
        let overslept = self.happens(self.faults.overslept, "woken late");
        overslept.map_or(0, |mut rng| rng.u64(1..=faults::OVERSLEPT_MAX_MS))
    }

    pub(super) fn clock_is_frozen(&mut self) -> bool {
        self.happens(self.faults.frozen, "the clock stands still").is_some()
    }
}
