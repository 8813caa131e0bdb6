//! The record of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AbuseFacts, BackendFacts, InterestFacts, Machine, Memory, NodesFacts, PhaseFacts, PhoenixFacts,
    PresenceFacts, RecoverFacts, SoakFacts, StormFacts, VisitFacts,
};

/// One run. `P` is its command line, argument by argument: the writer has all of them, a reader those
/// that it needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record<P> {
    /// `murre-load`.
    pub tool: String,
    /// The server or build that was measured.
    pub label: String,
    /// The version of `murre-load`.
    pub version: String,
    /// The commit of the working directory; `+changes` if files differed from it.
    pub commit: Option<String>,
    /// When the run started, in UTC.
    pub started: String,
    /// The command line.
    pub command: Option<String>,
    /// The scenario.
    pub scenario: Scenario,
    /// Whether all checks of the run held.
    pub outcome: Outcome,
    /// Why they did not.
    pub reasons: Vec<String>,
    /// The command line's arguments, defaults included.
    pub parameters: P,
    /// The machine of `murre-load`.
    pub machine: Machine,
    /// How `murre-load` ran.
    pub client: ClientFacts,
    /// The connect phase.
    pub connect: Connect,
    /// The hold phase; `None` if not all connections were reached.
    pub hold: Option<Hold>,
    /// Connections that failed, by kind; `wrong` and `lost` again below, for they matter most.
    pub errors: BTreeMap<String, u64>,
    /// Connections that got a wrong answer.
    pub wrong: u64,
    /// Connections that the server closed, or that were reset.
    pub lost: u64,
    /// Answers in all phases, each checked and right.
    pub answered: u64,
    /// Of the hold phase and the answers outstanding at its end. Requests without an answer are in
    /// `errors` and not here.
    pub latency_us: Latency,
    /// Memory per connection, if the server's process is known.
    pub memory: Option<Memory>,
    /// What the article of 2012 told of its runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub article: Option<Article>,
    /// Of `fanout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fanout: Option<FanoutFacts>,
    /// Of `churn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<ChurnFacts>,
    /// Of `phoenix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phoenix: Option<PhoenixFacts>,
    /// Of `phoenix` with several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesFacts>,
    /// Of `presence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceFacts>,
    /// Of `recover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<RecoverFacts>,
    /// Of `interest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interest: Option<InterestFacts>,
    /// The parts of the hold phase, where it has several.
    #[serde(alias = "acts", default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseFacts>,
    /// Of `storm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<StormFacts>,
    /// Of `backend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendFacts>,
    /// Of `abuse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abuse: Option<AbuseFacts>,
    /// Of `soak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakFacts>,
    /// Of `abuse` and `soak`, by kind of visit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub visits: BTreeMap<String, VisitFacts>,
    /// The run second by second.
    pub series: Series,
}

impl<P> Record<P> {
    /// Connections that were reached.
    pub fn connections(&self) -> u64 {
        self.connect.connections
    }

    /// Connections that failed, whatever the kind.
    pub fn faults(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What the connections of a run do, in the order of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Idle WebSockets.
    WsIdle,
    /// Messages that come back unchanged.
    WsEcho,
    /// Publications to many subscribers.
    Fanout,
    /// HTTP requests with random pauses between them.
    HttpKeepalive,
    /// Texts that come back in upper case.
    WsUpper,
    /// Subscribers of a channel each, to which the server publishes.
    Pubsub,
    /// Requests to a service.
    RequestReply,
    /// Subscribers that come and go.
    Churn,
    /// Subscribers that recover on another node.
    Recover,
    /// Connections whose subscriptions change.
    Interest,
    /// Phoenix clients that send heartbeats.
    Phoenix,
    /// Members of channels that come and go, and those that are told.
    Presence,
    /// Connections that are killed and return.
    Storm,
    /// Connections that come at once to a server that asks an application about each.
    Backend,
    /// Hostile connections beside well-behaved ones.
    Abuse,
    /// Visitors that vanish in every way.
    Soak,
    /// Pages of quotes.
    Quotes,
}

/// Whether a run passed its own checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All checks held.
    Passed,
    /// At least one did not.
    Failed,
    /// A signal ended the run.
    Interrupted,
}

