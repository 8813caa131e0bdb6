//! Counts of the link, which other threads read.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Totals since the start, and gauges.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Whether there is a connection.
    pub(crate) up: AtomicBool,
    /// Connections that have broken.
    pub(crate) reconnects: AtomicU64,
    /// Messages that NATS has sent.
    pub(crate) received: AtomicU64,
    /// Channels that this node is subscribed to.
    pub(crate) channels: AtomicU64,
    /// Publications that wait for the connection, or for the acknowledgement of a stream.
    pub(crate) publishes_waiting: AtomicU64,
    /// Publications that were sent to a stream again.
    pub(crate) repeated: AtomicU64,
    /// Reads of streams for the owners of channels.
    pub(crate) reads: AtomicU64,
    /// Messages on the subjects of channels and services that no node has published.
    pub(crate) malformed: AtomicU64,
    /// Times that NATS was not read because a shard did not take more.
    pub(crate) paused: AtomicU64,
    /// Requests to services that were given to other nodes, or to this one by way of NATS.
    pub(crate) requests: AtomicU64,
    /// Those that were refused, because there was no connection, too much waited for it or for answers, or the
    /// request was too long.
    pub(crate) requests_refused: AtomicU64,
    /// Those without an answer yet.
    pub(crate) requests_waiting: AtomicU64,
    /// Requests that NATS has given to this node.
    pub(crate) requests_served: AtomicU64,
    /// Messages to NATS that were dropped, because there was no connection or too much waited for it.
    pub(crate) dropped: AtomicU64,
}

/// Bytes that wait for the thread of the link.
#[derive(Debug, Default)]
pub(super) struct WaitingBytes(AtomicUsize);

/// The most of them.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What a message costs besides its payload.
const EACH: usize = 128;

impl WaitingBytes {
    /// Takes room for a message of so many bytes. Returns whether there is some.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes.saturating_add(EACH);
        let fits = self.0.fetch_add(bytes, Relaxed) <= WAITING_BYTES_MAX;
        if !fits {
            self.0.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Gives the room of a message of so many bytes back.
    pub(super) fn release(&self, bytes: usize) {
        self.0.fetch_sub(bytes.saturating_add(EACH), Relaxed);
    }
}
