//! Requests of the control plane to a shard's hub. Each carries the sender for its answer.

use murre_core::{ConnId, GlobalConnId};
use murre_router::channels::{ChannelInfo, Cursor, Payload};
use murre_router::presence::{PresencePage, PresenceQuery};
use tokio::sync::oneshot::Sender;

use super::orders::Order;
use super::pending::Published;

/// A request of the control plane. An answer that nobody waits for any more is dropped.
pub(crate) enum Control {
    /// Publish to a channel, regardless of the rights that its namespace gives sessions.
    Publish { channel: Box<str>, payload: Payload, answer: Sender<Published> },
    /// List channels that this shard owns. The answer has the cursor of the next page if there is one.
    Channels { from: Cursor, limit: usize, answer: Sender<(Vec<ChannelInfo>, Option<Cursor>)> },
    /// Describe one channel, if this shard owns it and it exists.
    Channel { name: Box<str>, answer: Sender<Option<ChannelInfo>> },
    /// A page of the members of a channel that this shard owns.
    Presence { channel: Box<str>, query: PresenceQuery, answer: Sender<PresencePage> },
    /// The connections of a user on this shard.
    ConnectionsOf { user: Box<str>, answer: Sender<Vec<GlobalConnId>> },
    /// Describe a session of this shard.
    Connection { conn: ConnId, answer: Sender<Option<ConnectionInfo>> },
    /// Do something to sessions of this shard.
    Order(Order),
}

/// The description of a session for the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    pub(crate) user: Option<String>,
    /// When its token expires, in Unix seconds.
    pub(crate) expires: Option<u64>,
    pub(crate) subscriptions: Vec<String>,
    /// Bytes that are queued for its connection.
    pub(crate) queued: u32,
}
