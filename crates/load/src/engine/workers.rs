//! The workers' threads: starts them, sends them orders, reads their counts, and collects their times.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use murre_core::host::Plan;
use murre_core::ring::{KernelRing, RingConfig, SharedWait};
use murre_core::{Counters, Grouped, Mailbox, Shard, ShardConfig, run_together};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::engine::orders::{WorkerEvent, WorkerOrder};
use crate::engine::score::{Score, Tally, Totals};
use crate::engine::share::Share;
use crate::engine::times::Times;
use crate::engine::wakeups::Wakeups;
use crate::engine::{Scored, WorkerParts};

/// All shards of a run.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    threads: Vec<JoinHandle<Times>>,
    pub(crate) events: Receiver<WorkerEvent>,
}

/// The main thread's side of one worker.
struct Worker {
    index: u64,
    mailbox: Arc<Mailbox<WorkerOrder>>,
    tally: Arc<Tally>,
    counters: Arc<Counters>,
    /// Of a worker apart: whether the machine gave it real-time priority.
    real_time: Option<bool>,
}

/// The settings of a worker, the same for all scenarios.
#[derive(Clone)]
pub(crate) struct WorkerConfig {
    pub(crate) plan: Plan,
    pub(crate) cpu: Option<usize>,
    /// The number of its thread.
    pub(crate) thread: usize,
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
    /// Starts a worker per config. They connect when they are told to.
    pub(crate) fn new(
        worker_configs: Vec<WorkerConfig>,
        (sender, events): (Sender<WorkerEvent>, Receiver<WorkerEvent>),
        wakeups: &Wakeups,
        start: impl Fn(WorkerConfig) -> Starting,
    ) -> anyhow::Result<Workers> {
        let mut starting: BTreeMap<usize, Vec<Starting>> = BTreeMap::new();
        for worker in worker_configs.into_iter().map(start) {
            starting.entry(worker.thread).or_default().push(worker);
        }
        let starting = starting.into_values();
        let threads: Vec<_> =
            starting.map(|workers| StartingThread::new(workers, sender.clone())).collect();
        let up: anyhow::Result<Vec<_>> = threads.into_iter().map(StartingThread::up).collect();
        let (workers, threads): (Vec<_>, Vec<_>) = up?.into_iter().unzip();
        let mut workers: Vec<Worker> = workers.into_iter().flatten().collect();
        workers.sort_unstable_by_key(|worker| worker.index);
        wakeups.connect(workers.iter().map(|worker| Arc::clone(&worker.mailbox)).collect());
        Ok(Workers { workers, threads, events })
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
        self.workers.clear();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on stderr and has failed the run by its event.
            if let Ok(own) = thread.join() {
                times.add(&own);
            }
        }
        times
    }
}

/// A worker that has no thread yet.
pub(crate) struct Starting {
    index: u64,
    thread: usize,
    cpu: Option<usize>,
    apart: bool,
    tally: Arc<Tally>,
    set_up: Box<SetUp>,
}

/// Makes a worker's shard on its thread, which may share a wait with other shards.
type SetUp = dyn FnOnce(Option<SharedWait>) -> io::Result<Box<dyn Clients>> + Send;

/// The shard of a worker, whatever its clients are.
trait Clients: Grouped {
    fn run(&mut self) -> io::Result<()>;
    fn mailbox(&self) -> Arc<Mailbox<WorkerOrder>>;
    fn counters(&self) -> Arc<Counters>;
    fn times(&self) -> &Times;
}

impl<P: Scored> Clients for Shard<KernelRing, P> {
    fn run(&mut self) -> io::Result<()> {
        Shard::run(self)
    }

    fn mailbox(&self) -> Arc<Mailbox<WorkerOrder>> {
        Shard::mailbox(self)
    }

    fn counters(&self) -> Arc<Counters> {
        Shard::counters(self)
    }

    fn times(&self) -> &Times {
        self.protocol().score().times()
    }
}

/// A worker with the clients that `make` makes.
pub(crate) fn start<P: Scored + 'static>(
    config: WorkerConfig,
    make: impl FnOnce(WorkerParts) -> P + Send + 'static,
) -> Starting {
    let score = Score::new(config.epoch);
    let tally = Arc::clone(score.tally());
    let WorkerConfig { thread, cpu, apart, share: Share { shard: index, .. }, .. } = config;
    let set_up = move |wait| -> io::Result<Box<dyn Clients>> {
        Ok(Box::new(set_up(config, make, score, wait)?))
    };
    Starting { index, thread, cpu, apart, tally, set_up: Box::new(set_up) }
}

