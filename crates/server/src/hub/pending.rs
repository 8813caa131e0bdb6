//! Commands whose answers come from other shards, by the router's tickets.

use murre_core::Pool;
use murre_router::Ticket;
use murre_router::channels::Position;
use tokio::sync::oneshot;

use super::command::RequestId;
use super::error::ErrorCode;
use super::session::Session;

/// What became of a publication.
pub(crate) type Published = Result<Option<Position>, ErrorCode>;

/// The commands that wait for their outcome.
#[derive(Default)]
pub(crate) struct Pending {
    commands: Pool<Command>,
}

/// A command that waits for its outcome.
pub(crate) struct Command {
    /// The channel or the service that it is about.
    pub(crate) name: Box<str>,
    pub(crate) asker: Asker,
}

/// What is told of an outcome, and to which asker.
pub(crate) enum Asker {
    /// A session. Its connection may be gone by then.
    Session(Session, RequestId),
    /// A session that waits for the next publications: `Command::Await`.
    Waiter(Session, RequestId),
    /// The control plane.
    Control(oneshot::Sender<Published>),
    /// The session has ended.
    Nobody,
}

impl Pending {
    /// A ticket for a command about `name`.
    pub(crate) fn issue(&mut self, name: &str, asker: Asker) -> Ticket {
        self.commands.insert(Command { name: name.into(), asker })
    }

    /// Ends a command: its outcome is here. The ticket may be issued again.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Command {
        self.commands.remove(ticket)
    }

    /// Nobody is told of the outcome any more.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        self.commands.get_mut(ticket).asker = Asker::Nobody;
    }

    /// How many commands wait.
    pub(crate) fn len(&self) -> u32 {
        self.commands.len()
    }
}
