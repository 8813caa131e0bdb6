//! The shards, each with a ring of its own, and their threads.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::placement;
use super::threads::{self, Ended};
use super::{MakeHandler, ServerConfig, ShardHandle};
use crate::ring::{KernelRing, RingConfig, SharedWait};
use crate::serve::{Handler, Serve, ServeLimits};
use crate::shard::{Shard, ShardConfig, run_together};

/// The name of the thread that runs these shards: `shard-1`, or `shard-1+12` with 12 more.
pub(super) fn thread_name(indexes: &[usize]) -> String {
    match indexes {
        [alone] => format!("shard-{alone}"),
        _ => format!("shard-{}+{}", indexes[0], indexes.len() - 1),
    }
}

/// Starts these shards on a thread of their own and waits until they are ready. Calls `ended` when the
/// thread ends.
///
/// # Errors
/// The number of a shard for which the kernel refused the thread or the ring, with the kernel's error.
pub(super) fn start<H: Handler + 'static>(
    indexes: Vec<usize>,
    config: ServerConfig,
    make: Arc<MakeHandler<H>>,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> Ready<H::Mail> {
    let (ready, readied) = mpsc::channel();
    let (first, name) = (indexes[0], thread_name(&indexes));
    let run = move || run(&indexes, &config, &*make, &ready);
    threads::start(name, STACK_BYTES, run, ended).map_err(|error| (first, error))?;
    readied.recv().unwrap_or_else(|_| Err((first, io::Error::other("its thread ended"))))
}

/// The handles of a thread's shards, or the number of the shard that could not be made.
type Ready<M> = Result<Vec<ShardHandle<M>>, (usize, io::Error)>;

/// The life of a thread.
fn run<H: Handler>(
    indexes: &[usize],
    config: &ServerConfig,
    make: &MakeHandler<H>,
    ready: &Sender<Ready<H::Mail>>,
) -> io::Result<()> {
    let made = || {
        let wait = (indexes.len() > 1).then(SharedWait::new).transpose();
        let wait = wait.map_err(|error| (indexes[0], error))?;
        let made =
            |&index| shard(index, config, make, wait.clone()).map_err(|error| (index, error));
        let shards: Vec<_> = indexes.iter().map(made).collect::<Result<_, _>>()?;
        Ok((shards, wait))
    };
    // The receiver is gone only when the process is ending.
    match made() {
        Ok((mut shards, wait)) => {
            let _ = ready.send(Ok(shards.iter().map(handle).collect()));
            match wait {
                Some(wait) => run_together(shards, &wait, drop),
                None => shards.iter_mut().try_for_each(Shard::run),
            }
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    }
}

fn handle<H: Handler>(shard: &Shard<KernelRing, Serve<H>>) -> ShardHandle<H::Mail> {
    ShardHandle {
        mailbox: shard.mailbox(),
        counters: shard.counters(),
        serve: shard.protocol().counters(),
    }
}

/// Makes a shard on its thread: a ring belongs to the thread that made it.
fn shard<H: Handler>(
    index: usize,
    config: &ServerConfig,
    make: &MakeHandler<H>,
    shared_wait: Option<SharedWait>,
) -> io::Result<Shard<KernelRing, Serve<H>>> {
    let ServerConfig { plan, placement, listeners, limits, shard, .. } = config;
    placement.core(index).map_or(Ok(()), placement::pin)?;
    let ring = KernelRing::new(RingConfig {
        io: plan.io,
        descriptors: plan.descriptors,
        max_conns: plan.conns_per_shard,
        listeners: listeners.clone(),
        shared_wait,
        ..RingConfig::default()
    })?;
    let config = ShardConfig {
        index: index as u16,
        max_conns: plan.conns_per_shard,
        tick: tick(limits),
        ..shard.clone()
    };
    Ok(Shard::new(ring, Serve::new(make(index), limits.clone()), &config))
}

/// The unit of timers: fine enough for the shortest time limit, coarse enough that the longest is
/// within what a timer can count.
fn tick(limits: &ServeLimits) -> Duration {
    let body = limits.time_for(limits.http.max_body_bytes.into());
    let spans = [
        limits.handshake_timeout,
        limits.http_idle_timeout,
        limits.ping_interval,
        limits.pong_timeout,
        limits.slow_timeout,
        body,
    ];
    let shortest = spans.into_iter().min().expect("there are some");
    let longest = spans.into_iter().max().expect("there are some");
    let (fine, coarse) = (shortest / 8, longest / TICKS_MAX);
    fine.max(coarse).clamp(TICK_MIN, TICK_MAX)
}

const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(1);
/// A timer counts 15 bits of ticks.
const TICKS_MAX: u32 = 1 << 14;

/// A shard's stack is shallow and not on the heap of the connections. Small, so that huge pages,
/// where the machine uses them for everything, do not make 2 MiB of it.
const STACK_BYTES: usize = 512 * 1024;