fn set_up<P: Scored>(
    config: WorkerConfig,
    make: impl FnOnce(WorkerParts) -> P,
    score: Score,
    shared_wait: Option<SharedWait>,
) -> io::Result<Shard<KernelRing, P>> {
    let WorkerConfig { plan, share, max_send_bytes, tick, events, .. } = config;
    let max_conns = share.conns.max(1);
    let ring = KernelRing::new(RingConfig {
        io: plan.io,
        descriptors: plan.descriptors,
        max_conns,
        reset_on_close: true,
        shared_wait,
        ..RingConfig::default()
    })?;
    let config = ShardConfig {
        max_conns,
        max_send_bytes,
        tick,
        slices: (tick.as_millis() as u32 / SLICE_MILLIS).max(1),
        ..ShardConfig::default()
    };
    Ok(Shard::new(ring, make(WorkerParts { score, share, events }), &config))
}

/// The handles of a thread's workers, sent when their rings work.
type Up = (Vec<(Arc<Mailbox<WorkerOrder>>, Arc<Counters>)>, Option<bool>);

/// A thread of workers that may not have set up its rings yet.
struct StartingThread {
    /// The number and the counts of each worker.
    tallies: Vec<(u64, Arc<Tally>)>,
    up: Receiver<io::Result<Up>>,
    thread: JoinHandle<Times>,
}

impl StartingThread {
    /// Starts the workers on a thread of their own.
    fn new(workers: Vec<Starting>, events: Sender<WorkerEvent>) -> Self {
        let tallies =
            workers.iter().map(|worker| (worker.index, Arc::clone(&worker.tally))).collect();
        let (sender, up) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _alarm = PanicGuard(events.clone());
            let mut times = Times::none();
            match set_up_all(workers) {
                Ok((shards, wait, real_time)) => {
                    let seen =
                        shards.iter().map(|shard| (shard.mailbox(), shard.counters())).collect();
                    // If the main thread is gone, nothing needs this or the event.
                    let _ = sender.send(Ok((seen, real_time)));
                    if let Err(error) = run(shards, wait, &mut times) {
                        let _ = events.send(WorkerEvent::Died(error));
                    }
                }
                // The main thread waits for this.
                Err(error) => _ = sender.send(Err(error)),
            }
            times
        });
        StartingThread { tallies, up, thread }
    }

    fn up(self) -> anyhow::Result<(Vec<Worker>, JoinHandle<Times>)> {
        let StartingThread { tallies, up, thread } = self;
        let (seen, real_time) = up
            .recv()
            .map_err(|_| anyhow!("a worker's thread panicked"))?
            .context("cannot set up a ring (ENOMEM: raise the limit on locked memory)")?;
        let worker = |((mailbox, counters), (index, tally))| Worker {
            index,
            mailbox,
            tally,
            counters,
            real_time,
        };
        Ok((seen.into_iter().zip(tallies).map(worker).collect(), thread))
    }
}

type Shards = (Vec<Box<dyn Clients>>, Option<SharedWait>, Option<bool>);

/// Makes the shards of a thread, on the thread.
fn set_up_all(workers: Vec<Starting>) -> io::Result<Shards> {
    let real_time = workers[0].apart.then(real_time);
    if let Some(cpu) = workers[0].cpu {
        pin(&[cpu])?;
    }
    let wait = (workers.len() > 1).then(SharedWait::new).transpose()?;
    let shards = workers.into_iter().map(|worker| (worker.set_up)(wait.clone()));
    Ok((shards.collect::<io::Result<_>>()?, wait, real_time))
}

/// Runs the shards of a thread, and adds up their times.
fn run(
    mut shards: Vec<Box<dyn Clients>>,
    wait: Option<SharedWait>,
    times: &mut Times,
) -> io::Result<()> {
    match wait {
        Some(wait) => run_together(shards, &wait, |shard| times.add(shard.times())),
        None => shards.iter_mut().try_for_each(|shard| {
            let ran = shard.run();
            times.add(shard.times());
            ran
        }),
    }
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
