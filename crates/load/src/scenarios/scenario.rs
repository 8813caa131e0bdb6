//! What a scenario's arguments say about its run, and how its workers start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use murre_record::{
    ApplicationFacts, ChurnFacts, CountedFrom, FanoutFacts, InterestFacts, NodesFacts,
    PhoenixFacts, PresenceFacts, RecoverFacts, Scenario as Kind, VisitFacts,
};

use crate::cli::common::Common;
use crate::client::Client;
use crate::client::ws::{WsClient, WsScenario};
use crate::engine::fleet::Fleet;
use crate::engine::share::part;
use crate::engine::times::Times;
use crate::engine::wakeups::Wakeups;
use crate::engine::workers::{self, Starting, WorkerConfig};
use crate::run::nodes::NodePlan;

/// A scenario's own arguments.
pub(crate) trait Scenario {
    /// The properties of the scenario that the run needs.
    fn profile(&self) -> Profile;

    /// Errors that no single argument shows.
    fn check(&self, _common: &Common) -> Result<(), String> {
        Ok(())
    }

    /// Starts what the run needs beside its workers, before them.
    ///
    /// # Errors
    /// It cannot be started: there is no run.
    fn prepare(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// All connections that are held at once.
    fn conns_all(&self, common: &Common) -> u64 {
        u64::from(common.conns)
    }

    /// Connections at a time that come and go beside them.
    fn visitors(&self, _common: &Common) -> u32 {
        0
    }

    /// The connections of one worker.
    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        part(self.conns_all(common) as u32, worker, workers)
    }

    /// The parts of the hold phase.
    fn hold_plan(&self, _common: &Common) -> HoldPlan {
        HoldPlan::Steady
    }

    /// Whether the hold phase ends before `--duration` is over; asked at least once a second.
    fn is_over(&self) -> bool {
        false
    }

    /// Starts one worker's thread.
    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting;

    /// Compares the server's state with that of the `connections` that are up, once nothing is in flight.
    ///
    /// # Errors
    /// They differ, or the server cannot be asked: the run fails.
    fn verify(&self, _connections: u64) -> anyhow::Result<()> {
        Ok(())
    }

    /// The same meanwhile, in a hold phase in which nodes end.
    ///
    /// # Errors
    /// As `verify`.
    fn compare(&self, _connections: u64) -> anyhow::Result<()> {
        Ok(())
    }

    // ---- for the record ----

    fn fanout_facts(&self, _times: &Times) -> Option<FanoutFacts> {
        None
    }

    fn churn_facts(&self) -> Option<ChurnFacts> {
        None
    }

    fn phoenix_facts(&self) -> Option<PhoenixFacts> {
        None
    }

    fn nodes_facts(&self, _common: &Common) -> Option<NodesFacts> {
        None
    }

    fn presence_facts(&self, _times: &Times) -> Option<PresenceFacts> {
        None
    }

    fn recover_facts(&self, _times: &Times) -> Option<RecoverFacts> {
        None
    }

    fn interest_facts(&self, _common: &Common, _times: &Times) -> Option<InterestFacts> {
        None
    }

    fn application_facts(&self) -> Option<ApplicationFacts> {
        None
    }

    fn visit_facts(&self) -> BTreeMap<String, VisitFacts> {
        BTreeMap::new()
    }
}

/// What is the same for all connections of a scenario.
pub(crate) struct Profile {
    pub(crate) kind: Kind,
    /// The request target, unless `--path` names one.
    pub(crate) path: &'static str,
    /// Threads for connections that others must not delay. They have real-time priority where the machine
    /// allows it.
    pub(crate) apart: Apart,
    /// The unit of the connections' timers.
    pub(crate) tick: Duration,
    /// Bytes of our messages that one connection may have in flight.
    pub(crate) in_flight_bytes: u32,
    /// What the record's latencies are counted from.
    pub(crate) counted_from: CountedFrom,
    /// Whether the server begins, so that a run without messages is a failure.
    pub(crate) must_receive: bool,
    /// Whether clients return when their connections have ended, so that for a while there may be none.
    pub(crate) returns: bool,
    /// Whether the comparison of 2012 measured this, and the file for its columns.
    pub(crate) columns: Option<Option<PathBuf>>,
    /// User memory per virtual client, by the size of its structures.
    pub(crate) bytes_per_connection: usize,
}

impl Profile {
    /// Of most scenarios.
    pub(crate) fn new(kind: Kind, bytes_per_connection: usize) -> Profile {
        Profile {
            kind,
            path: "/ws",
            apart: Apart::First(0),
            tick: Duration::from_millis(100),
            in_flight_bytes: 0,
            counted_from: CountedFrom::Due,
            must_receive: false,
            returns: false,
            columns: None,
            bytes_per_connection,
        }
    }
}

/// The workers whose connections others must not delay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Apart {
    /// So many of the first workers.
    First(usize),
    /// The last worker.
    Last,
}

impl Apart {
    /// The last worker if there are connections beside those of the scenario, otherwise none.
    pub(crate) fn with_beside(beside: u32) -> Self {
        if beside > 0 { Apart::Last } else { Apart::First(0) }
    }

