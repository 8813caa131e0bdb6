//! The sections of a record about members of channels.

use serde::{Deserialize, Serialize};

use crate::Latency;

/// Members as the server counts them, all channels of the run together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceCount {
    /// Connections that are members.
    pub clients: u64,
    /// Their users, those of each channel by themselves.
    pub users: u64,
}

/// Of `phoenix`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PhoenixFacts {
    /// Topics that the connections were spread over.
    pub topics: u64,
    /// Whether each connection had a user of its own, and was thereby a member of its topic.
    pub users: bool,
    /// The members at the end, if the server was asked: as many as connections with users, or the run failed.
    pub members: Option<PresenceCount>,
    /// Messages about members that clients got.
    pub presence_messages: u64,
}

/// Of `presence`. A join is a subscription, a leave the end of one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PresenceFacts {
    /// Channels that the connections were spread over.
    pub channels: u64,
    /// Joins in the hold phase.
    pub joins: u64,
    /// Leaves in the hold phase.
    pub leaves: u64,
    /// Messages with all members of a channel that clients got, in all phases.
    pub states: u64,
    /// Messages with changes, in all phases.
    pub diffs: u64,
    /// Joins and leaves in them, all checked.
    pub changes: u64,
    /// Messages with counts, in all phases.
    pub counts: u64,
    /// Clients that knew all members of their channel, or its count, at the end: exactly, or the run failed.
    pub exact: u64,
    /// The members at the end, if the server was asked: as many as there must be, or the run failed.
    pub members: Option<PresenceCount>,
    /// Of the pings of the connections beside, if there were any.
    pub beside_us: Option<Latency>,
}
