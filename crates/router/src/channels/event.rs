//! Outcomes for the caller, at once or later.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Origin, Position, Publication};
use crate::{Member, Ticket};

/// The outcome of a command that could not be answered at once.
///
/// The ticket says which command it was. A member may have left, and its number may be in use
/// again, when the caller takes an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The member is subscribed.
    Subscribed {
        /// The subscriber.
        member: Member,
        /// The ticket of the command.
        ticket: Ticket,
        /// The member's place in a channel with history. If it has recovered and missed something,
        /// the member is behind: its next [`pull`](super::Channels::pull) begins with what it missed.
        recovery: Option<Recovery>,
    },
    /// The member unsubscribed before it was subscribed.
    Withdrawn {
        /// The member.
        member: Member,
        /// The ticket of the command that subscribed.
        ticket: Ticket,
    },
    /// The outcome of a publication. Without a ticket it only comes if the owner has refused.
    Published {
        /// The ticket of the command.
        ticket: Option<Ticket>,
        /// The publishing session.
        origin: Origin,
        /// The channel.
        channel: Arc<str>,
        /// Its position, in a channel with history, or the reason of the channel's owner to refuse.
        outcome: Result<Option<Position>, ChannelError>,
    },
    /// The answer to a question about history.
    History {
        /// The ticket of the command.
        ticket: Ticket,
        /// The answer.
        page: HistoryPage,
    },
    /// The member waited for a slice of history ([`Pulled::Waiting`](super::Pulled::Waiting)), which is
    /// here or not needed any more: pull it.
    Readable {
        /// The member, if it has not left since.
        member: Member,
    },
}

/// The place of a new subscriber in a channel with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The channel's position now.
    pub position: Position,
    /// If the subscriber gave a start: whether everything since then is still there. If so, the
    /// subscriber gets it.
    pub recovered: Option<bool>,
}

/// An answer to a question about history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The channel's position now.
    pub position: Position,
    /// If the question gave a start: whether the answer begins there. Forward, everything since the
    /// start is still there; in reverse, the start is of the channel's current epoch.
    pub recovered: Option<bool>,
    /// In the order that was asked for.
    pub publications: Vec<Publication>,
    /// The limits of the question left something out: newer publications if it recovers forward,
    /// otherwise older ones.
    pub more: bool,
}

/// The reason why a command was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelError {
    /// The member is subscribed, or has asked to be.
    AlreadySubscribed,
    /// The member is not subscribed and has not asked to be.
    NotSubscribed,
    /// The member has as many subscriptions as it may have.
    TooMany,
    /// The channel keeps no history.
    NoHistory,
    /// The server is behind.
    Overloaded,
}
