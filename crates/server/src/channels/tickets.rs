//! Commands whose answers come from other shards.

use murre_core::{ConnId, Pool};
use murre_router::Ticket;

use super::command::Id;

/// What is remembered of them until then.
pub(crate) struct Tickets<C> {
    waiting: Pool<Waiting<C>>,
}

/// A command that waits for its outcome.
pub(crate) struct Waiting<C> {
    /// The channel or the service that it is about.
    pub(crate) name: Box<str>,
    pub(crate) asker: Asker<C>,
}

/// Who is to be told.
pub(crate) enum Asker<C> {
    /// A client, with its own name for the command. It may have gone by then.
    Client(ConnId, Option<Id>),
    /// The control plane.
    Control(C),
}

impl<C> Default for Tickets<C> {
    fn default() -> Self {
        Tickets { waiting: Pool::default() }
    }
}

impl<C> Tickets<C> {
    /// A ticket for a command about `name`.
    pub(crate) fn issue(&mut self, name: &str, asker: Asker<C>) -> Ticket {
        self.waiting.insert(Waiting { name: name.into(), asker })
    }

    /// The outcome is here; the ticket may be issued again.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Waiting<C> {
        self.waiting.remove(ticket)
    }
}
