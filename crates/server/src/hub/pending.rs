//! Commands whose answers come from other shards, by the router's tickets.

use std::collections::HashMap;

use murre_core::{ConnId, Pool};
use murre_router::Ticket;
use murre_router::channels::Position;
use tokio::sync::oneshot;

use super::command::RequestId;
use super::error::ErrorCode;
use super::session::Session;

/// The outcome of a publication.
pub(crate) type Published = Result<Option<Position>, ErrorCode>;

/// The commands that wait for their outcome.
#[derive(Default)]
pub(crate) struct Pending {
    commands: Pool<PendingCommand>,
    /// How many of them are of each connection that has some.
    waiting: HashMap<ConnId, u32>,
}

/// Room for so many connections is kept.
const WAITING_KEPT: usize = 64;

/// A command that waits for its outcome.
pub(crate) struct PendingCommand {
    /// The channel or the service that it is about.
    pub(crate) name: Box<str>,
    pub(crate) recipient: Recipient,
}

/// The receiver of an outcome.
pub(crate) enum Recipient {
    /// A session. Its connection may be gone by then.
    Session(Session, RequestId),
    /// A session that waits for the next publications: `Command::Await`.
    Poll(Session, RequestId),
    /// The control plane.
    Control(oneshot::Sender<Published>),
    /// The session has ended.
    Nobody,
}

impl Recipient {
    fn conn(&self) -> Option<ConnId> {
        match self {
            Recipient::Session(session, _) => Some(session.conn),
            Recipient::Poll(..) | Recipient::Control(_) | Recipient::Nobody => None,
        }
    }
}

impl Pending {
    /// A ticket for a command about `name`.
    pub(crate) fn issue(&mut self, name: &str, recipient: Recipient) -> Ticket {
        if let Some(conn) = recipient.conn() {
            let waiting = self.waiting.entry(conn).or_default();
            *waiting = waiting.saturating_add(1);
        }
        self.commands.insert(PendingCommand { name: name.into(), recipient })
    }

    /// Ends a command: its outcome is here. The ticket may be issued again.
    pub(crate) fn take(&mut self, ticket: Ticket) -> PendingCommand {
        let command = self.commands.remove(ticket);
        if let Some(conn) = command.recipient.conn()
            && let Some(waiting) = self.waiting.get_mut(&conn)
        {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.waiting.remove(&conn);
                if self.waiting.is_empty() {
                    self.waiting.shrink_to(WAITING_KEPT);
                }
            }
        }
        command
    }

    /// Commands of a session that wait.
    pub(crate) fn of(&self, session: Session) -> u32 {
        self.waiting.get(&session.conn).copied().unwrap_or_default()
    }

    /// Nobody is told of the outcome any more.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        self.commands.get_mut(ticket).recipient = Recipient::Nobody;
    }

    /// How many commands wait.
    pub(crate) fn len(&self) -> u32 {
        self.commands.len()
    }
}
