//! Values for sessions: replies, pushes and ends. A session's transport and protocol encode them.

use std::time::Instant;

use murre_core::ConnId;
use murre_router::channels::{Payload, Position, Publication, Recovery};
use murre_router::presence::{News, PresencePage};
use murre_router::services::RequestId as ServiceRequest;

use super::command::RequestId;
use super::encodings::Encodings;
use super::error::{Error, ErrorCode};
use super::session::Session;

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reply<'a> {
    /// With history, `recovery` has the channel's position, and whether the publications that the session
    /// has missed follow. `data` is the application's, which has consented.
    Subscribed {
        channel: &'a str,
        recovery: Option<Recovery>,
        data: Option<&'a Payload>,
    },
    /// The subscription lasts as long as the new token.
    Renewed {
        channel: &'a str,
    },
    Unsubscribed {
        channel: &'a str,
    },
    Published {
        channel: &'a str,
        position: Option<Position>,
    },
    History {
        channel: &'a str,
        page: Page<'a>,
    },
    Presence {
        channel: &'a str,
        page: &'a PresencePage,
    },
    PresenceStats {
        channel: &'a str,
        page: &'a PresencePage,
    },
    PresenceUpdated {
        channel: &'a str,
    },
    PresenceLeft {
        channel: &'a str,
    },
    Pong {
        connection: &'a str,
    },
    Authenticated {
        user: &'a str,
        expires: Option<u64>,
    },
    Serving {
        service: &'a str,
    },
    Unserving {
        service: &'a str,
    },
    Response {
        service: &'a str,
        payload: &'a Payload,
    },
    Error(Error<'a>),
}

/// A part of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Page<'a> {
    /// The position of the newest publication of the channel.
    pub(crate) position: Position,
    /// Whether all publications after the given position are still there; `None` if none was given.
    pub(crate) recovered: Option<bool>,
    pub(crate) publications: &'a [Publication],
    /// Whether the query has more publications than one answer holds.
    pub(crate) more: bool,
}

/// A message to a session that is not the answer to a command.
#[derive(Debug)]
pub(crate) enum Push<'a> {
    /// What the application says to a session that has begun.
    Connected { data: &'a Payload },
    /// `encodings` are shared by all sessions of the shard that get this publication.
    Publication { publication: &'a Publication, encodings: &'a mut Encodings },
    /// `count` publications of the channel were dropped, because the session reads too slowly.
    Dropped { channel: &'a str, count: u64 },
    /// The hub has ended a subscription of the session, which stays open.
    Unsubscribed { channel: &'a str, why: Error<'a> },
    /// All members of a channel, changes of them, or their number, for a session that watches the
    /// channel. `subscription` is the router's key of the channel, with all members. `encodings` are
    /// shared by all sessions of the shard that get the same.
    Presence {
        channel: &'a str,
        subscription: Option<u32>,
        news: &'a News,
        encodings: &'a mut Encodings,
    },
    /// A request for a service that the session serves.
    Request { request: ServiceRequest, service: &'a str, payload: &'a Payload },
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnect<'a> {
    pub(crate) reason: DisconnectReason,
    /// The close code of a WebSocket, in place of the one that its protocol has for the reason.
    pub(crate) code: Option<u16>,
    /// What the client is told, in place of the sentence that its protocol has for the reason.
    pub(crate) detail: Option<&'a str>,
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisconnectReason {
    /// It continued to send commands after many of them were refused for their rate.
    TooFast,
    /// Its token has expired.
    TokenExpired,
    /// An administrator ended it.
    Administrator,
    /// The application ended it.
    Application,
    /// It reads too slowly for a channel that disconnects slow readers.
    Slow,
    /// The server is being drained.
    Draining,
}

impl DisconnectReason {
    /// All reasons.
    #[cfg(test)]
    pub(crate) const ALL: [DisconnectReason; 6] = [
        DisconnectReason::TooFast,
        DisconnectReason::TokenExpired,
        DisconnectReason::Administrator,
        DisconnectReason::Application,
        DisconnectReason::Slow,
        DisconnectReason::Draining,
    ];

    fn error(self) -> Option<ErrorCode> {
        match self {
            DisconnectReason::TooFast => Some(ErrorCode::TooFast),
            DisconnectReason::TokenExpired => Some(ErrorCode::TokenExpired),
            DisconnectReason::Administrator | DisconnectReason::Application => {
                Some(ErrorCode::Disconnected)
            }
            DisconnectReason::Slow => Some(ErrorCode::TooSlow),
            DisconnectReason::Draining => None,
        }
    }
}

impl From<DisconnectReason> for Disconnect<'_> {
    fn from(reason: DisconnectReason) -> Self {
        Disconnect { reason, code: None, detail: None }
    }
}

impl<'a> Disconnect<'a> {
    /// The error that tells the session; `None` for a drain, which is no error.
    pub(crate) fn error(self) -> Option<Error<'a>> {
        let code = self.reason.error()?;
        Some(Error { detail: self.detail, ..code.into() })
    }
}

/// Carries the hub's values to sessions. The transports implement it. It queues and never blocks.
pub(crate) trait Outlet {
    /// The time at which this turn of the shard began.
    fn now(&self) -> Instant;
    /// The open connection in this slot.
    fn at(&self, slot: u32) -> Option<ConnId>;
    /// The names of a session's transport and protocol.
    fn transport(&self, session: Session) -> (&'static str, &'static str);
    /// Whether the connection is open: neither gone nor closing.
    fn is_open(&self, conn: ConnId) -> bool;
    /// A key for the peer's address, the same for all its connections; `None` where addresses are
    /// not counted.
    fn address(&self, conn: ConnId) -> Option<u32>;
    /// Whether the bytes queued for the connection have reached the bound of congestion: it is handed
    /// nothing more then.
    fn congested(&self, conn: ConnId) -> bool;
    /// Bytes that are queued for the connection.
    fn queued(&self, conn: ConnId) -> u32;
    /// Queues a reply. Does nothing if the connection has ended.
    fn reply(&mut self, session: Session, request: &RequestId, reply: Reply<'_>);
    /// Queues a push. Does nothing if the connection has ended.
    fn push(&mut self, session: Session, push: Push<'_>);
    /// Ends a session, and tells it the reason in its own protocol.
    fn end(&mut self, session: Session, disconnect: Disconnect<'_>);
    /// Resumes the input of a session, which may have waited for an answer that is queued now: see
    /// [`Hub::must_wait`](super::Hub::must_wait).
    fn resume(&mut self, session: Session);
}
