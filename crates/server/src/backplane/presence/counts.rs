//! Counts of the exchange of presence, which other threads read.

use std::sync::atomic::AtomicU64;

/// Totals since the start, and gauges.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Other nodes that live.
    pub(crate) nodes: AtomicU64,
    /// Nodes that have ended or died.
    pub(crate) gone: AtomicU64,
    /// Statements of this node to others.
    pub(crate) told: AtomicU64,
    /// Statements of others about channels that this node watches.
    pub(crate) heard: AtomicU64,
    /// Statements before which another one was missing.
    pub(crate) gaps: AtomicU64,
    /// Times that more than a statement may have been lost.
    pub(crate) losses: AtomicU64,
    /// Channels for which other nodes were asked.
    pub(crate) asked: AtomicU64,
    /// Messages that could not be decoded.
    pub(crate) malformed: AtomicU64,
    /// Channels with members here of which others were told.
    pub(crate) told_channels: AtomicU64,
    /// Channels that this node watches.
    pub(crate) watched_channels: AtomicU64,
}
