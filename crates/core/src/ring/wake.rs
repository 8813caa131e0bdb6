//! Waking a shard that sleeps in the kernel.

use std::sync::Arc;

use nix::sys::eventfd::EventFd;

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
