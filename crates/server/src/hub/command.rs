//! Commands: requests of sessions, independent of their protocol.

use murre_router::channels::{HistoryQuery, Payload, Start};
use murre_router::presence::{Meta, PresenceQuery};

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
    /// Answer a `Push::Request`, or report why it failed. No reply.
    Respond { request: &'a str, answer: Result<Payload, &'a str> },
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
