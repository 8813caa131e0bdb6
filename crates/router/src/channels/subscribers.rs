//! The interface through which publications reach the members of a shard.

use std::sync::Arc;

use super::publication::Publication;
use crate::names::Member;

/// The caller's encoding of a publication (frames, for instance). The router keeps one beside each
/// publication that waits, so that all subscribers on the shard share it.
pub trait Encoded: Default {
    /// Bytes that the encoding holds now.
    fn bytes(&self) -> usize;
}

impl Encoded for () {
    fn bytes(&self) -> usize {
        0
    }
}

impl Encoded for Option<u32> {
    fn bytes(&self) -> usize {
        self.map_or(0, |_| size_of::<u32>())
    }
}

/// The answer to an offered publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The member has it.
    Yes,
    /// The member's connection is congested and did not take it. The member is behind from this
    /// publication on.
    Full,
    /// The member has left or does not get this publication. It counts as delivered.
    Gone,
}

/// The consequence for a member whose cursor has left the channel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// The member goes on with the oldest publication that is left.
    SkipToOldest,
    /// The member goes on with the newest publication.
    SkipToNewest,
    /// The caller ends the connection. Until [`leave`](super::Channels::leave) the member stays
    /// subscribed and gets nothing more of the channel; the router does not ask again.
    End,
}

/// The result of [`Channels::pull`](super::Channels::pull).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// The member has caught up in all channels, apart from those that have ended for it
    /// ([`Overrun::End`]).
    CaughtUp,
    /// The member took publications until its connection was congested. Pull again when the connection
    /// has taken them.
    Full,
    /// The owner of a channel was asked for a slice of history.
    /// [`Event::Readable`](super::Event::Readable) says when to pull again.
    Waiting,
}

/// The caller's side of deliveries: the members of a shard.
pub trait Subscribers<E> {
    /// Hands `publication` to `member`. `encoded` is the caller's encoding of the publication, empty at
    /// first, which the caller may fill in. A member with nothing queued must take at least one
    /// publication.
    fn offer(&mut self, member: Member, publication: &Publication, encoded: &mut E) -> Taken;

    /// The member's cursor has left the channel's log. Returns the consequence by the channel's rules.
    fn overrun(&mut self, member: Member, channel: &Arc<str>) -> Overrun;

    /// Reports that `count` publications of the channel were skipped for the member, before the next
    /// offer of the channel to it.
    fn dropped(&mut self, member: Member, channel: &Arc<str>, count: u64);

    /// Whether a slow reader of this channel continues with the newest publication when it pulls.
    fn conflates(&self, _channel: &str) -> bool {
        false
    }
}
