//! The state of one socket between edges.

/// Flags of one slot's socket, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readiness(u8);

impl Readiness {
    /// A poll is in flight.
    pub(super) const POLLED: u8 = 1;
    /// An edge said that there is something to read, and no receive has found the socket empty since.
    pub(super) const READABLE: u8 = 2;
    /// Behind the bytes to read is something that a receive stops at, and that no other edge will
    /// report: the peer's FIN, an error, urgent data. Only a receive that finds nothing at all
    /// clears this flag.
    pub(super) const STOPS: u8 = 4;
    /// An operation on the socket is blocked.
    pub(super) const BLOCKED: u8 = 8;

    pub(super) fn has(self, flags: u8) -> bool {
        self.0 & flags != 0
    }

    pub(super) fn set(&mut self, flags: u8) {
        self.0 |= flags;
    }

    /// Returns whether one of the flags was set.
    pub(super) fn clear(&mut self, flags: u8) -> bool {
        let had = self.has(flags);
        self.0 &= !flags;
        had
    }
}
