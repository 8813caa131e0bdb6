//! The section of a record about a run over several nodes, some of which end meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::PresenceCount;

/// Of `phoenix` with several nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodesFacts {
    /// Nodes at the beginning.
    pub nodes: u64,
    /// Users of the connections.
    pub users: u64,
    /// Members before the first node ended, as the last node counts them over all nodes: as many clients as
    /// connections, or the run failed. A user of several nodes may be counted for each.
    pub members_before: Option<PresenceCount>,
    /// The nodes that ended, in this order.
    pub ended: Vec<NodeEnd>,
    /// The session log at the end, if it was compared with the clients' users.
    pub sessions: Option<SessionCount>,
    /// Processes beside the clients, by name.
    pub processes: BTreeMap<String, ProcessFacts>,
}

/// The end of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeEnd {
    /// `killed` or `drained`.
    pub how: String,
    /// Its connections before that, by its own count.
    pub connections: u64,
    /// Connections that the clients lost: as many, or the run failed.
    pub lost: u64,
    /// Connection attempts that failed meanwhile and were repeated.
    pub tries_missed: u64,
    /// From the signal until all clients were back, each with its topic joined again.
    pub back_in_seconds: f64,
}

/// The session log at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// Users that are online: each user of the clients once and nobody else, or the run failed.
    pub online: u64,
    /// Those whose session began before the steady part and has not ended since: all, or the run failed.
    pub unbroken: u64,
}

/// A process and its children.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Processor time until all clients were connected.
    pub connect_cpu_seconds: f64,
    /// Processor time in the steady part.
    pub steady_cpu_seconds: f64,
    /// Proportional set size at the end of the steady part, in bytes.
    pub pss_bytes: u64,
}
