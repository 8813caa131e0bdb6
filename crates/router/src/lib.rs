//! Who gets a message. Sans-IO: no sockets, no clock.
//!
//! [`topics`] is publish and subscribe: a publication goes to all who subscribe to its topic.
//! [`services`] is request and reply: a request goes to one of those who offer the service.
#![forbid(unsafe_code)]

mod names;
pub mod services;
pub mod topics;

pub use names::{Member, Shard, Ticket};
