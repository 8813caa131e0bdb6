//! Outcomes for the caller, at once or later.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::publication::{Origin, Position, Publication};
use crate::names::{Member, Ticket};

/// The outcome of a command.
///
/// The ticket identifies the command. When the caller takes the event, the member may have left and its
/// number may be in use again.
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
    /// The member unsubscribed before its subscription began.
    Withdrawn {
        /// The member.
        member: Member,
        /// The ticket of the command that subscribed.
        ticket: Ticket,
    },
    /// The outcome of a publication. Without a ticket it comes only if the owner has refused it.
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
    /// The owner of the channel has refused a subscription or a query of history: the broker could not be
    /// asked. The member of a subscription is not subscribed any more.
    Refused {
        /// The member, of a subscription.
        member: Option<Member>,
        /// The ticket of the command.
        ticket: Ticket,
        /// The reason.
        error: ChannelError,
    },
    /// A page of history.
    History {
        /// The ticket of the command.
        ticket: Ticket,
        /// The page.
        page: HistoryPage,
    },
    /// The member waited for a slice of history ([`Pulled::Waiting`](super::Pulled::Waiting)), which has
    /// arrived or is not needed any more. The caller should pull the member.
    Readable {
        /// The member, if it has not left since.
        member: Member,
    },
}

/// The start of a new subscriber in a channel with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The channel's position now.
    pub position: Position,
    /// If the subscriber gave a start: whether all publications since then are still there. If so, the
    /// subscriber gets them.
    pub recovered: Option<bool>,
}

/// The beginning of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The subscriber's place, in a channel with history.
    pub recovery: Option<Recovery>,
    /// The number of publications that it has missed up to `recovery.position`, and gets.
    pub missed: u64,
    /// The index of the next publication, in a channel with history.
    pub next: u64,
}

/// A page of a channel's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The channel's position now.
    pub position: Position,
    /// If the query gave a start: whether the page begins there. Forward, all publications since the
    /// start are still there; in reverse, the start is of the channel's current epoch.
    pub recovered: Option<bool>,
    /// The publications, in the order of the query.
    pub publications: Vec<Publication>,
    /// Whether the limits of the query left publications out: newer ones if the page recovers forward,
    /// otherwise older ones.
    pub more: bool,
}

/// The reason why a command of a member is refused. The command has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelError {
    /// The member is subscribed, or its subscription is pending.
    AlreadySubscribed,
    /// The member is not subscribed, and no subscription is pending.
    NotSubscribed,
    /// The member has reached its bound of subscriptions.
    TooMany,
    /// The channel keeps no history.
    NoHistory,
    /// The server is behind: too many messages or publications wait. Try again later.
    Overloaded,
}
