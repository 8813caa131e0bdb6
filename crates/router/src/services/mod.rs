//! Services: request and reply. A request goes to one of the members that offer the service, and the
//! answer comes back.
//!
//! ```text
//!   requester's shard              owner of the service            responder's shard
//!   request ───── Request ───────▶ chooses an offer ── Assign ───▶ Event::Request
//!   Event ◀────── Outcome ──────────────────────────────────────── reply
//!                                  knows offers ◀───── Serve ───── serve
//! ```
//!
//! Every service has an owner, the shard that the hash of its name selects. The owner knows the offers
//! of the service and gives each request to the offer whose turn it is. A message of a shard to itself
//! is handled at once.
//!
//! *Keys are not reused.* An offer, a request that waits and a request that is served each have a key
//! with a generation. So a member's number may be used again at once: a message for the member before
//! it finds no entry.
//!
//! *Each request has one outcome*, the first one that reaches its entry on the requester's shard, and
//! none if the requester has left. *At most one responder sees it*: if the offer has ended or its member
//! is full when the request arrives, the request goes back to the owner, which chooses again.
//! `ResponderGone` means that a responder left after it had seen the request.
//!
//! *A full responder gets no requests* until it has answered half of them; its shard tells the owner.
//! The same goes for a responder whose connection is congested, unless no other one takes requests:
//! then requests are parked until its connection takes more. A request goes back to its owner only after
//! a change that the owner learns of first, so overload causes no extra rounds.
//!
//! *Other nodes* are asked by the owner if no responder of this node takes the request at once, because none
//! offers the service, or all are congested or full. A request of another node goes to responders of this node
//! only ([`ServiceBackplane`]).
//!
//! *Every queue is bounded*: entries by the limits of a member, messages that begin something by
//! `ServiceLimits::messages_max`. Every other message belongs to an entry.

mod backplane;
mod deadlines;
mod directory;
mod entries;
mod event;
mod limits;
mod message;
mod owner;
mod parking;
mod records;
mod request_id;
mod requester;
mod responder;
mod shard;

pub use backplane::{RemoteRequest, ServiceBackplane};
pub use directory::Readiness;
pub use entries::Key;
pub use event::{RequestError, ServiceError, ServiceEvent};
pub use limits::{ServiceLimits, Stats};
pub use message::{Request, Requester, ServiceMessage};
pub use records::ByteLen;
pub use request_id::{ParseRequestIdError, RequestId};
pub use shard::Services;
