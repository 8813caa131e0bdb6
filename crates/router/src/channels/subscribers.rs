//! The interface through which publications reach the members of a shard.

use std::sync::Arc;

use super::Publication;
use crate::Member;

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
    /// The member is gone or does not want it. It counts as handed over.
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
    /// subscribed, hears nothing more of the channel, and the router does not ask again.
    End,
}

/// The result of [`Channels::pull`](super::Channels::pull).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// The member has caught up in all channels, or the rest of them ends ([`Overrun::End`]).
    CaughtUp,
    /// The member took publications until it was full. Pull again when its connection has taken
    /// them.
    Full,
    /// The owner of a channel was asked for a slice of history.
    /// [`Event::Readable`](super::Event::Readable) says when to pull again.
    Waiting,
}

/// The members of a shard, as the caller knows them.
pub trait Subscribers<E> {
    /// Hands `publication` to `member`. `encoded` is the caller's encoding of it, empty at first, which
    /// the caller may complete. A member that has taken everything must take at least one.
    fn offer(&mut self, member: Member, publication: &Publication, encoded: &mut E) -> Taken;

    /// The member's cursor has left the channel's log. Returns what the channel's rules say.
    fn overrun(&mut self, member: Member, channel: &Arc<str>) -> Overrun;

    /// `count` publications of the channel were skipped for the member. Comes before the next offer
    /// of the channel to the member.
    fn dropped(&mut self, member: Member, channel: &Arc<str>, count: u64);

    /// Whether a slow reader of this channel continues with the newest publication when it pulls.
    fn conflates(&self, _channel: &str) -> bool {
        false
    }
}
