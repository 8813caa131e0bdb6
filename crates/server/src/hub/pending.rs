//! Commands that wait for answers of the router, by ticket.

use std::collections::HashMap;
use std::ops::Deref;

use murre_core::{ConnId, Pool};
use murre_router::Ticket;
use murre_router::channels::{Payload, Position};
use smallvec::SmallVec;
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
    /// Number of waiting commands of each connection that has some.
    waiting: HashMap<ConnId, u32>,
}

/// The table keeps room for this number of connections.
const WAITING_KEPT: usize = 64;

/// A command that waits for its outcome.
pub(crate) struct PendingCommand {
    /// The channel or the service of the command.
    pub(crate) name: Name,
    pub(crate) recipient: Recipient,
    /// Data of the application for the reply.
    pub(crate) data: Option<Box<Payload>>,
}

/// The name of a channel or a service. A short one needs no allocation.
pub(crate) struct Name(SmallVec<[u8; NAME_INLINE_BYTES]>);

/// Bytes of a name that need no allocation.
const NAME_INLINE_BYTES: usize = 48;

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Name(SmallVec::from_slice(name.as_bytes()))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.0).expect("it was made of a text")
    }
}

/// The receiver of an outcome.
pub(crate) enum Recipient {
    /// A session, which may end before the outcome arrives.
    Session(Session, RequestId),
    /// A session that waits for publications: `Command::Await`.
    Poll(Session, RequestId),
    /// A session that asks for the counts of a channel's members.
    Counts(Session, RequestId),
    /// The control plane.
    Control(oneshot::Sender<Published>),
    /// Nobody: the session has ended.
    Nobody,
}

impl Recipient {
    fn conn(&self) -> Option<ConnId> {
        match self {
            Recipient::Session(session, _) | Recipient::Counts(session, _) => Some(session.conn),
            Recipient::Poll(..) | Recipient::Control(_) | Recipient::Nobody => None,
        }
    }
}

impl Pending {
    /// Issues a ticket for a command about the channel or service `name`.
    pub(crate) fn issue(&mut self, name: &str, recipient: Recipient) -> Ticket {
        if let Some(conn) = recipient.conn() {
            let waiting = self.waiting.entry(conn).or_default();
            *waiting = waiting.saturating_add(1);
        }
        self.commands.insert(PendingCommand { name: name.into(), recipient, data: None })
    }

    /// Gives a command data for its reply.
    pub(super) fn add_data(&mut self, ticket: Ticket, data: Payload) {
        self.commands.get_mut(ticket).data = Some(Box::new(data));
    }

    /// Removes a command whose outcome has arrived. Its ticket may be issued again.
    pub(crate) fn take(&mut self, ticket: Ticket) -> PendingCommand {
        let command = self.commands.remove(ticket);
        self.answered(&command.recipient);
        command
    }

    /// Counts one command less of the session of a recipient.
    fn answered(&mut self, recipient: &Recipient) {
        if let Some(conn) = recipient.conn()
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
    }

    /// Number of commands of a session that wait.
    pub(crate) fn of(&self, session: Session) -> u32 {
        self.waiting.get(&session.conn).copied().unwrap_or_default()
    }

    /// Cancels a command: its outcome goes to nobody.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        let recipient = &mut self.commands.get_mut(ticket).recipient;
        let before = std::mem::replace(recipient, Recipient::Nobody);
        self.answered(&before);
    }

    /// Number of sessions whose commands wait.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sessions(&self) -> usize {
        self.waiting.len()
    }

    /// Number of commands that wait.
    pub(crate) fn len(&self) -> u32 {
        self.commands.len()
    }
}
