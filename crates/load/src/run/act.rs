//! The acts of the scenarios that hold their connections in several: what happens in each, and what
//! the record says of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Latency;

/// A part of the hold phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// The connections do what they always do.
    Quiet,
    /// storm: all but those who stay are reset in one moment.
    Kill,
    /// storm: they come back, each at a random moment of `over`.
    Return { over: Duration },
    /// abuse, soak: visitors come, one after the other.
    Visit,
    /// abuse, soak: those who are there are reset, and the server is left alone.
    Settle,
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Act::Quiet => "quiet",
            Act::Kill => "kill",
            Act::Return { .. } => "return",
            Act::Visit => "visit",
            Act::Settle => "settle",
        }
    }
}

/// One act, as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ActFacts {
    pub(crate) act: String,
    pub(crate) seconds: f64,
    pub(crate) client_cpu_seconds: f64,
    pub(crate) server_cpu_seconds: Option<f64>,
    /// Of what was due in it.
    pub(crate) latency_us: Latency,
}
