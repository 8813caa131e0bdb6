//! Values for sessions: replies, pushes and ends. A session's transport and protocol encode them.

use std::time::Instant;

use murre_core::ConnId;
use murre_router::channels::{Payload, Position, Publication, Recovery};
use murre_router::services::RequestId as ServiceRequest;

use super::RequestId;
use super::encodings::Encodings;
use super::error::{Error, ErrorCode};
use super::session::Session;

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reply<'a> {
    /// With history: where the channel is, and whether all that the session missed will follow.
    Subscribed {
        channel: &'a str,
        recovery: Option<Recovery>,
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
    /// Of the newest publication of the channel.
    pub(crate) position: Position,
    /// Whether all that follows the position asked for is still there; `None` if none was given.
    pub(crate) recovered: Option<bool>,
    pub(crate) publications: &'a [Publication],
    /// More was asked for than one answer holds.
    pub(crate) more: bool,
}

/// A message to a session that is not the answer to a command.
#[derive(Debug)]
pub(crate) enum Push<'a> {
    /// `encodings` are shared by all sessions of the shard that hear this publication.
    Publication { publication: &'a Publication, encodings: &'a mut Encodings },
    /// `count` publications of the channel were left out, because the session reads too slowly.
    Dropped { channel: &'a str, count: u64 },
    /// A request for a service that the session serves.
    Request { request: ServiceRequest, service: &'a str, payload: &'a Payload },
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) reason: DisconnectReason,
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisconnectReason {
    /// More commands than may be refused in a row.
    TooFast,
    /// Its token has expired.
    TokenExpired,
    /// An administrator ended it.
    Administrator,
    /// It reads too slowly for a channel that disconnects slow readers.
    Slow,
    /// The server is going away.
    Draining,
}

impl DisconnectReason {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [DisconnectReason; 5] = [
        DisconnectReason::TooFast,
        DisconnectReason::TokenExpired,
        DisconnectReason::Administrator,
        DisconnectReason::Slow,
        DisconnectReason::Draining,
    ];

    /// The error that says so. A server that goes away is no error.
    pub(crate) fn error(self) -> Option<ErrorCode> {
        match self {
            DisconnectReason::TooFast => Some(ErrorCode::TooFast),
            DisconnectReason::TokenExpired => Some(ErrorCode::TokenExpired),
            DisconnectReason::Administrator => Some(ErrorCode::Disconnected),
            DisconnectReason::Slow => Some(ErrorCode::TooSlow),
            DisconnectReason::Draining => None,
        }
    }
}

impl From<DisconnectReason> for Disconnect {
    fn from(reason: DisconnectReason) -> Self {
        Disconnect { reason }
    }
}

/// Carries the hub's values to sessions; the transports implement it. It queues and does not block.
pub(crate) trait Outlet {
    /// The time at which this turn of the shard began.
    fn now(&self) -> Instant;
    /// The open connection in this slot.
    fn at(&self, slot: u32) -> Option<ConnId>;
    /// Whether the connection is open: neither gone nor closing.
    fn is_open(&self, conn: ConnId) -> bool;
    /// A key for the peer's address, the same for all its connections; `None` where addresses are
    /// not counted.
    fn address(&self, conn: ConnId) -> Option<u32>;
    /// Whether so much is queued for the connection that it should be handed nothing more.
    fn congested(&self, conn: ConnId) -> bool;
    /// Bytes that are queued for the connection.
    fn queued(&self, conn: ConnId) -> u32;
    /// Queues a reply. A session that is gone needs none.
    fn reply(&mut self, session: Session, request: &RequestId, reply: Reply<'_>);
    /// Queues a push. A session that is gone needs none.
    fn push(&mut self, session: Session, push: Push<'_>);
    /// Says why, in the session's own protocol, and ends it.
    fn end(&mut self, session: Session, disconnect: Disconnect);
    /// An answer is queued that the session's input may wait for: see
    /// [`Hub::must_wait`](super::Hub::must_wait).
    fn resume(&mut self, session: Session);
}
