//! The sections of a record for scenarios that divide the hold phase into several parts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Latency;

/// One part of the hold phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseFacts {
    /// `quiet`, `kill`, `return`, `node-ends`, `visit` or `settle`.
    #[serde(alias = "act")]
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
    /// Processor time of `murre-load`.
    pub client_cpu_seconds: f64,
    /// Processor time of the server, if its process is known.
    pub server_cpu_seconds: Option<f64>,
    /// Of the requests that were due in this part.
    pub latency_us: Latency,
}

/// What came of the storms of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StormFacts {
    /// Connections that were not killed.
    pub stayed: u64,
    /// The server's PSS with all connections, before the first storm, in bytes.
    pub pss_before: Option<u64>,
    /// The first without jitter, the second with it.
    pub storms: Vec<OneStorm>,
}

/// One storm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneStorm {
    /// The span in which each connection came back at a random moment.
    pub jitter_seconds: f64,
    /// Until the client had closed the last killed connection.
    pub killed_in_seconds: f64,
    /// Until the last connection was back.
    pub back_in_seconds: f64,
    /// Failed connection attempts that were repeated.
    pub tries_missed: u64,
    /// The server's PSS while the killed connections were away, in bytes.
    pub pss_gone: Option<u64>,
    /// The server's PSS with all connections again, in bytes.
    pub pss_after: Option<u64>,
}

/// How hostile connections affected the well-behaved ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AbuseFacts {
    /// Latency of the well-behaved in all phases without hostile connections.
    pub quiet_us: Latency,
    /// The same in all phases with them.
    pub abused_us: Latency,
}

/// What `soak` left behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SoakFacts {
    /// After a warm-up.
    pub before: Remains,
    /// At the end.
    pub after: Remains,
}

/// The state of a server without connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Remains {
    /// Numbers of `/stats` that must be 0 and are not.
    pub not_zero: BTreeMap<String, u64>,
    /// Connections that the server has accepted so far.
    pub accepted: u64,
    /// Open files of the process.
    pub files: Option<u64>,
    /// PSS of the process.
    pub pss_bytes: Option<u64>,
    /// Objects in the kernel's caches for sockets, of the whole machine.
    pub objects: BTreeMap<String, u64>,
    /// By how much those counts may be off.
    pub slack_objects: u64,
}

/// Counts of one kind of visit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VisitFacts {
    /// Visits that began.
    pub begun: u64,
    /// Visits that ended as they must.
    pub as_it_must: u64,
    /// Visits that ended otherwise.
    pub otherwise: u64,
    /// How the first of those ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_otherwise: Option<String>,
}