    pub(crate) fn count(self) -> usize {
        match self {
            Apart::First(count) => count,
            Apart::Last => 1,
        }
    }

    /// Whether this worker of so many is one of them.
    pub(crate) fn has(self, worker: usize, workers: usize) -> bool {
        match self {
            Apart::First(count) => worker < count,
            Apart::Last => worker + 1 == workers,
        }
    }
}

/// The parts of a hold phase.
#[derive(Clone, Debug)]
pub(crate) enum HoldPlan {
    /// One part.
    Steady,
    /// Quiet; then twice, without jitter and with: reset, return, quiet.
    Storm { stayed: u64, jitter: Duration },
    /// Quiet; then all but the connections beside are reset, and come back at once: so many times.
    Arrivals { beside: u64, times: u32 },
    /// Steady; then nodes end.
    Nodes(NodePlan),
    /// Twice: quiet, hostile, a pause.
    Abuse,
    /// Visits and a pause, twice; the server's state after both is compared.
    Soak { admin: SocketAddr },
}

/// What the workers of a run have in common.
pub(crate) struct Setup<'a> {
    pub(crate) common: &'a Common,
    pub(crate) path: &'a str,
    pub(crate) workers: usize,
    pub(crate) wakeups: &'a Arc<Wakeups>,
    /// Bytes of our messages that one connection may have in flight.
    pub(crate) in_flight_bytes: u32,
}

/// What the clients of one worker know of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientSetup {
    /// `--conns`: of all workers.
    pub(crate) conns: u32,
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    pub(crate) seed: u64,
}

impl ClientSetup {
    /// Workers number their connections alike: their seeds differ all the same.
    pub(crate) fn own_seed(&self) -> u64 {
        self.seed.wrapping_add(u64::from(self.worker) << 48)
    }
}

impl Setup<'_> {
    pub(crate) fn client(&self, config: &WorkerConfig) -> ClientSetup {
        let Common { conns, seed, .. } = *self.common;
        ClientSetup { conns, worker: config.share.shard as u32, workers: self.workers as u32, seed }
    }

    /// The `Host` of requests. The first target stands for all: they are one server.
    pub(crate) fn host(&self) -> String {
        self.common.target.addresses()[0].to_string()
    }

    /// Starts a worker whose clients speak WebSocket.
    pub(crate) fn start_ws<T: WsScenario + 'static>(
        &self,
        config: WorkerConfig,
        make: impl FnOnce(ClientSetup) -> T + Send + 'static,
    ) -> Starting {
        let (host, path) = (self.host(), self.path.to_owned());
        let bytes_max =
            MESSAGE_BYTES_MAX.max(self.in_flight_bytes.saturating_add(ENVELOPE_BYTES_MAX));
        self.start_clients(config, move |client| {
            WsClient::new(make(client), host, path, client.own_seed(), bytes_max)
        })
    }

    /// Starts a worker with any kind of clients.
    pub(crate) fn start_clients<C: Client + 'static>(
        &self,
        config: WorkerConfig,
        make: impl FnOnce(ClientSetup) -> C + Send + 'static,
    ) -> Starting {
        let (client, timeout) = (self.client(&config), self.common.timeout);
        workers::start(config, move |parts| {
            Fleet::new(make(client), client.own_seed(), timeout, parts)
        })
    }
}

/// `--rate`, where it is the pace of an open loop.
pub(crate) fn check_rate(rate: Option<f64>) -> Result<(), String> {
    if rate == Some(0.0) {
        return Err("--rate must be more than 0: leave it out for a closed loop".to_owned());
    }
    Ok(())
}

/// What latencies are counted from where `--rate` makes an open loop.
pub(crate) fn counted_from(rate: Option<f64>) -> CountedFrom {
    if rate.is_some() { CountedFrom::Due } else { CountedFrom::SentInClosedLoop }
}

/// Messages of one connection that are in flight.
pub(crate) fn check_in_flight(payload: u32, pipeline: u32) -> Result<(), String> {
    if u64::from(payload) * u64::from(pipeline) > u64::from(PAYLOAD_MAX) {
        return Err(format!("--payload times --pipeline is more than {PAYLOAD_MAX} bytes"));
    }
    Ok(())
}

/// Times that a timer of 10 ms counts.
pub(crate) fn check_fine(seconds: f64) -> Result<(), String> {
    if seconds > FINE_SECONDS_MAX {
        return Err(format!("--idle, --every and --timeout are {FINE_SECONDS_MAX} s here at most"));
    }
    Ok(())
}

/// The tick of scenarios for whose pauses 100 ms are too coarse.
pub(crate) const FINE_TICK: Duration = Duration::from_millis(10);

/// What a timer of 10 ms can count.
const FINE_SECONDS_MAX: f64 = 650.0;

/// Bytes that one connection may have in flight.
pub(crate) const PAYLOAD_MAX: u32 = 64 << 20;

/// The longest message taken, if ours are not longer.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// What a message of ours may come back in.
const ENVELOPE_BYTES_MAX: u32 = 4096;