/// How `murre-load` ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientFacts {
    /// `uring`, `uring-plain` or `epoll`.
    pub io: String,
    /// Why that one.
    pub io_reason: String,
    /// `normal` or `direct`.
    pub descriptors: String,
    /// Why that kind.
    pub descriptors_reason: String,
    /// Threads.
    pub shards: u64,
    /// Where threads measure beside a load: whether they had real-time priority. Without it their times
    /// include what they waited for a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_time: Option<bool>,
    /// User memory per connection, by the size of its structures.
    pub bytes_per_connection: u64,
    /// Growth of our PSS from the first connect to the full hold, buffers and histograms included.
    pub pss_bytes_per_connection: Option<f64>,
    /// Processor time from the first connect to the end of the hold phase.
    pub cpu_seconds: f64,
}

/// From the first connect until all connections are up, handshake included; for http-keepalive
/// until each has had its first answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Connect {
    /// How long it took.
    pub seconds: f64,
    /// Connections that were up at its end.
    pub connections: u64,
    /// `connections` divided by `seconds`.
    pub connections_per_second: f64,
    /// Processor time of `murre-load`.
    pub client_cpu_seconds: f64,
    /// Processor time of the server, if its process is known.
    pub server_cpu_seconds: Option<f64>,
    /// `connections` divided by `server_cpu_seconds`.
    pub connections_per_server_cpu_second: Option<f64>,
}

/// From the end of the connect phase to the end of the requests.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// How long it took.
    pub seconds: f64,
    /// Requests, messages or pings that were answered, each checked.
    pub requests: u64,
    /// `requests` divided by `seconds`.
    pub requests_per_second: f64,
    /// Bytes received, heads and frames included.
    pub bytes_in: u64,
    /// Bytes sent, heads and frames included.
    pub bytes_out: u64,
    /// Processor time of `murre-load`.
    pub client_cpu_seconds: f64,
    /// Processor time of the server, if its process is known.
    pub server_cpu_seconds: Option<f64>,
    /// `requests` divided by `server_cpu_seconds`.
    pub requests_per_server_cpu_second: Option<f64>,
}

/// A distribution of times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The moment that the times are counted from.
    pub counted_from: CountedFrom,
    /// How many times there are.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// 90 % are not longer.
    pub p90: u64,
    /// 99 % are not longer.
    pub p99: u64,
    /// 99.9 % are not longer.
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
}

/// The moment that a time is counted from: says whether a late client is charged for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedFrom {
    /// When the request was due: corrected for coordinated omission.
    Due,
    /// When it was sent. Closed loop: the next is sent when one has come back, so a slow server
    /// is asked less often.
    SentInClosedLoop,
    /// When the server sent the message, as the message says, by the same clock in whole milliseconds.
    SentByServer,
    /// When it was published, on a schedule.
    Sent,
    /// When the first receiver had it.
    FirstHeard,
}

/// Of publications to many subscribers; a delivery is a request that was answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FanoutFacts {
    /// Those that every subscriber has, in all phases.
    pub publications: u64,
    /// Until the last subscriber had one.
    pub last_delivery_us: Latency,
    /// Of the pings of the connections beside, if there were any.
    pub beside_us: Option<Latency>,
}

/// What happened in `churn`, as the server's answers tell.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ChurnFacts {
    /// Publications.
    pub published: u64,
    /// Subscriptions.
    pub subscribed: u64,
    /// Subscriptions that ended.
    pub unsubscribed: u64,
    /// Connections that took the place of another.
    pub reconnected: u64,
    /// Subscriptions from a position, with nothing missing.
    pub recovered: u64,
    /// Publications that came because of it.
    pub recovered_publications: u64,
    /// Subscriptions from a position that the history did not reach back to.
    pub unrecovered: u64,
}

/// What the comparison of 2012 told of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Article {
    /// The mean response time.
    pub average_response_ms: f64,
    /// The mean size of a message.
    pub average_bytes: f64,
    /// The mean of the ten longest response times.
    pub ten_highest_ms: f64,
    /// The mean of the ten shortest response times.
    pub ten_lowest_ms: f64,
    /// The load average of the last minute, at the end.
    pub load_average: f64,
    /// The server's PSS at the end, if its process is known.
    pub server_bytes: Option<u64>,
    /// One row each 15 s.
    pub rows: Vec<Row>,
}

/// One row of that comparison. All but `connected` are since all connections were up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Connections asked for.
    pub connections: u64,
    /// Connections that are up.
    pub connected: u64,
    /// The mean response time.
    pub average_response_ms: f64,
    /// The mean size of a message.
    pub average_bytes: f64,
    /// Messages received.
    pub messages: u64,
    /// `messages` divided by `wall_seconds`.
    pub messages_per_second: f64,
    /// Time passed.
    pub wall_seconds: f64,
}

/// One value for each second since the first connect.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// Connections that are up.
    pub connections: Vec<u64>,
    /// Requests answered in that second.
    pub requests: Vec<u64>,
}
