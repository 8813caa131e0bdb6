//! The interface below the owners of services to the other nodes of a cluster.
//!
//! ```text
//!   owner of the service        node that asks │ node that answers        owner of the service
//!   request ─────────────────────────────────▶ │ ────────────────────────▶ Services::requested
//!   Services::outcome ◀─────────────────────── │ ◀──────────────────────── answer, of the responder's shard
//!   interest: this node has an offer
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::RequestError;
use super::message::Request;
use crate::channels::Interest;

/// A request of another node: the number of the node, and that of the request there. The router reads
/// neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemoteRequest {
    /// The number of the node.
    pub node: u64,
    /// The number of the request, used once.
    pub number: u64,
}

/// Carries requests to other nodes. It never waits.
pub trait ServiceBackplane<P> {
    /// The first member of this node offers `service`, or the last one has stopped. The owner of the
    /// service calls it.
    fn interest(&mut self, service: &Arc<str>, interest: Interest);

    /// Gives a request to one of the nodes with interest in its service, which may be this one. The owner
    /// of the service calls it, for requests of members of this node. Returns whether the request is on
    /// its way. If it is, [`Services::outcome`](super::Services::outcome) follows on the shard of the
    /// requester, or nothing by the deadline.
    fn request(&mut self, request: &Request<P>) -> bool;

    /// Tells another node the outcome of its request. Any shard calls it.
    fn answer(&mut self, request: RemoteRequest, answer: Result<P, RequestError>);
}
