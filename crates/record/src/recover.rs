//! The sections of a record about channels on several nodes.

use serde::{Deserialize, Serialize};

use crate::Latency;

/// Of `recover`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoverFacts {
    /// Whether the channels have history.
    pub history: bool,
    /// Channels that the subscribers were spread over.
    pub channels: u64,
    /// Connections that published.
    pub publishers: u64,
    /// Publications that were answered `published`.
    pub published: u64,
    /// Publications that were refused `overloaded`. They may be stored all the same.
    pub refused: u64,
    /// Publications whose connection ended before their answer.
    pub unanswered: u64,
    /// Subscriptions that ended with their connection.
    pub ended: u64,
    /// Subscribers that came back with nothing missing.
    pub recovered: u64,
    /// Subscribers that came back and were told that publications are lost.
    pub told: u64,
    /// Deliveries of publications that were missed by their subscriber at first.
    pub recovered_publications: u64,
    /// Publications that subscribers were told to be left out.
    pub dropped: u64,
    /// Deliveries that are missing, although the server did not say so: none with history, or the run failed.
    pub missing: u64,
    /// Publications that are stored twice: none, or the run failed.
    pub repeated: u64,
    /// From the end of a connection until its subscriber is subscribed again, in microseconds.
    pub away_us: Latency,
    /// The times in which subscribers were away.
    pub outages: Vec<Outage>,
}

/// From the first subscriber whose connection ends until all are subscribed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// When it began, in the hold phase.
    pub begun_seconds: f64,
    /// How long it lasted.
    pub seconds: f64,
    /// Subscriptions that ended.
    pub ended: u64,
    /// Subscribers that came back with nothing missing.
    pub recovered: u64,
    /// Subscribers that came back and were told that publications are lost.
    pub told: u64,
}

/// Of `interest`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct InterestFacts {
    /// Channels of all connections, each of one connection.
    pub channels: u64,
    /// Subscriptions that ended and began again.
    pub changed: u64,
    /// Of the pings of the connections beside, if there were any.
    pub beside_us: Option<Latency>,
}
