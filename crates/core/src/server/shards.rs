//! The shards' threads, each with a ring of its own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::placement;
use super::threads::{self, Ended};
use super::{MakeHandler, ServerConfig, ShardHandle};
use crate::ring::{KernelRing, RingConfig};
use crate::serve::{Handler, Serve, ServeLimits};
use crate::shard::{Shard, ShardConfig};

/// Starts shard `index` on a thread of its own and waits until it is ready. Calls `ended` when the
/// thread ends.
///
/// # Errors
/// The kernel refused the thread or the ring.
pub(super) fn start<H: Handler + 'static>(
    index: usize,
    config: ServerConfig,
    make: Arc<MakeHandler<H>>,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> io::Result<ShardHandle<H::Mail>> {
    let (ready, readied) = mpsc::channel();
    let run = move || run(index, &config, &*make, &ready);
    threads::start(format!("shard-{index}"), STACK_BYTES, run, ended)?;
    readied.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

/// The life of a shard's thread.
fn run<H: Handler>(
    index: usize,
    config: &ServerConfig,
    make: &MakeHandler<H>,
    ready: &Sender<io::Result<ShardHandle<H::Mail>>>,
) -> io::Result<()> {
    // The receiver is gone only when the process is ending.
    match shard(index, config, make) {
        Ok(mut shard) => {
            let _ = ready.send(Ok(ShardHandle {
                mailbox: shard.mailbox(),
                counters: shard.counters(),
                serve: shard.protocol().counters(),
            }));
            shard.run()
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    }
}

/// Made on its own thread: a ring belongs to the thread that made it.
fn shard<H: Handler>(
    index: usize,
    config: &ServerConfig,
    make: &MakeHandler<H>,
) -> io::Result<Shard<KernelRing, Serve<H>>> {
    let ServerConfig { plan, placement, listeners, limits, shard, .. } = config;
    placement.core(index).map_or(Ok(()), placement::pin)?;
    let ring = KernelRing::new(RingConfig {
        io: plan.io,
        descriptors: plan.descriptors,
        max_conns: plan.conns_per_shard,
        listeners: listeners.clone(),
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
