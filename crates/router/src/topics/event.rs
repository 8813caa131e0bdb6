//! What the caller is told, at once or later.

use super::{Position, Publication};
use crate::{Member, Ticket};

/// What became of a command that could not be answered at once.
///
/// The ticket says which command it was. A member may have left, and its number may be in use
/// again, between the moment an event came to be and the moment the caller takes it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The member is subscribed, and hears everything after `past`.
    Subscribed {
        /// Who subscribed.
        member: Member,
        /// Of the command.
        ticket: Ticket,
        /// Of a topic with history: where the member stands, and what it missed.
        past: Option<Past>,
    },
    /// The member unsubscribed before it was subscribed.
    Withdrawn {
        /// Who had asked.
        member: Member,
        /// Of the command that subscribed.
        ticket: Ticket,
    },
    /// What became of a publication.
    Published {
        /// Of the command.
        ticket: Ticket,
        /// Where it stands, in a topic with history; or why it was refused, by the owner.
        outcome: Result<Option<Position>, Refused>,
    },
    /// What was asked about a topic's history.
    History {
        /// Of the command.
        ticket: Ticket,
        /// What is still there.
        past: Past,
    },
}

/// What a reader is told about the past of a topic with history.
#[derive(Debug, PartialEq, Eq)]
pub struct Past {
    /// Where the topic stands now.
    pub position: Position,
    /// If the reader said where it stood: whether everything since then is still there.
    pub recovered: Option<bool>,
    /// Oldest first.
    pub publications: Vec<Publication>,
}

/// Why a command was not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The member is subscribed, or has asked to be.
    AlreadySubscribed,
    /// The member is not subscribed and has not asked to be.
    NotSubscribed,
    /// The member has as many subscriptions as it may have.
    TooMany,
    /// The topic keeps no history.
    NoHistory,
    /// The server is behind. Nothing has happened.
    Overloaded,
}
