//! The workers' threads: starts them, sends them orders, reads their counts, and collects their times.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use murre_core::host::Plan;
use murre_core::ring::{KernelRing, RingConfig};
use murre_core::{Counters, Mailbox, Shard, ShardConfig};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::engine::core_turns::{SharedCore, TurnRing};
use crate::engine::orders::{WorkerEvent, WorkerOrder};
use crate::engine::score::{Score, Tally, Totals};
use crate::engine::share::Share;
use crate::engine::times::Times;
use crate::engine::wakeups::Wakeups;
use crate::engine::{Scored, WorkerParts};

/// All shards of a run.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    pub(crate) events: Receiver<WorkerEvent>,
}

/// The main thread's side of one worker.
struct Worker {
    mailbox: Arc<Mailbox<WorkerOrder>>,
    tally: Arc<Tally>,
    counters: Arc<Counters>,
    /// Of a worker apart: whether the machine gave it real-time priority.
    real_time: Option<bool>,
    thread: JoinHandle<Times>,
}

/// What a worker's thread is started with, whichever scenario it runs.
#[derive(Clone)]
pub(crate) struct WorkerConfig {
    pub(crate) plan: Plan,
    pub(crate) cpu: Option<usize>,
    /// The core on which its thread takes turns with others.
    pub(crate) core: Option<Arc<SharedCore>>,
    pub(crate) share: Share,
    pub(crate) epoch: Instant,
    /// Bytes queued for one connection at most.
    pub(crate) max_send_bytes: u32,
    /// The unit of the connections' timers.
    pub(crate) tick: Duration,
    /// Whether no other thread may delay its connections: the thread has real-time priority.
    pub(crate) apart: bool,
    pub(crate) events: Sender<WorkerEvent>,
}

impl Workers {
    /// Starts a thread per config. They connect when they are told to.
    pub(crate) fn new(
        worker_configs: Vec<WorkerConfig>,
        events: Receiver<WorkerEvent>,
        wakeups: &Wakeups,
        start: impl Fn(WorkerConfig) -> Starting,
    ) -> anyhow::Result<Workers> {
        let starting: Vec<Starting> = worker_configs.into_iter().map(start).collect();
        let workers: anyhow::Result<Vec<Worker>> = starting.into_iter().map(Starting::up).collect();
        let workers = workers?;
        wakeups.connect(workers.iter().map(|worker| Arc::clone(&worker.mailbox)).collect());
        Ok(Workers { workers, events })
    }

    pub(crate) fn tell(&self, order: WorkerOrder) {
        for worker in &self.workers {
            // A run's few orders fit every mailbox.
            assert!(worker.mailbox.post(order).is_ok(), "a mailbox has room for a run's orders");
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for Worker { tally, counters, .. } in &self.workers {
            tally.add_to(&mut totals);
            totals.bytes_in += counters.bytes_in.get();
            totals.bytes_out += counters.bytes_out.get();
        }
        totals
    }

    /// Whether all workers apart have real-time priority; `None` without such workers.
    pub(crate) fn real_time(&self) -> Option<bool> {
        self.workers.iter().filter_map(|worker| worker.real_time).reduce(|all, one| all && one)
    }

    pub(crate) fn first_fault(&self) -> Option<String> {
        self.workers.iter().find_map(|worker| worker.tally.first_fault()).map(str::to_owned)
    }

    /// Ends the shards, each within `over` and what its last connections need, and gives all
    /// times together.
    pub(crate) fn leave(&mut self, over: Duration) -> Times {
        self.tell(WorkerOrder::Leave { over });
        let mut times = Times::none();
        for worker in self.workers.drain(..) {
            // A thread that panicked has said so on stderr and has failed the run by its event.
            if let Ok(own) = worker.thread.join() {
                times.add(&own);
            }
        }
        times
    }
}

/// What a worker hands out once its ring works.
type Up = (Arc<Mailbox<WorkerOrder>>, Arc<Counters>, Option<bool>);

/// A thread that may not have set up its ring yet.
pub(crate) struct Starting {
    tally: Arc<Tally>,
    up: Receiver<io::Result<Up>>,
    thread: JoinHandle<Times>,
}

impl Starting {
    fn up(self) -> anyhow::Result<Worker> {
        let Starting { tally, up, thread } = self;
        let (mailbox, counters, real_time) = up
            .recv()
            .map_err(|_| anyhow!("a worker's thread panicked"))?
            .context("cannot set up a ring (ENOMEM: raise the limit on locked memory)")?;
        Ok(Worker { mailbox, tally, counters, real_time, thread })
    }
}

/// Starts one thread with the clients that `make` makes.
pub(crate) fn start<P: Scored>(
    config: WorkerConfig,
    make: impl FnOnce(WorkerParts) -> P + Send + 'static,
) -> Starting {
    let score = Score::new(config.epoch);
    let tally = Arc::clone(score.tally());
    let (sender, up) = mpsc::channel();
    let thread = thread::spawn(move || {
        let real_time = config.apart.then(real_time);
        let events = config.events.clone();
        let mut shard = match set_up(config, make, score) {
            Ok(shard) => shard,
            Err(error) => {
                // The main thread waits for this.
                let _ = sender.send(Err(error));
                return Times::none();
            }
        };
        let _ = sender.send(Ok((shard.mailbox(), shard.counters(), real_time)));
        let _alarm = PanicGuard(events.clone());
        if let Err(error) = shard.run() {
            // If the main thread is gone, nothing needs the event.
            let _ = events.send(WorkerEvent::Died(error));
        }
        shard.protocol().score().times().clone()
    });
    Starting { tally, up, thread }
}

fn set_up<P: Scored>(
    config: WorkerConfig,
    make: impl FnOnce(WorkerParts) -> P,
    score: Score,
) -> io::Result<Shard<TurnRing<KernelRing>, P>> {
    if let Some(cpu) = config.cpu {
        pin(&[cpu])?;
    }
    let WorkerConfig { plan, core, share, max_send_bytes, tick, events, .. } = config;
    let max_conns = share.conns.max(1);
    let ring = KernelRing::new(RingConfig {
        io: plan.io,
        descriptors: plan.descriptors,
        max_conns,
        reset_on_close: true,
        ..RingConfig::default()
    })?;
    let ring = TurnRing::new(ring, core);
    let config = ShardConfig {
        max_conns,
        max_send_bytes,
        tick,
        slices: (tick.as_millis() as u32 / SLICE_MILLIS).max(1),
        ..ShardConfig::default()
    };
    Ok(Shard::new(ring, make(WorkerParts { score, share, events }), &config))
}

/// How often timers are looked at, in each part of a tick some.
const SLICE_MILLIS: u32 = 5;

/// Tells the main thread when the shard's thread panics.
struct PanicGuard(Sender<WorkerEvent>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(WorkerEvent::Died(io::Error::other("the thread panicked")));
        }
    }
}

/// Gives the calling thread real-time priority, so that the time for which it waits for a core is not
/// counted as the server's. Returns whether the machine allows that.
fn real_time() -> bool {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    // The lowest of this policy (sched(7)).
    let lowest = ThreadPriorityValue::try_from(1_u8).map(ThreadPriority::Crossplatform);
    lowest.is_ok_and(|lowest| {
        set_thread_priority_and_policy(thread_native_id(), lowest, policy).is_ok()
    })
}

/// Binds the calling thread to some cores.
pub(crate) fn pin(list: &[usize]) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    for &cpu in list {
        cpus.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    Ok(())
}
