//! The control plane: the admin port, on a thread and a runtime of its own.
//!
//! It reads the shards' counters, asks their channels by mail, and never touches their sockets.

mod api;
mod error;
mod metrics;
mod rates;
mod series;
mod stats;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use murre_core::CloseReason;
use murre_core::host::Io;
use murre_core::ring::allocator;
use tokio::time::MissedTickBehavior;

pub(crate) use self::api::Api;
use self::error::{ApiError, BAD_METHOD, NOT_FOUND};
use self::metrics::Metrics;
use self::rates::{Rates, SAMPLE_INTERVAL};
pub(crate) use self::series::ShardCounters;
pub(crate) use self::stats::{Choice, Facts};
use self::stats::{Memory, Now};
use crate::admission::{LOOK_INTERVAL, Watch};

/// What the admin port tells about.
pub(crate) struct Admin {
    facts: Facts,
    started: Instant,
    /// Set when the admin port is served: before it there is nobody to ask for it.
    memory_at_start: OnceLock<Memory>,
    draining: AtomicBool,
    shards: Vec<ShardCounters>,
    metrics: Metrics,
    rates: Mutex<Rates>,
    api: Api,
    watch: Arc<Watch>,
}

impl Admin {
    /// About a server with these `shards`, which starts now, which `api` asks, and for which `watch`
    /// watches over memory.
    pub(crate) fn new(facts: Facts, shards: Vec<ShardCounters>, api: Api, watch: Watch) -> Self {
        let watch = Arc::new(watch);
        Admin {
            facts,
            started: Instant::now(),
            memory_at_start: OnceLock::new(),
            draining: AtomicBool::new(false),
            metrics: Metrics::new(shards.clone(), Arc::clone(&watch)),
            shards,
            rates: Mutex::new(Rates::new()),
            api,
            watch,
        }
    }

    /// From now on `/healthz` says that no work should be sent here.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Connections that are open now.
    pub(crate) fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.transport.open.get()).sum()
    }

    /// Serves the admin port on this thread, with a ring if there may be one. Returns only when it
    /// cannot go on.
    pub(crate) fn serve(self: Arc<Self>, listener: TcpListener, io: Io) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = match io {
            Io::Uring | Io::UringPlain => {
                tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES))
                    .inspect_err(|error| tracing::debug!(%error, "no ring for the admin port"))
                    .ok()
            }
            Io::Epoll => None,
        };
        match runtime {
            Some(runtime) => runtime.block_on(self.run(listener)),
            None => {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                builder.enable_all().build()?.block_on(self.run(listener))
            }
        }
    }

    async fn run(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let (sampling, watching) = (self.clone(), self.clone());
        tokio::spawn(every(SAMPLE_INTERVAL, move |now| {
            sampling.rates().sample(now, &sampling.shards);
        }));
        tokio::spawn(every(LOOK_INTERVAL, move |now| watching.look(now)));
        // What a burst has left goes back.
        tokio::spawn(every(TIDY_INTERVAL, |_| allocator::give_back()));
        let routes = Router::new()
            .route("/healthz", get(healthz))
            .route("/metrics", get(metrics))
            .route("/stats", get(stats))
            .merge(api::routes(&self))
            .fallback(async || ApiError::from(NOT_FOUND))
            .method_not_allowed_fallback(async || ApiError::from(BAD_METHOD))
            .with_state(Arc::clone(&self));
        self.memory_at_start.get_or_init(Memory::now);
        axum::serve(tokio::net::TcpListener::from_std(listener)?, routes).await
    }

    /// Watches over memory.
    fn look(&self, now: Instant) {
        let refused = self.shards.iter().map(|shard| shard.closed(CloseReason::Overloaded)).sum();
        self.watch.look(now, refused);
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        // A sample is whole or absent, so one that a panic kept out does no harm.
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// From one look of the allocator at what is free to the next.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// Few: the ring is there for files and databases, the admin sockets are tokio's.
const RING_ENTRIES: u32 = 64;

/// Does something now, and again after each interval, for as long as the runtime lives.
async fn every(interval: Duration, mut does: impl FnMut(Instant)) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        does(Instant::now());
    }
}

async fn healthz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    if admin.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.metrics.text())
}

async fn stats(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let now = Now {
        uptime: admin.started.elapsed(),
        draining: admin.is_draining(),
        admission: admin.watch.seen(),
        rates: &admin.rates(),
        at_start: *admin.memory_at_start.get_or_init(Memory::now),
    };
    Json(stats::stats(&admin.facts, &admin.shards, &now))
}
