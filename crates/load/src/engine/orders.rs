//! Messages between the main thread and the workers.

use std::time::Duration;

/// From the main thread, or another worker, to a worker; all but `Phase` and `Wake`, which may come more
/// often, once and in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerOrder {
    /// Connect.
    Start,
    /// All connections of all workers are up: the hold phase begins.
    Begin,
    /// Another part of the hold phase begins.
    Phase(Phase),
    /// Another worker has changed shared state.
    Wake,
    /// Send no new requests.
    Finish,
    /// Close all connections within `over`, and end.
    Leave { over: Duration },
}

/// A part of the hold phase, in scenarios that have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connections do what they always do.
    Quiet,
    /// storm, backend: all but the staying connections are reset in one moment.
    Kill,
    /// storm, backend: they return, each at a random moment of `over`.
    Return { over: Duration },
    /// phoenix: a node ends, and its clients go to the others.
    NodeEnds,
    /// abuse, soak: visitors come, one after the other.
    Visit,
    /// abuse, soak: the visitors that are left are reset, and the server is left alone.
    Settle,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Quiet => "quiet",
            Phase::Kill => "kill",
            Phase::Return { .. } => "return",
            Phase::NodeEnds => "node-ends",
            Phase::Visit => "visit",
            Phase::Settle => "settle",
        }
    }
}

/// From a worker, or the signal thread, to the main thread.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// All connections of the worker are up.
    Full,
    /// More faults than the run allows; the worker opens no more connections.
    Failing,
    /// The worker sends no new requests; its tally has the answers that it is owed.
    Finished,
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The worker's thread ended before it was told to.
    Died(std::io::Error),
}
