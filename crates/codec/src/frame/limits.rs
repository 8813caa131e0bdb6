//! How much a peer may send, and whether it must mask what it sends.

/// What a peer may send. One per shard, not one per connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whose input is decoded.
    pub role: Role,
    /// Bytes of payload in one message at most.
    pub message_bytes_max: u32,
}

/// Which end of the connection decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What it is sent must be masked (RFC 6455 section 5.1).
    Server,
    /// What it is sent must not be masked.
    Client,
}
