//! Wakeups from worker to worker: after a change of shared state, the other worker takes a turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use murre_core::Mailbox;

use crate::engine::orders::WorkerOrder;

/// The mailboxes of all workers.
pub(crate) struct Wakeups {
    mailboxes: OnceLock<Vec<Arc<Mailbox<WorkerOrder>>>>,
    /// A wakeup is sent and not taken yet: another one is not needed.
    sent: Box<[AtomicBool]>,
}

impl Wakeups {
    pub(crate) fn new(workers: usize) -> Arc<Wakeups> {
        let sent = (0..workers).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Wakeups { mailboxes: OnceLock::new(), sent })
    }

    /// Called once, when all workers are up.
    pub(crate) fn connect(&self, mailboxes: Vec<Arc<Mailbox<WorkerOrder>>>) {
        assert!(self.mailboxes.set(mailboxes).is_ok(), "connected once");
    }

    pub(crate) fn wake(&self, worker: usize) {
        let mailboxes = self.mailboxes.get().expect("no worker runs before all are up");
        if !self.sent[worker].swap(true, Ordering::AcqRel) {
            // One wakeup and the run's few orders fit every mailbox.
            assert!(
                mailboxes[worker].post(WorkerOrder::Wake).is_ok(),
                "a mailbox has room for a wakeup"
            );
        }
    }

    /// The worker is about to look at the shared state.
    pub(crate) fn taken(&self, worker: usize) {
        self.sent[worker].store(false, Ordering::Release);
    }
}
