//! Several shards on one thread.
//!
//! A ring has at most as many direct descriptors as the limit on open files, so that a machine may need
//! many more rings than it has cores. With a thread for each ring the scheduler would run each for some
//! milliseconds, and a connection would wait for the threads of all other rings. On one thread each shard
//! has its turn, a bounded piece of work, and a shard without work costs the others next to nothing.

use std::io;
use std::mem;
use std::time::Duration;

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::protocol::Protocol;
use crate::ring::{KernelRing, Ring, SharedWait};

/// A shard that runs together with others on one thread.
pub trait Grouped {
    /// A turn that does not wait. Accepts connections only while the shard has fewer than `conns_below`. Returns
    /// whether the next turn has work already; otherwise the shared wait ends when it has.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    fn turn_without_wait(&mut self, conns_below: u32) -> io::Result<bool>;

    /// Whether the next turn has work, after a wait.
    fn has_work(&mut self) -> bool;

    /// The number of connections, with those that are being accepted.
    fn conns(&self) -> u32;

    /// Whether the shard has stopped.
    fn stopped(&self) -> bool;
}

/// Connections that a shard has at most beyond those of the shard with the fewest. A shard that is busy has
/// more turns than others, and would accept most of the connections that wait.
const MORE_CONNS_MAX: u32 = 64;

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
    let mut conns_below = MORE_CONNS_MAX;
    loop {
        for (shard, has_work) in running.iter_mut().filter(|(_, has_work)| *has_work) {
            *has_work = shard.turn_without_wait(conns_below)?;
        }
        running.extract_if(.., |(shard, _)| shard.stopped()).for_each(|(shard, _)| stopped(shard));
        let Some(fewest) = running.iter().map(|(shard, _)| shard.conns()).min() else {
            return Ok(());
        };
        let before = mem::replace(&mut conns_below, fewest.saturating_add(MORE_CONNS_MAX));
        for (shard, has_work) in &mut running {
            // A shard that has accepted none since its last turn may accept now.
            *has_work |= (before..conns_below).contains(&shard.conns());
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
    fn turn_without_wait(&mut self, conns_below: u32) -> io::Result<bool> {
        self.ring.submit_and_wait(Some(Duration::ZERO))?;
        self.work();
        self.accepts.conns_below = conns_below;
        self.accept();
        let timeout = self.timeout();
        let has_work = timeout == Some(Duration::ZERO);
        Ok(self.ring.submit_and_arm(timeout.filter(|_| !has_work))? || has_work)
    }

    fn has_work(&mut self) -> bool {
        self.mailbox.has_woken() || self.ring.has_completions()
    }

    fn conns(&self) -> u32 {
        self.out.conns.used()
    }

    fn stopped(&self) -> bool {
        Shard::stopped(self)
    }
}

impl<S: Grouped + ?Sized> Grouped for Box<S> {
    fn turn_without_wait(&mut self, conns_below: u32) -> io::Result<bool> {
        (**self).turn_without_wait(conns_below)
    }

    fn has_work(&mut self) -> bool {
        (**self).has_work()
    }

    fn conns(&self) -> u32 {
        (**self).conns()
    }

    fn stopped(&self) -> bool {
        (**self).stopped()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A shard that takes every connection that it may, as one whose turn is first does. It has no work of its
    /// own.
    struct Greedy {
        backlog: Rc<Cell<u32>>,
        conns: u32,
    }

    impl Grouped for Greedy {
        fn turn_without_wait(&mut self, conns_below: u32) -> io::Result<bool> {
            let taken = conns_below.saturating_sub(self.conns).min(self.backlog.get());
            self.backlog.set(self.backlog.get() - taken);
            self.conns += taken;
            Ok(false)
        }

        fn has_work(&mut self) -> bool {
            false
        }

        fn conns(&self) -> u32 {
            self.conns
        }

        fn stopped(&self) -> bool {
            self.backlog.get() == 0
        }
    }

    /// However many connections wait, no shard takes many more than another, and a shard that was held back goes
    /// on without an event once the others have caught up.
    #[test]
    fn the_shards_of_a_thread_share_the_connections() {
        for waiting in [1, 63, 64, 65, 1000, 12_345] {
            let backlog = Rc::new(Cell::new(waiting));
            let shard = |_| Greedy { backlog: Rc::clone(&backlog), conns: 0 };
            let mut conns = Vec::new();
            let wait = SharedWait::new().expect("an event");
            run_together((0..5).map(shard).collect(), &wait, |shard: Greedy| {
                conns.push(shard.conns)
            })
            .expect("no ring");
            let fewest = conns.iter().min().expect("some");
            assert_eq!(conns.iter().sum::<u32>(), waiting);
            assert!(conns.iter().all(|conns| conns - fewest <= MORE_CONNS_MAX), "{conns:?}");
        }
    }
}
