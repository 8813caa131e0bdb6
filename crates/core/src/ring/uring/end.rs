//! The end of a ring: no descriptor stays open, and no memory is freed that the kernel may access.

use std::mem;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use io_uring::opcode;
use nix::unistd;

use super::Uring;
use super::user_data::{self, ACCEPT, IGNORED};
use crate::listener::Listener;
use crate::ring::config::Descriptors;
use crate::ring::operation::{Completion, OpKind};

/// A ring that ends waits no longer than this for its last operations, which takes no time unless the
/// machine is overloaded.
const END_WAIT_MAX: Duration = Duration::from_secs(3);
/// One wait of these.
const END_WAIT: Duration = Duration::from_millis(100);

impl Drop for Uring {
    fn drop(&mut self) {
        self.end_descriptors();
        // The kernel cancels operations in flight only after the ring is closed, at a time of its
        // own. So the memory of sends and accepts is leaked to it.
        if !self.sends.is_empty() {
            mem::forget(mem::take(&mut self.sends));
        }
        if !self.accepts.is_empty() {
            mem::forget(mem::take(&mut self.accepts));
        }
    }
}

impl Uring {
    /// Ends accepts that the end of listening does not: those on inherited listeners.
    pub(in crate::ring) fn stop_accepting(&mut self) {
        if self.common.listeners.iter().any(Listener::is_inherited) {
            self.cancel_accepts();
        }
    }

    fn cancel_accepts(&mut self) {
        let accepts: Vec<u64> = self
            .accepts
            .iter()
            .map(|(key, accept)| user_data::pack(ACCEPT, key, accept.slot))
            .collect();
        for accept in accepts {
            let cancel = opcode::AsyncCancel::new(accept).build();
            self.submit_later(cancel.user_data(user_data::pack(IGNORED, 0, 0)));
        }
    }

    /// Closes every descriptor of the process that a completion carries and the shard has not read:
    /// accepted sockets, and the descriptors that shutdowns have installed. The process would keep
    /// them open, with a peer at the other end. Cancels accepts in flight.
    pub(super) fn end_descriptors(&mut self) {
        self.cancel_accepts();
        let end = Instant::now() + END_WAIT_MAX;
        loop {
            self.close_accepted();
            let is_over = self.accepts.is_empty() && self.shutdowns.is_empty();
            if is_over || Instant::now() >= end || self.submit_and_wait(Some(END_WAIT)).is_err() {
                break;
            }
        }
        // A failed enter may have completed operations.
        self.close_accepted();
    }

    fn close_accepted(&mut self) {
        while let Some(Completion { token, result, .. }) = self.pop() {
            if let (OpKind::Accept, Ok(fd), Descriptors::Normal) =
                (token.kind, result, self.descriptors)
            {
                // The kernel frees the descriptor even if close fails (close(2)), so the error is
                // ignored.
                let _ = unistd::close(fd as RawFd);
            }
        }
    }
}
