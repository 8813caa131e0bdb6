//! Bounds of channels, and counts of what there is.

/// Bounds of one shard's channels.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    /// Number of members that there is room for from the start. The memory is not touched before it is
    /// used. There may be more members; the table then grows and moves.
    pub members_expected: usize,
    /// Number of subscriptions of one member at most.
    pub subscriptions_max: usize,
    /// Number of messages that may wait for one other shard before commands that need more of them are
    /// refused. Messages that are never refused (answers, withdrawals) each belong to an earlier one.
    pub messages_max: usize,
    /// Number of deliveries that may wait on this shard. Beyond it owners refuse publications that this
    /// shard would get, until half of the deliveries are made. Publications that are already on their
    /// way still arrive, and one publication to many subscribers may exceed the bound.
    pub deliveries_max: u64,
    /// Bytes of history, by the formula of `Stats::history_bytes`. Beyond them the owner drops the
    /// publications that would expire first. Histories without publications do not count.
    pub history_bytes_max: u64,
    /// Bytes of one channel's log on one shard (see `Stats::log_bytes`). Also the bytes of payload that
    /// an owner holds for the readers of one channel beyond its retention.
    pub log_bytes_max: u64,
    /// Bytes of all logs of the shard.
    pub logs_bytes_max: u64,
    /// Bytes of payload in one slice of history for a reader that is behind. A slice has at least one
    /// publication.
    pub slice_bytes: u32,
    /// Milliseconds for which a reader may keep the server waiting, in sum until it has caught up. A
    /// reader that has taken longer is slow: the bounds are not exceeded for its sake.
    pub slow_grace_ms: u64,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        ChannelLimits {
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

impl ChannelLimits {
    /// # Panics
    /// If a bound is 0 that must not be.
    pub(super) fn check(&self) {
        let bounds = [self.deliveries_max, self.log_bytes_max, self.logs_bytes_max];
        assert!(bounds.iter().all(|bound| *bound > 0), "{self:?}");
        assert!(self.subscriptions_max > 0 && self.messages_max > 0, "{self:?}");
        assert!(self.slice_bytes > 0 && self.slow_grace_ms > 0, "{self:?}");
    }
}

/// Counts of one shard's channels. All of them are zero once all members have left and history has
/// expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Channels with subscribers on this shard, pending ones included.
    pub channels: u64,
    /// Subscriptions on this shard, pending ones included.
    pub subscriptions: u64,
    /// Subscriptions, including withdrawn ones, that the owner has not answered yet.
    pub pending: u64,
    /// Channels that this shard owns: they have subscribers on some shard, or history.
    pub owned: u64,
    /// Publications in the history of owned channels.
    pub kept: u64,
    /// Bytes that the history of owned channels takes. For each channel with publications
    /// in its history
    ///
    /// ```text
    ///   slot + a(history) + a(16 + name) + a(32 * room) + the sum over publications of a(16 + payload)
    ///        + a(window) + a(8 * room), if a broker orders the channel
    /// ```
    ///
    /// where `slot` is the channel's record, `history` the size of a history's head, `name` and
    /// `payload` are lengths, 16 is what shared bytes carry, `room` is the next power of two from
    /// the number of publications, at most the retention's size (once it shrinks, at most four
    /// times their number), and `a` is what the allocator makes of it: 8 more, rounded up to 16.
    pub history_bytes: u64,
    /// Publications dropped from history because of `ChannelLimits::history_bytes_max`, ever.
    pub evicted: u64,
    /// Messages that are queued for other shards.
    pub messages_waiting: u64,
    /// Deliveries that wait for `deliver`.
    pub deliveries_waiting: u64,
    /// Events that wait for `event`.
    pub events_waiting: u64,
    /// Members that are behind in some channel.
    pub members_behind: u64,
    /// Subscriptions whose reader is behind.
    pub readers_behind: u64,
    /// Publications in the logs of this shard: their fan-out is not over, or a reader has yet to take
    /// them.
    pub log_publications: u64,
    /// Bytes of the logs: for each publication its payload, the caller's encoding (`Encoded::bytes`) and
    /// 160 bytes for the entry and its allocations.
    pub log_bytes: u64,
    /// Readers for which this shard, as an owner, holds history until they have read it.
    pub holds: u64,
    /// Publications that the broker has yet to append.
    pub appends_waiting: u64,
    /// Requests for publications that the broker has yet to answer.
    pub fetches_waiting: u64,
    /// Joins of channels that this shard owns, which wait for the broker.
    pub joins_waiting: u64,
    /// Channels with history in which publications may be missing, until the broker has answered.
    pub gaps: u64,
    /// Bytes of publications that wait until those before them have come from the broker.
    pub held_back_bytes: u64,
    /// Publications of channels without history that have come from the broker and were dropped, because
    /// a shard was behind, ever.
    pub arrivals_dropped: u64,
    /// How often publications of a channel with history were lost before they reached this process, ever.
    /// Its readers were told.
    pub losses: u64,
}
