//! What shards tell each other about topics.

use super::name::Name;
use super::{Past, Payload, Position, Publication, Refused};
use crate::Ticket;

/// What one shard tells another. The caller carries it there, in order and without loss, and need
/// not know what it says.
#[derive(Debug)]
pub struct Note(pub(super) Body);

/// The first four are for the owner of a topic, the next four come from it.
#[derive(Debug)]
pub(super) enum Body {
    /// A member of mine, one of so many `subscribers`, wants to hear what comes after `from`.
    /// `ask` is the name of the question, given back in `Joined`; `key` that of the topic with me, for
    /// its publications.
    Ask { topic: Name, key: u32, subscribers: u32, ask: u32, from: Option<Position> },
    /// So many subscribers are with me; with 0, I have forgotten the topic.
    Count { topic: Name, subscribers: u32 },
    /// A member of mine publishes.
    Publish { topic: Name, payload: Payload, ticket: Option<Ticket> },
    /// A member of mine asks for history.
    Read { topic: Name, after: Option<Position>, limit: u32, ticket: Ticket },
    /// What is published from now on is told to you. Of a topic with history, what was before.
    Joined { ask: u32, past: Option<Past> },
    /// For the subscribers of the topic that had this key with you when you last asked.
    Publication { key: u32, publication: Publication },
    /// Your member's publication is numbered, or refused.
    Published { ticket: Ticket, outcome: Result<Option<Position>, Refused> },
    /// The history that your member asked for.
    History { ticket: Ticket, past: Past },
    /// Spare me, or do not any more: many deliveries wait here. For all shards, as owners.
    Behind(bool),
}

const _: () = assert!(size_of::<Note>() <= 80);

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes travel between threads.
    #[test]
    fn notes_can_be_sent() {
        fn sent<T: Send>() {}
        sent::<Note>();
    }
}
