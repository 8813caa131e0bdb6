//! The counters of a shard. Its own thread writes them, any thread reads them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::addresses::Excess;
use crate::conn::CloseReason;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may: this is a load and a store, not an atomic addition.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Replaces the value. Only the owning thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, as last seen by this thread.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One shard's totals since its start; fields that say "now" are gauges.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open now.
    pub open: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections that exceeded a limit of their address, by [`Excess`].
    pub refused: [Counter; Excess::ALL.len()],
    /// Connections made to other servers.
    pub connected: Counter,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_failed: Counter,
    /// Times that the rate of accepts left connections in the backlog.
    pub accepts_paced: Counter,
    /// Connections that ended, by [`CloseReason`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
    /// Receives that returned bytes.
    pub receives: Counter,
    /// Pieces that were sent to their end.
    pub sends: Counter,
    /// Sends of which the kernel took only a part, so that they were continued.
    pub sends_short: Counter,
    /// Times that a connection waited for a receive buffer.
    pub starved: Counter,
    /// Times that a connection was not read because it was congested.
    pub paused: Counter,
    /// Times that the input of a held connection was resumed.
    pub resumed: Counter,
    /// Receive buffers that are lent to the kernel now.
    pub lent: Counter,
    /// Pieces that wait to be sent now, without those that are being sent.
    pub pieces: Counter,
    /// Connections with input that the protocol has not consumed yet, now.
    pub tails: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Completions handled.
    pub completions: Counter,
}
