//! Waking a shard, or a thread of several shards, that sleeps in the kernel.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Ends the wait of a shard from another thread. Cheap to clone.
#[derive(Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new(event: Arc<EventFd>) -> Self {
        Waker(event)
    }

    /// Wakes the shard. Several calls before it wakes count as one.
    pub fn wake(&self) {
        // Fails only when the counter of eventfd(2) is at its maximum: the shard is being woken already.
        let _ = self.0.write(1);
    }
}

/// The wait of a thread that drives several rings of io_uring. Cheap to clone.
#[derive(Clone)]
pub struct SharedWait(pub(super) Arc<EventFd>);

impl SharedWait {
    /// A wait without rings. The rings are made with it
    /// ([`RingConfig::shared_wait`](super::RingConfig::shared_wait)).
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE` if there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(SharedWait(Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?)))
    }

    /// Returns when an operation of a ring has completed or the waker of one was used, since the last call or
    /// now. May return early.
    ///
    /// # Errors
    /// None that a running process sees.
    pub fn wait(&self) -> io::Result<()> {
        match self.0.read() {
            // A signal, or task work of a ring.
            Err(Errno::EINTR) => Ok(()),
            read => Ok(read.map(drop)?),
        }
    }
}
