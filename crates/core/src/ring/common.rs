//! The parts that a ring has on either interface of the kernel.

use std::io;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::arena::Arena;
use super::config::RingConfig;
use super::wake::Waker;
use crate::listener::Listener;

/// Receive buffers, waker and listener of one ring.
pub(super) struct RingCommon {
    pub(super) arena: Arena,
    /// Readable when the ring's thread has been woken.
    pub(super) wake: Arc<EventFd>,
    pub(super) listener: Option<Listener>,
    /// Whether sockets that connect are reset when they are closed.
    pub(super) reset_on_close: bool,
}

impl RingCommon {
    /// # Errors
    /// `ENOMEM` if there is no memory for the buffers, `EMFILE` or `ENFILE` if there is no descriptor
    /// for the waker.
    pub(super) fn new(config: RingConfig) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(RingCommon {
            arena: Arena::new(config.buffers, config.buffer_bytes)?,
            wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
            listener: config.listener,
            reset_on_close: config.reset_on_close,
        })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.wake))
    }

    pub(super) fn stop_listening(&self) {
        if let Some(listener) = &self.listener {
            listener.stop();
        }
    }
}
