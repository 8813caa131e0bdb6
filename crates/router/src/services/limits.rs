//! Bounds of services, and counts of what there is.

/// Bounds of one shard's services.
#[derive(Clone, Copy, Debug)]
pub struct ServiceLimits {
    /// Number of services that one member offers.
    pub services_max: u32,
    /// Number of requests of one member that it has not been told the outcome of.
    pub requests_max: u32,
    /// Number of requests for one member's offers that have not ended; at least 1.
    pub serving_max: u32,
    /// Number of messages that may wait for one shard. Beyond it new services and requests are refused.
    pub messages_max: usize,
    /// Bytes of payload parked for one member whose connection is congested. A request or a response
    /// beyond them fails with [`RequestError::Overloaded`](super::RequestError::Overloaded).
    pub parked_bytes_max: usize,
    /// The same for all members of the shard together.
    pub parked_bytes_total_max: usize,
}

/// Counts of one shard's services. All of them are zero once all members have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Members with offers or requests.
    pub members: usize,
    /// Offers of its members.
    pub offers: usize,
    /// Services that the shard owns and that members offer.
    pub owned: usize,
    /// Requests of its members that have not been told their outcome.
    pub waiting: usize,
    /// Requests for offers of its members.
    pub serving: usize,
    /// Messages that are queued for other shards.
    pub messages: usize,
    /// Members whose connections were congested at the last event for them.
    pub congested: usize,
    /// Bytes of payload parked for members whose connections are congested.
    pub parked_bytes: usize,
}
