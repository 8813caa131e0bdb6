//! The exchange as the owners of channels see it.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use murre_router::Shard;
use murre_router::channels::Interest;
use murre_router::presence::{
    Changes, Count, PresenceBackplane, PresencePage, PresenceQuery, PresentMember,
};

use tokio::sync::oneshot;

use super::exchange::{Asker, FromShard, Whereabouts};
use super::finds::FoundHere;
use super::told::Telling;
use super::wire::Incarnation;

/// What the thread of the exchange is told.
pub(crate) enum Command {
    /// By the owner of a channel.
    FromShard(Shard, Arc<str>, FromShard),
    /// A message to the subject of a channel, or to one of nodes.
    Heard(Option<Arc<str>>, Vec<u8>),
    /// A page of the members of all nodes is wanted.
    Read(Asker, Arc<str>, PresenceQuery),
    /// The page of the members of this node for this node or another one.
    Page { to: Incarnation, id: u64, page: PresencePage },
    /// The connections of a user on all nodes are wanted.
    Find(oneshot::Sender<Whereabouts>, Arc<str>),
    /// What a shard of this node has found for this node or another one.
    Found { to: Incarnation, id: u64, found: FoundHere },
    /// There is a new connection: what was sent and received before may be lost.
    Connected,
    /// This node ends. The sender is dropped when others have been told.
    End(Sender<()>),
}

/// Passes what the owners of one shard tell on to the exchange. It never waits.
pub(crate) struct ShardPresence {
    pub(super) shard: Shard,
    pub(super) exchange: Sender<Command>,
}

impl ShardPresence {
    fn send(&self, channel: &str, what: FromShard) {
        // The process ends when the thread has.
        let _ = self.exchange.send(Command::FromShard(self.shard, channel.into(), what));
    }
}

impl PresenceBackplane for ShardPresence {
    fn exchanges(&self) -> bool {
        true
    }

    fn interest(&mut self, channel: &str, interest: Interest) {
        self.send(channel, FromShard::Interest(interest));
    }

    fn changes(&mut self, channel: &str, changes: &Changes, left: usize) {
        let changes = changes.clone();
        self.send(channel, FromShard::Telling(Telling::Changes { changes, left }));
    }

    fn members(&mut self, channel: &str, members: &[PresentMember]) {
        self.send(channel, FromShard::Telling(Telling::Members(members.to_vec())));
    }

    fn count(&mut self, channel: &str, count: Count) {
        self.send(channel, FromShard::Telling(Telling::Count(count)));
    }
}
