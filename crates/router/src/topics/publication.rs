//! What is published, and where it stands in its topic.

use std::sync::Arc;

/// One publication, as it travels between shards and waits for subscribers: all share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The topic it was published to.
    pub topic: Arc<str>,
    /// Where it stands, in a topic with history.
    pub position: Option<Position>,
    /// What was published.
    pub payload: Payload,
}

/// What is published. The router does not look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// How the bytes are meant, which is the caller's business.
    pub form: Form,
    /// The bytes, copied once when they left the receive buffer.
    pub bytes: Arc<[u8]>,
}

/// How the bytes of a payload are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON value.
    Json,
    /// Any bytes.
    Binary,
    /// A message that is sent as it is.
    Raw,
}

/// Where a publication or a reader stands in a topic with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Changes whenever the count was lost, so that nobody takes one count for another.
    pub epoch: u32,
    /// Counts the topic's publications from 1; a reader at 0 has seen none.
    pub offset: u64,
}
