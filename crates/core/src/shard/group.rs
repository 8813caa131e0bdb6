//! Several shards on one thread.
//!
//! A ring has at most as many direct descriptors as the limit on open files, so that a machine may need
//! many more rings than it has cores. With a thread for each ring the scheduler would run each for some
//! milliseconds, and a connection would wait for the threads of all other rings. On one thread each shard
//! has its turn, a bounded piece of work, and a shard without work costs the others next to nothing.

use std::io;
use std::time::Duration;

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::protocol::Protocol;
use crate::ring::{KernelRing, Ring, SharedWait};

/// A shard that runs together with others on one thread.
pub trait Grouped {
    /// A turn that does not wait. Returns whether the next turn has work already; otherwise the shared wait
    /// ends when it has.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    fn turn_without_wait(&mut self) -> io::Result<bool>;

    /// Whether the next turn has work, after a wait.
    fn has_work(&mut self) -> bool;

    /// Whether the shard has stopped.
    fn stopped(&self) -> bool;
}

/// Runs shards on the calling thread, which has made their rings with this wait, until all of them have
/// stopped. `stopped` gets each shard that has stopped.
///
/// # Errors
/// Only errors that make a ring unusable.
pub fn run_together<S: Grouped>(
    shards: Vec<S>,
    wait: &SharedWait,
    mut stopped: impl FnMut(S),
) -> io::Result<()> {
    let mut running: Vec<_> = shards.into_iter().map(|shard| (shard, true)).collect();
    loop {
        for (shard, has_work) in running.iter_mut().filter(|(_, has_work)| *has_work) {
            *has_work = shard.turn_without_wait()?;
        }
        running.extract_if(.., |(shard, _)| shard.stopped()).for_each(|(shard, _)| stopped(shard));
        if running.is_empty() {
            return Ok(());
        }
        if !running.iter().any(|(_, has_work)| *has_work) {
            wait.wait()?;
        }
        for (shard, has_work) in &mut running {
            *has_work = *has_work || shard.has_work();
        }
    }
}

impl<P: Protocol, B: ByteStage> Grouped for Shard<KernelRing, P, B> {
    fn turn_without_wait(&mut self) -> io::Result<bool> {
        self.ring.submit_and_wait(Some(Duration::ZERO))?;
        self.work();
        self.accept();
        let timeout = self.timeout();
        let has_work = timeout == Some(Duration::ZERO);
        Ok(self.ring.submit_and_arm(timeout.filter(|_| !has_work))? || has_work)
    }

    fn has_work(&mut self) -> bool {
        self.mailbox.has_woken() || self.ring.has_completions()
    }

    fn stopped(&self) -> bool {
        Shard::stopped(self)
    }
}

impl<S: Grouped + ?Sized> Grouped for Box<S> {
    fn turn_without_wait(&mut self) -> io::Result<bool> {
        (**self).turn_without_wait()
    }

    fn has_work(&mut self) -> bool {
        (**self).has_work()
    }

    fn stopped(&self) -> bool {
        (**self).stopped()
    }
}
