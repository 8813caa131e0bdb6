//! The section of a record about a server that asks an application.

use serde::{Deserialize, Serialize};

use crate::Latency;

/// Of `backend`: connections that come at once, about each of which the server asks an application.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendFacts {
    /// The application's part.
    pub application: ApplicationFacts,
    /// Each time that all connections came at once.
    pub arrivals: Vec<Arrival>,
    /// Latency of the pings of the connections beside, in all phases in which none came.
    pub quiet_us: Latency,
    /// The same in all phases in which they came.
    pub arriving_us: Latency,
}

/// The calls as the application counted them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ApplicationFacts {
    /// The time in which it answered a call.
    pub answer_seconds: f64,
    /// Calls that it has answered, in all phases.
    pub calls: u64,
    /// The most calls without an answer at one time.
    pub in_flight_max: u64,
}

/// One time that all connections came at once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Arrival {
    /// Until the last connection had its session.
    pub seconds: f64,
    /// The connections divided by `seconds`.
    pub connections_per_second: f64,
    /// Failed connection attempts that were repeated.
    pub tries_missed: u64,
}
