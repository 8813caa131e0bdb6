//! The shards' threads: one each, pinned, with a ring of its own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use murre_core::host::Plan;
use murre_core::ring::{KernelRing, RingConfig};
use murre_core::{Listener, Serve, ServeLimits, Shard, ShardConfig};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::admin::ShardCounters;
use crate::files::Files;
use crate::hub::HubConfig;
use crate::routes::{App, AppMailbox};
use crate::threads::{self, Ended};

/// The parts that every shard is made from.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub(crate) plan: Plan,
    pub(crate) listener: Listener,
    pub(crate) limits: ServeLimits,
    /// All but the tick, which follows from the limits.
    pub(crate) shard: ShardConfig,
    pub(crate) bench: bool,
    pub(crate) hub: Arc<HubConfig>,
    pub(crate) files: Arc<Files>,
}

/// A shard that runs, seen from other threads.
pub(crate) struct Running {
    pub(crate) mailbox: AppMailbox,
    pub(crate) counters: ShardCounters,
}

/// Starts shard `index` on `core` and waits until it is ready. Its end is told by `ended`.
///
/// # Errors
/// What kept it from getting ready.
pub(crate) fn start(
    index: usize,
    core: usize,
    blueprint: Blueprint,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> io::Result<Running> {
    let (ready, readied) = mpsc::channel();
    let run = move || run(index, core, blueprint, ready);
    threads::start(format!("shard-{index}"), STACK_BYTES, run, ended)?;
    readied.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

/// The life of a shard's thread.
fn run(
    index: usize,
    core: usize,
    blueprint: Blueprint,
    ready: Sender<io::Result<Running>>,
) -> io::Result<()> {
    // A receiver that has gone away means that the process is ending: nobody to tell.
    match pin(core).and_then(|()| shard(index, blueprint)) {
        Ok(mut shard) => {
            let serve = shard.protocol();
            let counters = ShardCounters {
                transport: shard.counters(),
                serve: serve.counters(),
                hub: serve.handler().hub().counters(),
            };
            let _ = ready.send(Ok(Running { mailbox: shard.mailbox(), counters }));
            shard.run()
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    }
}

/// Made on its own thread: a ring belongs to the thread that made it.
fn shard(index: usize, blueprint: Blueprint) -> io::Result<Shard<KernelRing, Serve<App>>> {
    let Blueprint { plan, listener, limits, shard, bench, hub, files } = blueprint;
    let ring = KernelRing::new(RingConfig {
        io: plan.io,
        descriptors: plan.descriptors,
        conns_max: shard.conns_max,
        listener: Some(listener),
        ..RingConfig::default()
    })?;
    let config = ShardConfig { tick: tick(&limits), ..shard };
    let origins = limits.origins.clone();
    let app = App::new(hub, index as murre_router::Shard, bench, origins, files);
    Ok(Shard::new(ring, Serve::new(app, limits), &config))
}

/// The unit of timers: fine enough for the shortest time limit, coarse enough that the longest is
/// within what a timer can count.
fn tick(limits: &ServeLimits) -> Duration {
    let body = limits.time_for(limits.http.body_bytes_max.into());
    let spans = [
        limits.handshake,
        limits.http_idle,
        limits.ping_interval,
        limits.pong_timeout,
        limits.slow_timeout,
        body,
    ];
    let shortest = spans.into_iter().min().expect("there are some");
    let longest = spans.into_iter().max().expect("there are some");
    let (fine, coarse) = (shortest.checked_div(8), longest.checked_div(TICKS_MAX));
    fine.max(coarse).unwrap_or_default().clamp(TICK_MIN, TICK_MAX)
}

const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(1);
/// A timer counts 15 bits of ticks.
const TICKS_MAX: u32 = 1 << 14;

/// The cores that this process may use, in order.
///
/// # Errors
/// None that a running process sees.
pub(crate) fn cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect())
}

/// Keeps the calling thread on `core`, before it allocates: its memory is then near it.
fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// A shard's stack is shallow and not on the heap of the connections. Small, so that huge pages,
/// where the machine uses them for everything, do not make 2 MiB of it.
const STACK_BYTES: usize = 512 * 1024;
