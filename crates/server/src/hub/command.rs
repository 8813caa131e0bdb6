//! Commands: requests of sessions, independent of their protocol.

use murre_router::channels::{HistoryQuery, Payload, Start};

/// A command, as a protocol has read it. Its strings still lie in the input.
#[derive(Debug, PartialEq)]
pub(crate) enum Command<'a> {
    /// Hear what is published to a channel from `start` on. `Reply::Subscribed`.
    Subscribe { channel: &'a str, start: Start },
    /// `Reply::Unsubscribed`.
    Unsubscribe { channel: &'a str },
    /// `Reply::Published`, if the command has a request id.
    Publish { channel: &'a str, payload: Payload, to: Audience },
    /// A page of a channel's history. `Reply::History`.
    History { channel: &'a str, query: HistoryQuery },
    /// Wait for publications after `start`: `Reply::History` at once if something is
    /// there or is lost, else `Reply::Subscribed`, and then `Push::Publication`.
    Await { channel: &'a str, start: Start },
    /// `Reply::Pong`.
    Ping,
    /// From now on the session is the user's that the token names. `Reply::Authenticated`.
    Authenticate { token: &'a str },
    /// Answer requests for a service. `Reply::Serving`.
    Serve { service: &'a str },
    /// `Reply::Unserving`.
    Unserve { service: &'a str },
    /// Ask a session that serves. `Reply::Response`, within the timeout.
    Request { service: &'a str, payload: Payload, timeout_ms: u32 },
    /// The answer to a `Push::Request`, or why there is none. No reply.
    Respond { request: &'a str, answer: Result<Payload, &'a str> },
}

/// Which subscribers a publication is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Everybody,
    /// All but the session that publishes it.
    #[allow(dead_code, reason = "murre.v1 has no such command; Phoenix and Pusher have")]
    Others,
}

/// How a session's protocol names a command, to find its reply by. The hub carries it and does not
/// look inside: a protocol with several parts packs them into one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// The command has none. What it comes to is still told, but for a publication that is taken.
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
    /// The command was not taken, because this turn has spent its time for signature checks: it
    /// is to be handed in again in the next turn.
    Retry,
}
