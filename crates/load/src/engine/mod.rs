//! The threads that hold virtual clients, and their counts.
//!
//! ```text
//!   workers      a ring each; the workers of one core share a thread
//!      └─▶ fleet     connects, holds and counts the clients of a worker; reconnects after a storm
//!      └─▶ failover  clients that return when the server has ended their connection: where and when
//!   orders       messages between the threads; wakeups: one worker wakes another
//!   pace         the rate of connects
//!   score        counts; times: latencies
//! ```

pub(crate) mod failover;
pub(crate) mod fleet;
pub(crate) mod orders;
pub(crate) mod pace;
mod reconnects;
pub(crate) mod score;
pub(crate) mod share;
pub(crate) mod times;
pub(crate) mod wakeups;
pub(crate) mod workers;

use std::sync::mpsc::Sender;

use murre_core::Protocol;

use self::orders::{WorkerEvent, WorkerOrder};
use self::score::Score;
use self::share::Share;

/// The clients of one worker.
pub(crate) trait Scored: Protocol<Mail = WorkerOrder> {
    /// Their counts and latencies.
    fn score(&self) -> &Score;
}

/// What every worker's clients are made with.
pub(crate) struct WorkerParts {
    pub(crate) score: Score,
    pub(crate) share: Share,
    pub(crate) events: Sender<WorkerEvent>,
}
