//! Waking a shard that sleeps in the kernel.

use std::sync::Arc;

use nix::sys::eventfd::EventFd;

/// Ends another thread's wait. Cheap to clone.
#[derive(Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new(event: Arc<EventFd>) -> Self {
        Waker(event)
    }

    /// Wakes the shard; once is enough however many reasons there are.
    pub fn wake(&self) {
        // Fails only when the counter is at its maximum: then the shard is being woken already.
        let _ = self.0.write(1);
    }
}
