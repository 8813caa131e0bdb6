//! Presence over the nodes of a cluster. Each node tells its own members to the nodes that watch their
//! channels.
//!
//! ```text
//!   owners of channels ── changes, members, counts, interest ──▶ exchange ── statements ──▶ nodes that watch
//!                      ◀── what other nodes have, or their end ──         ◀── beats, questions ──▶ all nodes
//! ```
//!
//! A node beats once a second. Without a beat for five it is dead, and has no members. Statements are numbered
//! ([`told`]), and a node that has missed one asks for all that the other has in the channel, again and again
//! until it is answered ([`watched`]). What may be lost without a gap, when a connection breaks or a node
//! stands still, shows in the beats ([`nodes`]).

mod counts;
mod exchange;
mod finds;
#[cfg(test)]
mod model;
mod nodes;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle;
mod reads;
mod run;
mod shard;
mod told;
mod watched;
mod wire;

pub(crate) use self::counts::Counts;
pub(crate) use self::exchange::{ToShard, Whereabouts};
pub(crate) use self::finds::{CONNECTIONS_MAX, FoundHere};
pub(crate) use self::run::{OtherNodes, Runner};
