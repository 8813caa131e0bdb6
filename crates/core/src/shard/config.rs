//! The configuration of a shard.

use std::sync::Arc;
use std::time::Duration;

use crate::addresses::Addresses;
use crate::admission::Gate;

/// The limits and intervals of a shard.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The number of this shard among those of the server, with which the ids of its connections begin.
    pub index: u16,
    /// Connections at most, open and closing, and accepts in flight.
    pub max_conns: u32,
    /// Bytes that may be queued for a connection before one more message makes its peer a slow consumer,
    /// which is aborted. A queue so holds at most this and one message.
    pub max_send_bytes: u32,
    /// With this many bytes queued a connection is congested: its input is not read until they are sent.
    pub congested_bytes: u32,
    /// How long the peer of a closing connection may take none of the remaining bytes, and how long it may
    /// then take to close its side.
    pub linger: Duration,
    /// The unit of [`Outbox::set_timer`](crate::Outbox::set_timer).
    pub tick: Duration,
    /// The parts of a tick over which expiring timers are spread, at least; with more than 4,096
    /// connections a part there are more.
    pub slices: u32,
    /// Mails that wait in the [`Mailbox`](crate::Mailbox) at most.
    pub mails_max: usize,
    /// Refused and drained clients are asked to come back within this many seconds; see
    /// [`Outbox::retry_after`](crate::Outbox::retry_after).
    pub retry_after: u16,
    /// The counts and limits of addresses, shared by all shards of a server.
    pub addresses: Arc<Addresses>,
    /// The time from one accept to the next, on average; zero is no limit.
    pub accept_interval: Duration,
    /// How new connections are treated, for all shards of a server.
    pub gate: Arc<Gate>,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig {
            index: 0,
            max_conns: 10_000,
            max_send_bytes: 1024 * 1024,
            congested_bytes: 64 * 1024,
            linger: Duration::from_secs(3),
            tick: Duration::from_secs(1),
            slices: 8,
            mails_max: 4096,
            retry_after: 5,
            addresses: Arc::default(),
            accept_interval: Duration::ZERO,
            gate: Arc::default(),
        }
    }
}
