//! Events for the caller.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RequestId;
use crate::{Member, Ticket};

/// An event for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceEvent<P> {
    /// A request for a service that the member offers.
    Request {
        /// The member that offers the service.
        member: Member,
        /// The name of the request, for the reply.
        request: RequestId,
        /// The service.
        service: Arc<str>,
        /// The question.
        payload: P,
    },
    /// The member's request has been answered.
    Response {
        /// The member that asked.
        member: Member,
        /// The request.
        ticket: Ticket,
        /// The service.
        service: Arc<str>,
        /// The answer.
        payload: P,
    },
    /// The member's request came to nothing.
    Failed {
        /// The member that asked.
        member: Member,
        /// The request.
        ticket: Ticket,
        /// The service.
        service: Arc<str>,
        /// The reason.
        error: RequestError,
    },
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestError {
    /// Nobody offers the service. Nobody has seen the request.
    NoResponders,
    /// All members that offer the service have as many requests as they may, too much is parked for
    /// the one chosen, or too many messages wait for its shard: nobody has seen the request. Or the
    /// response is too much for a requester whose connection is congested.
    Overloaded,
    /// The one who had the request has left.
    ResponderGone,
    /// The one who had the request says that it failed, and why.
    ResponderFailed(Box<str>),
    /// There was no answer in time.
    Timeout,
}

/// Why a member may not do what it wants to. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceError {
    /// It offers the service already.
    AlreadyServing,
    /// It does not offer the service.
    NotServing,
    /// It would be one service, or one request in flight, more than a member may have.
    TooMany,
    /// Too many messages wait for the shard that owns the service.
    Overloaded,
    /// The member does not have this request, or has it no longer.
    UnknownRequest,
}
