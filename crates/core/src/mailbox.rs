//! The queue through which other threads, and other shards, reach a shard.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::ring::Waker;

/// A bounded queue of mails into one shard. Posting wakes the shard only if it sleeps.
pub struct Mailbox<M> {
    mails: Mutex<Vec<M>>,
    mails_max: usize,
    /// The shard waits in the kernel, or is about to.
    sleeping: AtomicBool,
    waker: Waker,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(mails_max: usize, waker: Waker) -> Self {
        let mails = Mutex::new(Vec::new());
        Mailbox { mails, mails_max, sleeping: AtomicBool::new(false), waker }
    }

    /// Posts a mail, which the shard takes in its next turn.
    ///
    /// # Errors
    /// Gives the mail back when [`ShardConfig::mails_max`](crate::ShardConfig::mails_max) wait: the shard
    /// is overloaded, and the sender decides what becomes of the mail.
    pub fn post(&self, mail: M) -> Result<(), M> {
        {
            let mut mails = self.lock();
            if mails.len() >= self.mails_max {
                return Err(mail);
            }
            mails.push(mail);
        }
        // The shard sets the flag before it reads the box for the last time, so either the shard sees
        // this mail or this thread sees the flag.
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    /// Records that the shard is about to sleep, and returns whether it may: the box is empty.
    pub(crate) fn sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        self.lock().is_empty()
    }

    /// Whether a mail has been posted since [`sleep`](Self::sleep).
    pub(crate) fn has_woken(&self) -> bool {
        !self.sleeping.load(Ordering::SeqCst)
    }

    /// Records that the shard is awake, and moves all mails to `mails`.
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
