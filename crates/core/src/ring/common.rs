//! The parts that a ring has on either interface of the kernel.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::arena::Arena;
use super::config::{LISTENERS_MAX, RingConfig};
use super::wake::{SharedWait, Waker};
use crate::listener::Listener;

/// Receive buffers, waker and listeners of one ring.
pub(super) struct RingCommon {
    pub(super) arena: Arena,
    /// Readable when the ring's thread has been woken.
    pub(super) wake: Arc<EventFd>,
    pub(super) listeners: Vec<Listener>,
    /// Whether sockets that connect are reset when they are closed.
    pub(super) reset_on_close: bool,
}

impl RingCommon {
    /// # Errors
    /// `ENOMEM` if there is no memory for the buffers, `EMFILE` or `ENFILE` if there is no descriptor
    /// for the waker, `EINVAL` if there are too many listeners.
    pub(super) fn new(config: RingConfig) -> io::Result<Self> {
        if config.listeners.len() > LISTENERS_MAX {
            return Err(Errno::EINVAL.into());
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = match config.shared_wait {
            Some(SharedWait(wake)) => wake,
            None => Arc::new(EventFd::from_value_and_flags(0, flags)?),
        };
        Ok(RingCommon {
            arena: Arena::new(config.buffers, config.buffer_bytes)?,
            wake,
            listeners: config.listeners,
            reset_on_close: config.reset_on_close,
        })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.wake))
    }

    pub(super) fn stop_listening(&self) {
        self.listeners.iter().for_each(Listener::stop);
    }
}
