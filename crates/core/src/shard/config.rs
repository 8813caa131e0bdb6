//! A shard's bounds.

use std::sync::Arc;
use std::time::Duration;

use crate::addresses::Addresses;
use crate::admission::Gate;

/// A shard's bounds.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The number of this shard among those of the server, which ids of connections begin with.
    pub index: u16,
    /// Connections at most.
    pub conns_max: u32,
    /// A peer for which more bytes than this are queued when there is something more for it is a
    /// slow consumer. So a queue holds at most this and one message.
    pub send_bytes_max: u32,
    /// With so many bytes queued a connection is handed nothing more, and its input is not worked on,
    /// until some of them are sent.
    pub congested_bytes: u32,
    /// How long the peer of a connection that is being closed may take for some more of what is left
    /// to send, and then to close its side.
    pub linger: Duration,
    /// The unit of timers.
    pub tick: Duration,
    /// How many parts of a tick timers are spread over, at least: many connections make more.
    pub slices: u32,
    /// Mails that wait at most.
    pub mails_max: usize,
    /// Who is sent away is to come back within so many seconds; see [`Outbox::retry_after`].
    pub retry_after: u16,
    /// Where the connections of each address are counted: the same for all shards of a server.
    pub addresses: Arc<Addresses>,
    /// From one accept to the next, over some time; zero: as fast as they come.
    pub accept_interval: Duration,
    /// Whether new connections are let in.
    pub gate: Arc<Gate>,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig {
            index: 0,
            conns_max: 10_000,
            send_bytes_max: 1024 * 1024,
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
