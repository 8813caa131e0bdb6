//! The end of all shards together. A shard owns channels and services that connections of other
//! shards use, so it works on until no shard has connections.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many shards may still have connections. Shared by all.
#[derive(Debug)]
pub(crate) struct DrainBarrier {
    busy: AtomicUsize,
}

impl DrainBarrier {
    pub(crate) fn new(shards: usize) -> Self {
        DrainBarrier { busy: AtomicUsize::new(shards) }
    }

    /// A shard that is being drained has lost its last connection, and gets no other. Each shard says
    /// so once.
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

    /// The last shard to lose its connections lets all end.
    #[test]
    fn the_last_one_counts() {
        let drain_barrier = DrainBarrier::new(2);
        drain_barrier.shard_is_empty();
        assert!(!drain_barrier.all_empty());
        drain_barrier.shard_is_empty();
        assert!(drain_barrier.all_empty());
    }
}
