//! The routing of messages. Sans-IO: no sockets, no clock.
//!
//! [`channels`] is publish and subscribe: a publication goes to all subscribers of its channel.
//! [`presence`] is who is in a channel.
//! [`services`] is request and reply: a request goes to one of the members that offer the service.
#![forbid(unsafe_code)]

pub mod channels;
mod memory;
mod names;
pub mod presence;
pub mod services;

pub use names::{Member, Shard, Ticket};
