//! Bounds of services, and counts of what there is.

/// The bounds of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Services that one member offers.
    pub services_max: u32,
    /// Requests of one member whose outcome has not been told.
    pub requests_max: u32,
    /// Requests for one member's offers that have not ended; at least 1.
    pub serving_max: u32,
    /// Messages waiting for one shard, beyond which services, and requests on their way to a
    /// responder, are refused.
    pub messages_max: usize,
    /// Bytes of payload parked for one member whose connection is congested. A request or a response
    /// beyond them fails with [`RequestError::Overloaded`](super::RequestError::Overloaded).
    pub parked_bytes_max: usize,
    /// The same for all members of the shard together.
    pub parked_bytes_total_max: usize,
}

/// Counts of one shard. All zero when all members have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Members that have any of what follows.
    pub members: usize,
    /// Offers of its members.
    pub offers: usize,
    /// Services that it owns and somebody offers.
    pub owned: usize,
    /// Requests of its members whose outcome has not been told.
    pub waiting: usize,
    /// Requests for offers of its members.
    pub serving: usize,
    /// Messages gathered for other shards.
    pub messages: usize,
    /// Members whose connections took no more when they were last asked.
    pub congested: usize,
    /// Bytes of payload parked for members whose connections are congested.
    pub parked_bytes: usize,
}
