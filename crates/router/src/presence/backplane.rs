//! The interface below the owners of channels to the other nodes of a cluster.

use std::sync::Arc;

use super::member::{Changes, Count, Node, PresentMember};
use crate::channels::{Interest, Origin};

/// Tells other nodes about the members of this one. The owner of a channel calls it.
///
/// A node holds its own members only. Of a channel with watchers it also has what other nodes say
/// ([`RemoteEvent`]); the backplane numbers the changes, notices gaps, and asks for the state of a channel
/// ([`Presence::tell`](super::Presence::tell)).
pub trait PresenceBackplane {
    /// Whether there are other nodes. If not, no other method is called.
    fn exchanges(&self) -> bool;
    /// The first shard of this node watches `channel`, or the last one has stopped.
    fn interest(&mut self, channel: &str, interest: Interest);
    /// The members of this node in a small channel have changed; there are `left` of them now.
    fn changes(&mut self, channel: &str, changes: &Changes, left: usize);
    /// These are all members of this node in a small channel.
    fn members(&mut self, channel: &str, members: &[PresentMember]);
    /// This node has so many members in a large channel. Comes at most once an interval, beside answers to
    /// [`Presence::tell`](super::Presence::tell), and also if only the numbers of other nodes have changed.
    fn count(&mut self, channel: &str, count: Count);
}

/// Told of each member of this node that joins or leaves a channel, at once and in order. The owner of the
/// channel calls it. A member whose connection is lost leaves at the end of its grace, or when its user is
/// back; its metadata is no matter.
pub trait MemberObserver {
    /// A session is a member of `channel` from now on.
    fn joined(&mut self, channel: &str, origin: Origin, user: &str);
    /// A session, which has joined, is a member no more.
    fn left(&mut self, channel: &str, origin: Origin, user: &str);
}

/// What other nodes say. The caller passes it to the owner of the channel
/// ([`Presence::remote`](super::Presence::remote)), in the order of each node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are described with their variant")]
pub enum RemoteEvent {
    /// The members of the node in a small channel have changed.
    Changes { node: Node, channel: Arc<str>, changes: Changes },
    /// All members of the node in a small channel.
    Members { node: Node, channel: Arc<str>, members: Vec<PresentMember> },
    /// The node has so many members in a large channel.
    Count { node: Node, channel: Arc<str>, count: Count },
    /// The node is dead: it has no members in any channel. Every shard is told.
    Gone { node: Node },
}

/// The backplane of a single process.
pub struct LocalPresence;

impl PresenceBackplane for LocalPresence {
    fn exchanges(&self) -> bool {
        false
    }

    fn interest(&mut self, _: &str, _: Interest) {}

    fn changes(&mut self, _: &str, _: &Changes, _: usize) {}

    fn members(&mut self, _: &str, _: &[PresentMember]) {}

    fn count(&mut self, _: &str, _: Count) {}
}
