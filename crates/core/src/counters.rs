//! What a shard counts. Written by its own thread, read by any.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::addresses::Excess;
use crate::conn::CloseReason;

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may: it is a load and a store, not one locked step.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Replaces the value. Only the owning thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value of a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One shard's totals since it started, unless a field says otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open now.
    pub open: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections that were not served because of their address, by [`Excess`].
    pub refused: [Counter; Excess::ALL.len()],
    /// Connections made to others.
    pub connected: Counter,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_failed: Counter,
    /// Times that connections were left in the backlog because they came too fast.
    pub accepts_paced: Counter,
    /// Connections that ended, by [`CloseReason`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
    /// Receives that gave bytes.
    pub receives: Counter,
    /// Sends that ended.
    pub sends: Counter,
    /// Sends that took only a part and were continued.
    pub sends_short: Counter,
    /// Times that a connection waited for a receive buffer.
    pub starved: Counter,
    /// Times that a connection was not read because too much was queued for it.
    pub paused: Counter,
    /// Times that a connection was read again after the protocol had held its input.
    pub resumed: Counter,
    /// Receive buffers that are lent to the kernel now.
    pub lent: Counter,
    /// Pieces that wait to be sent now, beside those that are being sent.
    pub pieces: Counter,
    /// Inputs that were cut off and wait for their rest now.
    pub tails: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Completions dealt with.
    pub completions: Counter,
}
