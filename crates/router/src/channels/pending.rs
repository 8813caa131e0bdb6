//! Commands that wait for an answer: of the owner of a channel, or of the broker.

use std::sync::Arc;

use super::name::ChannelName;
use super::publication::{HistoryQuery, Publisher};
use crate::names::{Member, Shard, Ticket};

/// A publication that the broker has yet to append.
pub(super) struct Appending {
    pub(super) channel: Arc<str>,
    pub(super) publisher: Publisher,
    /// The publisher's shard.
    pub(super) from: Shard,
}

/// A request for publications that the broker has yet to answer.
pub(super) enum Fetching {
    /// Of what is missing after the newest publication of the channel's window, which has
    /// this offset, if the broker has taken it since this time.
    Gap { name: ChannelName, after: u64, since: u64 },
    /// Of what joins need that is older than the window.
    Recovery { name: ChannelName },
    /// Of what a query needs.
    Read { name: ChannelName, query: HistoryQuery, ticket: Ticket, from: Shard },
}

/// A join that the owner of a channel has not answered.
pub(super) struct PendingJoin {
    pub(super) member: Member,
    /// The index of the subscription among those of the member.
    pub(super) index: u32,
    pub(super) channel: u32,
    pub(super) ticket: Ticket,
    /// The id of the member as a reader, if it recovers.
    pub(super) reader: u32,
}
