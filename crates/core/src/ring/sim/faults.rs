//! What goes wrong in a simulation, and how often.

use nix::errno::Errno;

/// How likely each misfortune is, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// What could complete first does so after something else.
    pub reordered: u8,
    /// What could complete does so in a later turn, whatever has become of its socket by then.
    pub late: u8,
    /// A poll completes and there is nothing to read.
    pub spurious_ready: u8,
    /// A receive or a send stops in the middle.
    pub short: u8,
    /// A receive or a send ends with `EINTR` or `EAGAIN` and has done nothing.
    pub interrupted: u8,
    /// A receive or a send ends with an error that breaks the connection.
    pub broken: u8,
    /// An accept fails for a reason that is the machine's; what it would have accepted waits on.
    pub accept: u8,
    /// An accept fails and takes the connection with it: errors that were already pending on it
    /// (accept(2)).
    pub aborted: u8,
    /// A connect fails, at once or later.
    pub connect: u8,
    /// A shutdown takes an operation, as it does for direct descriptors.
    pub slow_shutdown: u8,
    /// A shutdown that takes an operation fails for want of descriptors.
    pub shutdown: u8,
    /// A close fails. The socket is closed all the same (close(2)).
    pub close: u8,
    /// The submission queue takes only a part of what was pushed.
    pub full_queue: u8,
    /// A wait ends though nothing has happened.
    pub woken: u8,
    /// A wait lasts longer than it should, by up to 700 ms.
    pub overslept: u8,
    /// The clock does not move while a turn has something to do.
    pub frozen: u8,
}

/// Milliseconds that a wait lasts too long at most.
pub(super) const OVERSLEPT_MAX_MS: u64 = 700;

impl Faults {
    /// Nothing goes wrong, though completions come in any order.
    pub fn none() -> Self {
        Faults { reordered: 90, ..Faults::default() }
    }

    /// Everything goes wrong that must not be noticed by the peers.
    pub fn bad_day() -> Self {
        Faults {
            late: 40,
            spurious_ready: 15,
            short: 40,
            interrupted: 15,
            accept: 10,
            slow_shutdown: 50,
            close: 10,
            full_queue: 70,
            woken: 5,
            frozen: 20,
            ..Faults::none()
        }
    }
}

/// The machine has nothing left to accept with, or was interrupted.
pub(super) const ACCEPT: [Errno; 6] =
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EINTR, Errno::EAGAIN];
/// What was wrong with the connection before it was accepted (accept(2), "Error handling").
pub(super) const ABORTED: [Errno; 10] = [
    Errno::ECONNABORTED,
    Errno::EPROTO,
    Errno::EPERM,
    Errno::ENETDOWN,
    Errno::ENOPROTOOPT,
    Errno::EHOSTDOWN,
    Errno::ENONET,
    Errno::EHOSTUNREACH,
    Errno::EOPNOTSUPP,
    Errno::ENETUNREACH,
];
pub(super) const CONNECT: [Errno; 6] = [
    Errno::ECONNREFUSED,
    Errno::ETIMEDOUT,
    Errno::EHOSTUNREACH,
    Errno::ENETUNREACH,
    Errno::ECONNRESET,
    Errno::EADDRNOTAVAIL,
];
pub(super) const BROKEN: [Errno; 6] = [
    Errno::ECONNRESET,
    Errno::ETIMEDOUT,
    Errno::EHOSTUNREACH,
    Errno::ENETUNREACH,
    Errno::ENOBUFS,
    Errno::ENOMEM,
];
pub(super) const INTERRUPTED: [Errno; 2] = [Errno::EINTR, Errno::EAGAIN];
pub(super) const CLOSE: [Errno; 3] = [Errno::EIO, Errno::EINTR, Errno::ENOSPC];
