//! Commands: requests of sessions, independent of their protocol.

use murre_router::channels::{HistoryQuery, Payload, Start};
use murre_router::presence::{Meta, PresenceQuery};

use super::error::About;
use super::presence::PresenceOptions;

/// A command, decoded by a protocol. Its strings borrow from the input.
#[derive(Debug, PartialEq)]
pub(crate) enum Command<'a> {
    /// Subscribe to a channel from `start` on. `Reply::Subscribed`. With a token for the channel, the
    /// subscription lasts as long as the token, and a later command renews it: `Reply::Renewed`.
    Subscribe { channel: &'a str, start: Start, token: Option<&'a str>, presence: PresenceOptions },
    /// End a subscription. `Reply::Unsubscribed`.
    Unsubscribe { channel: &'a str },
    /// Publish to a channel. `Reply::Published`, if the command has a request id.
    Publish { channel: &'a str, payload: Payload, to: Audience },
    /// Read a page of a channel's history. `Reply::History`.
    History { channel: &'a str, query: HistoryQuery },
    /// Wait for publications after `start`: `Reply::History` at once if there are some or some are lost,
    /// or if `start` is the head, otherwise `Reply::Subscribed` and then `Push::Publication`. It is a
    /// subscription to one slice.
    Await { channel: &'a str, start: Start },
    /// Read a page of the members of a channel. `Reply::Presence`.
    Presence { channel: &'a str, query: PresenceQuery },
    /// Read the number of members of a channel. `Reply::PresenceStats`.
    PresenceStats { channel: &'a str },
    /// Change the metadata of the session in a channel that it is subscribed to, which makes it a member
    /// again if it has left.
    /// `Reply::PresenceUpdated`.
    PresenceUpdate { channel: &'a str, meta: Option<Meta> },
    /// End the membership of the session in a channel that it stays subscribed to, until it changes its
    /// metadata. `Reply::PresenceLeft`.
    PresenceLeave { channel: &'a str },
    /// `Reply::Pong`.
    Ping,
    /// Make the session that of the user whom the token names. `Reply::Authenticated`.
    Authenticate { token: &'a str },
    /// Offer a service. `Reply::Serving`.
    Serve { service: &'a str },
    /// End the offer of a service. `Reply::Unserving`.
    Unserve { service: &'a str },
    /// Send a request to a session that offers the service. `Reply::Response`, within the timeout.
    Request { service: &'a str, payload: Payload, timeout_ms: u32 },
    /// Ask the backend. Its data is the `Reply::Response`, in which the channel takes the place of the
    /// service.
    Call { channel: &'a str, payload: Payload },
    /// Answer a `Push::Request`, or report why it failed. No reply.
    Respond { request: &'a str, answer: Result<Payload, &'a str> },
}

/// A command about a channel or a service that waits for the backend, with strings of its own.
#[derive(Clone, Debug)]
pub(crate) struct OwnedCommand {
    name: Box<str>,
    token: Option<Box<str>>,
    kind: OwnedKind,
}

#[derive(Clone, Debug)]
enum OwnedKind {
    Subscribe(Start, PresenceOptions),
    Unsubscribe,
    Publish(Payload, Audience),
    History(HistoryQuery),
    Presence(PresenceQuery),
    PresenceStats,
    PresenceUpdate(Option<Meta>),
    PresenceLeave,
    Request(Payload, u32),
    Call(Payload),
}

impl<'a> Command<'a> {
    /// The channel or service whose calls of the backend the command waits for; `None` for commands that
    /// wait for none.
    pub(crate) fn subject(&self) -> Option<&'a str> {
        match *self {
            Command::Subscribe { channel, .. }
            | Command::Unsubscribe { channel }
            | Command::Publish { channel, .. }
            | Command::History { channel, .. }
            | Command::Presence { channel, .. }
            | Command::PresenceStats { channel }
            | Command::PresenceUpdate { channel, .. }
            | Command::PresenceLeave { channel }
            | Command::Call { channel, .. } => Some(channel),
            Command::Request { service, .. } => Some(service),
            Command::Await { .. }
            | Command::Ping
            | Command::Authenticate { .. }
            | Command::Serve { .. }
            | Command::Unserve { .. }
            | Command::Respond { .. } => None,
        }
    }

    /// What an error of such a command is about.
    pub(crate) fn about(&self) -> Option<About<'a>> {
        match *self {
            Command::Request { service, .. } => Some(About::Service(service)),
            _ => self.subject().map(About::Channel),
        }
    }

    /// The command with strings of its own; `None` for commands that never wait.
    pub(crate) fn to_owned(&self) -> Option<OwnedCommand> {
        let name = self.subject()?.into();
        let mut token = None;
        let kind = match self {
            Command::Subscribe { start, token: presented, presence, .. } => {
                token = presented.map(Box::from);
                OwnedKind::Subscribe(*start, presence.clone())
            }
            Command::Unsubscribe { .. } => OwnedKind::Unsubscribe,
            Command::Publish { payload, to, .. } => OwnedKind::Publish(payload.clone(), *to),
            Command::History { query, .. } => OwnedKind::History(*query),
            Command::Presence { query, .. } => OwnedKind::Presence(*query),
            Command::PresenceStats { .. } => OwnedKind::PresenceStats,
            Command::PresenceUpdate { meta, .. } => OwnedKind::PresenceUpdate(meta.clone()),
            Command::PresenceLeave { .. } => OwnedKind::PresenceLeave,
            Command::Request { payload, timeout_ms, .. } => {
                OwnedKind::Request(payload.clone(), *timeout_ms)
            }
            Command::Call { payload, .. } => OwnedKind::Call(payload.clone()),
            _ => return None,
        };
        Some(OwnedCommand { name, token, kind })
    }
}

impl OwnedCommand {
    /// The command itself.
    pub(crate) fn command(&self) -> Command<'_> {
        let (channel, service) = (&*self.name, &*self.name);
        match &self.kind {
            OwnedKind::Subscribe(start, presence) => Command::Subscribe {
                channel,
                start: *start,
                token: self.token.as_deref(),
                presence: presence.clone(),
            },
            OwnedKind::Unsubscribe => Command::Unsubscribe { channel },
            OwnedKind::Publish(payload, to) => {
                Command::Publish { channel, payload: payload.clone(), to: *to }
            }
            OwnedKind::History(query) => Command::History { channel, query: *query },
            OwnedKind::Presence(query) => Command::Presence { channel, query: *query },
            OwnedKind::PresenceStats => Command::PresenceStats { channel },
            OwnedKind::PresenceUpdate(meta) => {
                Command::PresenceUpdate { channel, meta: meta.clone() }
            }
            OwnedKind::PresenceLeave => Command::PresenceLeave { channel },
            OwnedKind::Request(payload, timeout_ms) => {
                Command::Request { service, payload: payload.clone(), timeout_ms: *timeout_ms }
            }
            OwnedKind::Call(payload) => Command::Call { channel, payload: payload.clone() },
        }
    }

    /// The bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let payload = match &self.kind {
            OwnedKind::Publish(payload, _)
            | OwnedKind::Request(payload, _)
            | OwnedKind::Call(payload) => payload.bytes.len(),
            OwnedKind::PresenceUpdate(Some(meta)) => meta.bytes().len(),
            OwnedKind::Subscribe(_, PresenceOptions { meta: Some(meta), .. }) => meta.bytes().len(),
            _ => 0,
        };
        let token = self.token.as_ref().map_or(0, |token| token.len());
        payload.saturating_add(token).saturating_add(self.name.len())
    }
}

/// The subscribers that get a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Everybody,
    /// All except the session that publishes it.
    Others,
}

/// The id that a session's protocol gives a command; the reply carries it. The hub does not interpret
/// it: a protocol whose ids have several parts packs them into one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// The command has no id. It is still answered, unless it is a publication that is accepted.
    #[default]
    None,
    Number(u64),
    Text(Box<str>),
}

/// The consequence of a command for the rest of the session's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next command can follow, unless [`Hub::must_wait`](super::Hub::must_wait).
    Continue,
    /// The command was not executed, because this turn has spent its time for signature checks. The caller
    /// hands it in again in the next turn.
    Retry,
}
