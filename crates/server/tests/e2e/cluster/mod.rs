//! Nodes that are connected by NATS.

mod nats;
mod start;
