//! What goes wrong in a simulation, and when.

use fastrand::Rng;
use nix::errno::Errno;

/// How likely each misfortune is, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A poll completes and there is nothing to read.
    pub spurious_ready: u8,
    /// A receive or a send stops in the middle.
    pub short: u8,
    /// A receive or a send ends with `EINTR` or `EAGAIN` and has done nothing.
    pub interrupted: u8,
    /// What could complete does so in a later turn.
    pub late: u8,
    /// A shutdown takes an operation, as it does for direct descriptors.
    pub slow_shutdown: u8,
    /// A shutdown that takes an operation fails for want of descriptors.
    pub shutdown: u8,
    /// An accept fails; what it would have accepted stays where it is.
    pub accept: u8,
    /// A connect fails, at once or later.
    pub connect: u8,
    /// A receive or a send ends with an error that breaks the connection.
    pub broken: u8,
    /// The submission queue takes only a part of what is pushed.
    pub small_queue: bool,
}

impl Faults {
    /// Nothing goes wrong, though completions come in any order.
    pub fn none() -> Self {
        Faults::default()
    }

    /// Everything goes wrong that must not be noticed by the peers.
    pub fn bad_day() -> Self {
        Faults {
            spurious_ready: 15,
            short: 40,
            interrupted: 15,
            late: 40,
            slow_shutdown: 50,
            accept: 10,
            small_queue: true,
            ..Faults::none()
        }
    }
}

/// Draws everything random from one seed.
pub(super) struct Fate {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
}

impl Fate {
    pub(super) fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.rng.u8(0..100) < percent
    }

    /// How much of `len` an operation gets to: mostly all of it.
    pub(super) fn cut(&mut self, len: usize) -> usize {
        if len > 0 && self.chance(self.faults.short) { self.rng.usize(1..=len) } else { len }
    }

    /// How many of `pushed` operations the kernel takes at a time.
    pub(super) fn taken(&mut self, pushed: usize) -> usize {
        if self.faults.small_queue { self.rng.usize(1..=pushed.max(8)).min(pushed) } else { pushed }
    }

    /// Why a receive or a send does not even begin.
    pub(super) fn misfortune(&mut self) -> Option<Errno> {
        if self.chance(self.faults.interrupted) {
            return Some(self.one_of(&[Errno::EINTR, Errno::EAGAIN]));
        }
        self.chance(self.faults.broken).then(|| self.one_of(&BROKEN))
    }

    pub(super) fn accept_fails(&mut self) -> Option<Errno> {
        self.chance(self.faults.accept).then(|| self.one_of(&ACCEPT))
    }

    pub(super) fn connect_fails(&mut self) -> Option<Errno> {
        self.chance(self.faults.connect).then(|| self.one_of(&CONNECT))
    }

    fn one_of(&mut self, errors: &[Errno]) -> Errno {
        errors[self.rng.usize(0..errors.len())]
    }
}

const ACCEPT: [Errno; 5] =
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ECONNABORTED, Errno::EINTR];
const CONNECT: [Errno; 4] =
    [Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::EHOSTUNREACH, Errno::EADDRNOTAVAIL];
const BROKEN: [Errno; 4] =
    [Errno::ECONNRESET, Errno::ETIMEDOUT, Errno::EHOSTUNREACH, Errno::ENOBUFS];
