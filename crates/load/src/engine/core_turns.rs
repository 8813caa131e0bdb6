//! Workers of one core run one at a time, each for a turn of its loop.
//!
//! Where the limit on open files wants many rings, there are many more workers than cores. When all of
//! them have something to read, the scheduler runs each for some milliseconds, and a server on the same
//! cores waits for all of them: the run then measures the load generator. With turns at most one worker
//! of a core asks the scheduler for it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use murre_core::ConnId;
use murre_core::ring::{
    Completion, Lease, Op, Ring, ShutdownHow, ShutdownStatus, Socket, Token, Waker,
};

/// One core's workers.
#[derive(Default)]
pub(crate) struct SharedCore(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    running: Option<ThreadId>,
    /// In the order in which they asked.
    waiting: VecDeque<Thread>,
}

impl SharedCore {
    /// The core of each worker, if `workers` of them share `cores` cores; `None` if each has its own.
    pub(crate) fn of_each(workers: usize, cores: usize) -> Vec<Option<Arc<SharedCore>>> {
        if workers <= cores {
            return vec![None; workers];
        }
        let shared: Vec<_> = (0..cores).map(|_| Some(Arc::default())).collect();
        shared.into_iter().cycle().take(workers).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code that holds the lock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Lets the thread run that has waited longest.
    fn start_next(&mut self) {
        let next = self.waiting.pop_front();
        self.running = next.as_ref().map(Thread::id);
        if let Some(thread) = next {
            thread.unpark();
        }
    }
}

/// One worker's use of a [`SharedCore`].
struct Turns {
    core: Arc<SharedCore>,
    /// Whether this thread may run.
    runs: bool,
}

impl Turns {
    /// Waits until this thread may run.
    fn enter(&mut self) {
        if self.runs {
            return;
        }
        let mut queue = self.core.queue();
        if queue.running.is_none() {
            queue.running = Some(thread::current().id());
        } else {
            queue.waiting.push_back(thread::current());
            drop(queue);
            self.wait();
        }
        self.runs = true;
    }

    /// Lets another thread run, as this one has nothing to do.
    fn leave(&mut self) {
        if self.runs {
            self.runs = false;
            self.core.queue().start_next();
        }
    }

    /// Lets all threads run that wait, each for a turn, before this one goes on.
    fn pass(&mut self) {
        assert!(self.runs, "only the running thread passes");
        let mut queue = self.core.queue();
        if queue.waiting.is_empty() {
            return;
        }
        queue.waiting.push_back(thread::current());
        queue.start_next();
        drop(queue);
        self.wait();
    }

    fn wait(&self) {
        let this = Some(thread::current().id());
        while self.core.queue().running != this {
            thread::park();
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A ring whose thread takes turns with others.
pub(crate) struct TurnRing<R> {
    /// Before `ring`, whose end may wait for the kernel.
    turns: Option<Turns>,
    /// The completion that [`Ring::pop`] gives next.
    first: Option<Completion>,
    ring: R,
}

impl<R> TurnRing<R> {
    /// `ring`, whose thread shares `core` with others, if it does.
    pub(crate) fn new(ring: R, core: Option<Arc<SharedCore>>) -> Self {
        TurnRing { turns: core.map(|core| Turns { core, runs: false }), first: None, ring }
    }
}

impl<R: Ring> Ring for TurnRing<R> {
    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let Some(turns) = &mut self.turns else { return self.ring.submit_and_wait(timeout) };
        // Submitting the operations of a turn is most of its work, so it needs the core.
        turns.enter();
        self.ring.submit_and_wait(Some(Duration::ZERO))?;
        self.first = self.first.take().or_else(|| self.ring.pop());
        if self.first.is_some() || timeout == Some(Duration::ZERO) {
            turns.pass();
            return Ok(());
        }
        turns.leave();
        let waited = self.ring.submit_and_wait(timeout);
        turns.enter();
        waited
    }

    fn pop(&mut self) -> Option<Completion> {
        self.first.take().or_else(|| self.ring.pop())
    }

    fn push(&mut self, op: Op, token: Token) {
        self.ring.push(op, token);
    }

    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32> {
        self.ring.open(id, to, from)
    }

    fn begin_shutdown(&mut self, socket: Socket, how: ShutdownHow, token: Token) -> ShutdownStatus {
        self.ring.begin_shutdown(socket, how, token)
    }

    fn lease(&mut self) -> Option<Lease> {
        self.ring.lease()
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.ring.buffer(lease)
    }

    fn give_back(&mut self, lease: Lease) {
        self.ring.give_back(lease);
    }

    fn now(&self) -> Instant {
        self.ring.now()
    }

    fn waker(&self) -> Waker {
        self.ring.waker()
    }

    fn listens(&self) -> bool {
        self.ring.listens()
    }

    fn stop_listening(&mut self) {
        self.ring.stop_listening();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers share cores only if there are more of them than cores, and then each core has its part.
    #[test]
    fn cores_are_shared_if_there_are_more_workers() {
        assert!(SharedCore::of_each(2, 2).iter().all(Option::is_none));
        let shared: Vec<_> = SharedCore::of_each(5, 2).into_iter().flatten().collect();
        let same = |core| shared.iter().position(|other| Arc::ptr_eq(core, other));
        assert_eq!(shared.iter().map(same).collect::<Vec<_>>(), [0, 1, 0, 1, 0].map(Some));
    }

    /// The threads of a core run one at a time, in the order in which they asked. One that leaves, or
    /// panics, is not waited for.
    #[test]
    fn threads_take_turns() {
        const THREADS: usize = 4;
        let core = Arc::new(SharedCore::default());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let turns = || Turns { core: Arc::clone(&core), runs: false };
        let mut first = turns();
        first.enter();
        let begin = |number: usize| {
            let (mut turns, taken) = (turns(), Arc::clone(&taken));
            let thread = thread::spawn(move || {
                turns.enter();
                for _ in 0..100 * (number + 1) {
                    // Fails if two run at a time.
                    taken.try_lock().expect("one thread runs").push(number);
                    turns.pass();
                }
                assert_ne!(number, 2, "this panic is a part of the test");
            });
            while core.queue().waiting.len() <= number {
                thread::yield_now();
            }
            thread
        };
        let threads: Vec<_> = (0..THREADS).map(begin).collect();
        first.leave();
        let panicked = threads.into_iter().map(|thread| thread.join().is_err());
        assert_eq!(panicked.collect::<Vec<_>>(), [false, false, true, false]);
        let rounds: Vec<_> = (0..400).flat_map(|round| round / 100..THREADS).collect();
        assert_eq!(*taken.lock().expect("no thread panics with it"), rounds);
        first.enter();
        first.enter();
        first.pass();
        assert_eq!(core.queue().running, Some(thread::current().id()));
        drop(first);
        assert_eq!(core.queue().running, None);
    }
}
