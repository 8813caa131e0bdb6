//! Events for the caller.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::request_id::RequestId;
use crate::names::{Member, Ticket};

/// An event for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceEvent<P> {
    /// A request for a service that the member offers.
    Request {
        /// The member that offers the service.
        member: Member,
        /// The id of the request, for the reply.
        request: RequestId,
        /// The service.
        service: Arc<str>,
        /// The payload of the request.
        payload: P,
    },
    /// The answer to the member's request.
    Response {
        /// The requester.
        member: Member,
        /// The ticket of the request.
        ticket: Ticket,
        /// The service.
        service: Arc<str>,
        /// The payload of the answer.
        payload: P,
    },
    /// The member's request has failed.
    Failed {
        /// The requester.
        member: Member,
        /// The ticket of the request.
        ticket: Ticket,
        /// The service.
        service: Arc<str>,
        /// The reason.
        error: RequestError,
    },
}

/// The reason why a request has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestError {
    /// No member offers the service. No member has seen the request.
    NoResponders,
    /// The members that offer the service have reached their bound of requests, the parked bytes have
    /// reached theirs, or too many messages wait for the responder's shard; no member has seen the
    /// request. Or the response is too large to be parked for a requester whose connection is congested.
    Overloaded,
    /// The responder left after it had seen the request.
    ResponderGone,
    /// The responder reports that it failed, with its reason.
    ResponderFailed(Box<str>),
    /// No answer arrived before the deadline.
    Timeout,
    /// The request, or its answer, is longer than what other nodes can be sent.
    TooLarge,
}

/// The reason why a command of a member is refused. The command has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceError {
    /// The member offers the service already.
    AlreadyServing,
    /// The member does not offer the service.
    NotServing,
    /// The member has reached its bound of services or of requests in flight.
    TooMany,
    /// Too many messages wait for the shard that owns the service. Try again later.
    Overloaded,
    /// The member has no such request, or not any more.
    UnknownRequest,
}
