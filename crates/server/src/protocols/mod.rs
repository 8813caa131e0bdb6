//! Client protocols: bytes to the hub's commands, and the hub's values to bytes. A protocol has never
//! heard of the router's shards, of HTTP or of sockets.

#[allow(clippy::arithmetic_side_effects, reason = "positions in a text in memory")]
pub(crate) mod json;
#[allow(clippy::arithmetic_side_effects, reason = "positions in a message in memory")]
pub(crate) mod murre_v1;
#[allow(
    clippy::arithmetic_side_effects,
    reason = "positions in a message and in a table in memory"
)]
pub(crate) mod phoenix;
