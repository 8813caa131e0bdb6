//! Bounds of channels, and counts of what there is.

/// Bounds of one shard's channels.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members that there is room for from the start: memory that is not touched before it is used.
    /// There may be more, at the price of what a table leaves behind when it grows.
    pub members_expected: usize,
    /// Subscriptions that one member may have.
    pub subscriptions_max: usize,
    /// Messages that may wait for one other shard before commands that need more are refused. Those
    /// that are not refused (answers, withdrawals) are at most as many as were let through before.
    pub messages_max: usize,
    /// Deliveries that may wait before this shard is spared: publications that it cares about are
    /// refused by their owners until half of them are made. What is on its way then still comes, and
    /// one publication to many subscribers may exceed it.
    pub deliveries_max: u64,
    /// Bytes of history, by the formula of `Stats::history_bytes`. Beyond them the
    /// owner drops the publications that are closest to the end of their time. Histories without
    /// publications do not count.
    pub history_bytes_max: u64,
    /// Bytes of one channel's log on one shard (see `Stats::log_bytes`), and bytes of payload that an
    /// owner keeps of one channel for readers that recover beyond the channel's retention.
    pub log_bytes_max: u64,
    /// Bytes of all logs of the shard.
    pub logs_bytes_max: u64,
    /// Bytes of payload in one slice of history for a reader that is behind. A slice has at least one
    /// publication.
    pub slice_bytes: u32,
    /// Milliseconds that a reader that is behind may let the server wait, in all until it has caught
    /// up. A reader that has taken longer is slow: nothing is kept for it beyond the bounds.
    pub slow_grace_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            members_expected: 0,
            subscriptions_max: 1000,
            messages_max: 65_536,
            deliveries_max: 4_000_000,
            history_bytes_max: 256 << 20,
            log_bytes_max: 8 << 20,
            logs_bytes_max: 64 << 20,
            slice_bytes: 64 << 10,
            slow_grace_ms: 1000,
        }
    }
}

impl Limits {
    /// # Panics
    /// If a bound is 0 that has to let something through.
    pub(super) fn check(&self) {
        let bounds = [self.deliveries_max, self.log_bytes_max, self.logs_bytes_max];
        assert!(bounds.iter().all(|bound| *bound > 0), "{self:?}");
        assert!(self.subscriptions_max > 0 && self.messages_max > 0, "{self:?}");
        assert!(self.slice_bytes > 0 && self.slow_grace_ms > 0, "{self:?}");
    }
}

/// Counts of one shard's channels. All zero once everybody left and history has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Channels with subscribers on this shard, or with members who have asked to be.
    pub channels: u64,
    /// Subscriptions on this shard, those that are pending included.
    pub subscriptions: u64,
    /// Subscriptions, withdrawn ones too, that the owner has not answered yet.
    pub pending: u64,
    /// Channels owned by this shard, with subscribers anywhere or with history.
    pub owned: u64,
    /// Publications in the history of owned channels.
    pub kept: u64,
    /// Bytes that the history of owned channels takes. For each channel with publications
    /// in its history
    ///
    /// ```text
    ///   slot + a(history) + a(16 + name) + a(32 * room) + the sum over publications of a(16 + payload)
    /// ```
    ///
    /// where `slot` is the channel's record, `history` the size of a history's head, `name` and
    /// `payload` are lengths, 16 is what shared bytes carry, `room` is the next power of two from
    /// the number of publications, at most the retention's size (once it shrinks, at most four
    /// times their number), and `a` is what the allocator makes of it: 8 more, rounded up to 16.
    pub history_bytes: u64,
    /// Publications dropped from history because of `Limits::history_bytes_max`, ever.
    pub evicted: u64,
    /// Messages gathered and not yet taken.
    pub messages_waiting: u64,
    /// Deliveries that wait for `deliver`.
    pub deliveries_waiting: u64,
    /// Events that wait for `event`.
    pub events_waiting: u64,
    /// Members that are behind in some channel.
    pub members_behind: u64,
    /// Subscriptions whose reader is behind.
    pub readers_behind: u64,
    /// Publications in the logs of this shard: those whose fan-out is not over, and those that
    /// readers that are behind have yet to take.
    pub log_publications: u64,
    /// Bytes of the logs: for each publication its payload, what the caller has made of it
    /// (`Encoded::bytes`) and 160 bytes for the entry and its allocations.
    pub log_bytes: u64,
    /// Readers for which owned channels keep history until they have read it.
    pub holds: u64,
    /// Publications that the backplane has yet to append.
    pub appends_waiting: u64,
}
