//! How one shard has another look at something that both can see: it rings, and the other has a turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use murre_core::Mailbox;

use crate::engine::fleet::Order;

/// A bell for each shard.
pub(crate) struct Bells {
    mailboxes: OnceLock<Vec<Arc<Mailbox<Order>>>>,
    /// Rung and not heard yet: ringing again says nothing new.
    rung: Box<[AtomicBool]>,
}

impl Bells {
    pub(crate) fn new(shards: usize) -> Arc<Bells> {
        let rung = (0..shards).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Bells { mailboxes: OnceLock::new(), rung })
    }

    /// Once, when all shards are up.
    pub(crate) fn hang(&self, mailboxes: Vec<Arc<Mailbox<Order>>>) {
        assert!(self.mailboxes.set(mailboxes).is_ok(), "bells are hung once");
    }

    pub(crate) fn ring(&self, shard: usize) {
        let mailboxes = self.mailboxes.get().expect("nobody rings before all are up");
        if !self.rung[shard].swap(true, Ordering::AcqRel) {
            // One ring and the run's few orders fit every mailbox.
            assert!(mailboxes[shard].post(Order::Look).is_ok(), "a mailbox has room for a ring");
        }
    }

    /// The shard is about to look.
    pub(crate) fn heard(&self, shard: usize) {
        self.rung[shard].store(false, Ordering::Release);
    }
}
