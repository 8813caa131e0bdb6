//! Client protocols: bytes to the hub's commands, and the hub's values to bytes. A protocol has never
//! heard of the router's shards, of HTTP or of sockets.

pub(crate) mod json;
pub(crate) mod murre_v1;
