//! The faults of a simulation, and how often each is injected.

use nix::errno::Errno;

/// The probability of each fault in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Completions come in another order than the operations began.
    pub reordered: u8,
    /// An operation that could complete does so in a later turn, whatever has become of its socket.
    pub late: u8,
    /// A poll completes and there is nothing to read.
    pub spurious_ready: u8,
    /// A receive or a send transfers fewer bytes than it could.
    pub short: u8,
    /// A receive or a send fails with `EINTR` or `EAGAIN` and has transferred nothing.
    pub interrupted: u8,
    /// A receive or a send fails with an error that breaks the connection.
    pub broken: u8,
    /// An accept fails because of the machine; the connection goes on waiting.
    pub accept: u8,
    /// An accept fails with an error that was pending on the connection, which is lost (accept(2)).
    pub aborted: u8,
    /// A connect fails, at once or later.
    pub connect: u8,
    /// A shutdown takes an operation, as it does for direct descriptors.
    pub slow_shutdown: u8,
    /// A shutdown that takes an operation fails for want of descriptors.
    pub shutdown: u8,
    /// A close fails. The socket is closed all the same (close(2)).
    pub close: u8,
    /// The submission queue takes only some of the pushed operations.
    pub full_queue: u8,
    /// A wait ends although nothing has happened.
    pub woken: u8,
    /// A wait lasts longer than it should, by up to 700 ms.
    pub overslept: u8,
    /// The clock does not move in a turn with completions.
    pub frozen: u8,
}

/// Largest number of milliseconds by which a wait is too long.
pub(super) const OVERSLEPT_MAX_MS: u64 = 700;

impl Faults {
    /// No faults, but completions in any order.
    pub fn none() -> Self {
        Faults { reordered: 90, ..Faults::default() }
    }

    /// Every fault that a shard hides from its peers.
    pub fn hidden() -> Self {
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
/// Errors that were pending on a connection before it was accepted (accept(2), "Error handling").
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
