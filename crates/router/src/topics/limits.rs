//! How much may wait and be kept, and how much does.

/// Bounds of one shard's topics.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members that there is room for from the start: memory that is not touched before it is used.
    /// There may be more, at the price of what a table leaves behind when it grows.
    pub members_usual: usize,
    /// Subscriptions that one member may have.
    pub subscriptions_max: usize,
    /// Notes that may wait for one other shard before commands that need more are refused. Those
    /// that are not refused (answers, withdrawals) are at most as many as were let through before.
    pub notes_max: usize,
    /// Deliveries that may wait before this shard is spared: publications that it cares about are
    /// refused by their owners until half of them are made. What is on its way then still comes, and
    /// one publication to many subscribers may exceed it.
    pub deliveries_max: u64,
    /// Bytes of history, by the formula of `Stats::history_bytes`. What would exceed them puts out
    /// the publications that are closest to the end of their time.
    pub history_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            members_usual: 0,
            subscriptions_max: 1000,
            notes_max: 65_536,
            deliveries_max: 4_000_000,
            history_bytes_max: 256 << 20,
        }
    }
}

/// What one shard's topics hold. All zero once everybody left and history has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Topics with subscribers on this shard, or with members who have asked to be.
    pub topics: u64,
    /// Subscriptions on this shard, those that are pending included.
    pub subscriptions: u64,
    /// Subscriptions, withdrawn ones too, that the owner has not answered yet.
    pub pending: u64,
    /// Topics owned by this shard, with subscribers anywhere or with history.
    pub owned: u64,
    /// Publications in the history of owned topics.
    pub kept: u64,
    /// Bytes that the history of owned topics takes. For each topic that keeps history
    ///
    /// ```text
    ///   slot + a(history) + a(16 + name) + a(32 * room) + the sum over publications of a(16 + payload)
    /// ```
    ///
    /// where `slot` is the topic's record, `history` the size of a history's head, `name` and
    /// `payload` are lengths, 16 is what shared bytes carry, `room` is the next power of two from
    /// the number of publications, at most the retention's size (once it shrinks, at most four
    /// times their number), and `a` is what the allocator makes of it: 8 more, rounded up to 16.
    pub history_bytes: u64,
    /// Publications put out of history because of `Limits::history_bytes_max`, ever.
    pub evicted: u64,
    /// Notes gathered and not yet taken.
    pub notes_waiting: u64,
    /// Deliveries that wait for `deliver`.
    pub deliveries_waiting: u64,
    /// Events that wait for `event`.
    pub events_waiting: u64,
}
