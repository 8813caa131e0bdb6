//! The bounds of a peer's messages.

/// The bounds of a peer's messages. One per shard, not one per connection.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The end of the connection that decodes.
    pub role: Role,
    /// Largest payload of one message in bytes, over all its fragments.
    pub max_message_bytes: u32,
}

/// The end of a connection that decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A server: frames that it receives must be masked (RFC 6455 section 5.1).
    Server,
    /// A client: frames that it receives must not be masked (section 5.1).
    Client,
}
