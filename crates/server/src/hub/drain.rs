//! The common end of all shards. A shard owns channels and services that connections of other shards
//! use, so it continues to work until no shard has connections.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the shards that may still have connections. All shards share it.
#[derive(Debug)]
pub(crate) struct DrainBarrier {
    busy: AtomicUsize,
}

impl DrainBarrier {
    pub(crate) fn new(shards: usize) -> Self {
        DrainBarrier { busy: AtomicUsize::new(shards) }
    }

    /// Records that a drained shard has no connections any more. Each shard calls it once.
    pub(crate) fn shard_is_empty(&self) {
        let before = self.busy.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "each shard says so once");
    }

    /// Whether no shard has connections.
    pub(crate) fn all_empty(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All shards may end once the last one has no connections.
    #[test]
    fn the_last_one_counts() {
        let drain_barrier = DrainBarrier::new(2);
        drain_barrier.shard_is_empty();
        assert!(!drain_barrier.all_empty());
        drain_barrier.shard_is_empty();
        assert!(drain_barrier.all_empty());
    }
}
