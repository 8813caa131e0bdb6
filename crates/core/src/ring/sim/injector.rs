//! Decides when a fault is injected.

use std::collections::HashSet;

use fastrand::Rng;
use nix::errno::Errno;

use super::faults::{self, Faults};

/// Draws every random decision from one seed.
///
/// Decisions are numbered, and each depends on the seed and on its number alone. So a run can be
/// repeated without some of its faults while the others stay the same: that is how a failing run is
/// shrunk.
pub(super) struct Injector {
    seed: u64,
    pub(super) faults: Faults,
    /// The number of the last decision.
    decisions: u64,
    /// The decisions that may inject a fault; `None`: all.
    allowed: Option<HashSet<u64>>,
    /// The decisions that injected a fault, and which one.
    injected: Vec<(u64, &'static str)>,
}

impl Injector {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Injector { seed, faults, decisions: 0, allowed: None, injected: Vec::new() }
    }

    pub(super) fn allow(&mut self, allowed: HashSet<u64>) {
        self.allowed = Some(allowed);
    }

    pub(super) fn injected(&self) -> &[(u64, &'static str)] {
        &self.injected
    }

    /// Injects the fault `name` in `percent` of all cases. Returns the generator for its details.
    fn inject(&mut self, percent: u8, name: &'static str) -> Option<Rng> {
        if percent == 0 {
            return None;
        }
        self.decisions += 1;
        // Odd multiples of the golden ratio: the seeds of neighbours have nothing in common.
        let mut rng =
            Rng::with_seed(self.seed ^ self.decisions.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let is_drawn = rng.u8(0..100) < percent;
        let is_allowed =
            || self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&self.decisions));
        if !is_drawn || !is_allowed() {
            return None;
        }
        self.injected.push((self.decisions, name));
        Some(rng)
    }

    /// Injects one of these errors.
    fn error(&mut self, percent: u8, name: &'static str, errors: &[Errno]) -> Option<Errno> {
        let mut rng = self.inject(percent, name)?;
        Some(errors[rng.usize(0..errors.len())])
    }

    /// The generator of another order than the one in which operations began.
    pub(super) fn reorder(&mut self) -> Option<Rng> {
        self.inject(self.faults.reordered, "reordered")
    }

    pub(super) fn is_late(&mut self) -> bool {
        self.inject(self.faults.late, "late").is_some()
    }

    pub(super) fn is_spuriously_ready(&mut self) -> bool {
        self.inject(self.faults.spurious_ready, "spurious readiness").is_some()
    }

    /// The number of bytes of `len` that an operation transfers: mostly all.
    pub(super) fn transferred(&mut self, len: usize) -> usize {
        if len < 2 {
            return len;
        }
        let cut = self.inject(self.faults.short, "short");
        cut.map_or(len, |mut rng| rng.usize(1..len))
    }

    /// The number of pushed operations that the kernel takes at a time.
    pub(super) fn taken(&mut self, pushed: usize) -> usize {
        if pushed < 2 {
            return pushed;
        }
        let full = self.inject(self.faults.full_queue, "full submission queue");
        full.map_or(pushed, |mut rng| rng.usize(1..pushed))
    }

    pub(super) fn interrupt(&mut self) -> Option<Errno> {
        self.error(self.faults.interrupted, "interrupted", &faults::INTERRUPTED)
    }

    pub(super) fn breakage(&mut self) -> Option<Errno> {
        self.error(self.faults.broken, "broken", &faults::BROKEN)
    }

    pub(super) fn accept_error(&mut self) -> Option<Errno> {
        self.error(self.faults.accept, "failed accept", &faults::ACCEPT)
    }

    pub(super) fn abort_error(&mut self) -> Option<Errno> {
        self.error(self.faults.aborted, "aborted before it was accepted", &faults::ABORTED)
    }

    pub(super) fn connect_error(&mut self) -> Option<Errno> {
        self.error(self.faults.connect, "failed connect", &faults::CONNECT)
    }

    pub(super) fn open_error(&mut self) -> Option<Errno> {
        self.error(self.faults.connect, "no socket to connect", &[Errno::EMFILE])
    }

    pub(super) fn shutdown_is_slow(&mut self) -> bool {
        self.inject(self.faults.slow_shutdown, "slow shutdown").is_some()
    }

    pub(super) fn shutdown_error(&mut self) -> Option<Errno> {
        self.error(self.faults.shutdown, "failed shutdown", &[Errno::EMFILE])
    }

    pub(super) fn close_error(&mut self) -> Option<Errno> {
        self.error(self.faults.close, "failed close", &faults::CLOSE)
    }

    pub(super) fn wakes_spuriously(&mut self) -> bool {
        self.inject(self.faults.woken, "spurious wake").is_some()
    }

    /// Milliseconds by which a wait is too long.
    pub(super) fn oversleeps(&mut self) -> u64 {
        let overslept = self.inject(self.faults.overslept, "late wake");
        overslept.map_or(0, |mut rng| rng.u64(1..=faults::OVERSLEPT_MAX_MS))
    }

    pub(super) fn clock_is_frozen(&mut self) -> bool {
        self.inject(self.faults.frozen, "frozen clock").is_some()
    }
}
