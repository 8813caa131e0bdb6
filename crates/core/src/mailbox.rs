//! What other threads have for a shard: the only thing that shards share.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::ring::Waker;

/// A bounded queue into one shard. Posting wakes the shard only if it sleeps.
pub struct Mailbox<M> {
    mails: Mutex<Vec<M>>,
    mails_max: usize,
    /// The shard is in the kernel, or about to be.
    sleeping: AtomicBool,
    waker: Waker,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(mails_max: usize, waker: Waker) -> Self {
        let mails = Mutex::new(Vec::new());
        Mailbox { mails, mails_max, sleeping: AtomicBool::new(false), waker }
    }

    /// Leaves `mail` for the shard.
    ///
    /// # Errors
    /// Gives the mail back when the mailbox is full: the shard is behind, and the sender decides.
    pub fn post(&self, mail: M) -> Result<(), M> {
        {
            let mut mails = self.lock();
            if mails.len() >= self.mails_max {
                return Err(mail);
            }
            mails.push(mail);
        }
        // The shard sets the flag before it looks into the box for the last time, so either it
        // sees this mail or this sees the flag.
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    /// Says that the shard is about to sleep. Returns whether it may: nothing is in the box.
    pub(crate) fn sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        self.lock().is_empty()
    }

    /// Says that the shard is awake, and moves what is in the box to `mails`.
    pub(crate) fn collect(&self, mails: &mut Vec<M>) {
        self.sleeping.store(false, Ordering::SeqCst);
        let mut posted = self.lock();
        if mails.is_empty() {
            mem::swap(&mut *posted, mails);
        } else {
            mails.append(&mut posted);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<M>> {
        // Nothing can panic while the lock is held.
        self.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
