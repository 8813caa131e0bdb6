//! The admin port: health, metrics, statistics and the API over HTTP.
//!
//! It reads the counters of the shards, asks for their channels by mail, and never uses their
//! sockets.

mod api;
mod error;
mod host;
mod listener;
mod metrics;
mod series;
mod stats;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router, middleware};

pub(crate) use self::api::{Api, ApiKey};
use self::error::{ApiError, BAD_METHOD, NOT_FOUND};
use self::listener::BOUNDS;
use self::metrics::Metrics;
pub(crate) use self::series::{ShardCounters, totals};
pub(crate) use self::stats::{Choice, Facts};
use self::stats::{Memory, Now};
use crate::backend::Counts;
use crate::backplane::nats::Nats;
use crate::backplane::presence::OtherNodes;
use crate::control::memory::Watch;
use crate::control::{Never, Sampler};
use crate::webhooks::Webhooks;
use murre_session_log::SessionLog;

/// The data that the admin port shows.
pub(crate) struct Admin {
    facts: Facts,
    started: Instant,
    /// The memory of the process when the admin port begins to serve.
    memory_at_start: OnceLock<Memory>,
    draining: AtomicBool,
    shards: Vec<ShardCounters>,
    metrics: Metrics,
    sampler: Arc<Sampler>,
    api: Api,
    watch: Arc<Watch>,
    others: Others,
}

/// Parts that a server has only if its settings ask for them.
#[derive(Clone)]
pub(crate) struct Others {
    /// The counts of the backend's calls.
    pub(crate) calls: Option<Arc<Counts>>,
    pub(crate) webhooks: Option<Arc<Webhooks>>,
    pub(crate) session_log: Option<Arc<SessionLog>>,
    /// The connection to the other nodes.
    pub(crate) nats: Option<Arc<Nats>>,
    /// The exchange of presence with them.
    pub(crate) nodes: Option<Arc<OtherNodes>>,
}

impl Admin {
    /// The admin port of a server with these `shards`, which starts now.
    pub(crate) fn new(
        facts: Facts,
        shards: Vec<ShardCounters>,
        api: Api,
        watch: Arc<Watch>,
        sampler: Arc<Sampler>,
        others: Others,
    ) -> Self {
        Admin {
            facts,
            started: Instant::now(),
            memory_at_start: OnceLock::new(),
            draining: AtomicBool::new(false),
            metrics: Metrics::new(shards.clone(), Arc::clone(&watch), &others),
            shards,
            sampler,
            api,
            watch,
            others,
        }
    }

    /// Makes `/readyz` answer 503 from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Serves the admin port on `listener`. It ends only with an error.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) -> Never {
        let routes = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/stats", get(stats))
            .merge(api::routes(&self))
            .fallback(async || ApiError::from(NOT_FOUND))
            .method_not_allowed_fallback(async || ApiError::from(BAD_METHOD))
            .with_state(Arc::clone(&self));
        let routes = match self.facts.admin.ip().to_canonical().is_loopback() {
            true => routes.layer(middleware::from_fn(host::require_local)),
            false => routes,
        };
        self.memory_at_start.get_or_init(Memory::now);
        listener::serve(listener, routes, BOUNDS).await
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// The liveness check. A process that drains is alive: a supervisor that ends it cuts connections off.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The readiness check: whether new connections are wanted here, as `/healthz` of the data port says.
async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    if admin.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if !admin.watch.admits() {
        (StatusCode::SERVICE_UNAVAILABLE, "short of memory\n")
    } else if admin.others.nats.as_ref().is_some_and(|nats| !nats.has_joined()) {
        (StatusCode::SERVICE_UNAVAILABLE, "not connected to NATS yet\n")
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
        rates: series::rates(&admin.sampler),
        session_log: admin.others.session_log.as_deref().map(stats::session_log),
        nodes: admin.others.nodes.as_deref().map(|nodes| stats::nodes(nodes.counts())),
        nats: admin.others.nats.as_deref().map(|nats| stats::nats(nats.counts())),
        webhooks: admin.others.webhooks.as_deref().map(stats::webhooks).unwrap_or_default(),
        at_start: *admin.memory_at_start.get_or_init(Memory::now),
    };
    Json(stats::stats(&admin.facts, &admin.shards, &now))
}
