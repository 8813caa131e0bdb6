//! The application behind the server: it decides over HTTP, without holding connections.
//!
//! ```text
//!   hub ── Call ──▶ Backend: bounds, breaker ──▶ worker (a thread) ── POST ──▶ application
//!   hub ◀── mail: CallId, Answer ◀──────────── read as its type ◀─────────────┘
//! ```
//!
//! Requests and answers have the shapes of Centrifugo's HTTP proxy
//! (<https://centrifugal.dev/docs/server/proxy>), so applications that were written for it can answer.
//! A shard hands a [`Call`] over and goes on. It gets exactly one [`Answer`] by mail, unless its mailbox
//! stays full.

mod answer;
mod counts;
mod gate;
mod request;
#[cfg(any(test, feature = "fuzzing"))]
mod simulated;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use murre_router::Shard;
use tokio::sync::mpsc::{self, UnboundedSender};

pub(crate) use self::answer::{Answer, CallResult, Data, Failure, RawJson};
pub(crate) use self::counts::{Counts, Outcome};
use self::gate::Gate;
pub(crate) use self::request::{CallRequest, Encoding};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::simulated::SimulatedWorker;
pub(crate) use self::worker::{Deliver, Worker};

/// A decision that the application makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Who a client without a token is.
    Connect,
    /// Whether a session of a [`Connect`](CallKind::Connect) with an expiry goes on.
    Refresh,
    Subscribe,
    Publish,
    /// A request of a client, whose response is the application's.
    Rpc,
}

impl CallKind {
    pub(crate) const ALL: [CallKind; 5] = [
        CallKind::Connect,
        CallKind::Refresh,
        CallKind::Subscribe,
        CallKind::Publish,
        CallKind::Rpc,
    ];

    /// The name in settings, metrics and the log, and the last part of the default URL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CallKind::Connect => "connect",
            CallKind::Refresh => "refresh",
            CallKind::Subscribe => "subscribe",
            CallKind::Publish => "publish",
            CallKind::Rpc => "rpc",
        }
    }

    /// The members of a result that count.
    fn members(self) -> &'static [&'static str] {
        match self {
            CallKind::Connect => {
                &["user", "expire_at", "channels", "subs", "data", "b64data", "info", "meta"]
            }
            CallKind::Refresh => &["expired", "expire_at", "info", "meta"],
            CallKind::Subscribe => &["expire_at", "data", "b64data", "info"],
            CallKind::Publish | CallKind::Rpc => &["data", "b64data"],
        }
    }
}

/// The number of a call of a shard. It is not used again.
pub(crate) type CallId = u64;

/// A call: a request whose answer goes back to a shard.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) shard: Shard,
    pub(crate) kind: CallKind,
    /// Header fields of the client's request that the application wants.
    pub(crate) fields: HeaderMap,
    /// A [`CallRequest`] as JSON.
    pub(crate) body: Bytes,
    /// The time at which the whole answer must be there.
    pub(crate) deadline: Instant,
}

/// The settings of calls.
#[derive(Clone, Debug)]
pub(crate) struct BackendConfig {
    /// The URL of each kind of call, in the order of [`CallKind::ALL`]; `None` makes no such call.
    pub(crate) urls: [Option<Uri>; 5],
    /// The time from queueing a call to the last byte of its answer.
    pub(crate) timeout: Duration,
    /// Header fields of clients' requests that are passed on.
    pub(crate) headers: Arc<[HeaderName]>,
    /// Bytes of the data of an answer at most.
    pub(crate) data_bytes_max: usize,
}

/// The shards' side of calls.
pub(crate) struct Backend {
    config: BackendConfig,
    gates: Arc<[Gate; 5]>,
    counts: Arc<Counts>,
    calls: UnboundedSender<Call>,
}

impl Backend {
    /// The backend of this configuration, and the worker that makes its calls.
    pub(crate) fn new(config: BackendConfig) -> (Self, Worker) {
        // The gates bound it.
        let (calls, queue) = mpsc::unbounded_channel();
        let gates: Arc<[Gate; 5]> = Arc::default();
        let counts: Arc<Counts> = Arc::default();
        let worker = Worker::new(&config, queue, Arc::clone(&gates), Arc::clone(&counts));
        (Backend { config, gates, counts, calls }, worker)
    }

    /// Whether calls of this kind are made.
    pub(crate) fn makes(&self, kind: CallKind) -> bool {
        self.config.urls[kind as usize].is_some()
    }

    /// The time from queueing a call to the last byte of its answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The header fields of clients' requests that are passed on.
    pub(crate) fn headers(&self) -> &[HeaderName] {
        &self.config.headers
    }

    /// The counts of calls by kind and outcome.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Whether more than half of the places for calls of this kind are taken.
    pub(crate) fn is_crowded(&self, kind: CallKind) -> bool {
        self.gates[kind as usize].is_crowded()
    }

    /// Queues a call.
    ///
    /// # Errors
    /// Too many calls of the kind are queued, or the last ones have failed. There is no answer.
    pub(crate) fn submit(&self, call: Call) -> Result<(), Failure> {
        let kind = call.kind;
        let bytes = call.body.len();
        let entered = self.gates[kind as usize].enter(bytes).and_then(|()| {
            // It fails only if the worker has ended, and the process ends with it.
            self.calls.send(call).map_err(|_| Failure::Unreachable)
        });
        entered.inspect_err(|&why| self.counts.failed(kind, why, ""))
    }
}
