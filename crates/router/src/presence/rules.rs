//! The rules of presence in a channel, and counts of what there is.

/// The rules of presence in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceRules {
    /// Whether watchers get the members; otherwise they get counts only.
    pub lists: bool,
    /// The largest number of members, and of watchers of members, with which a channel is small.
    pub push_max: u32,
    /// Milliseconds between two counts of a channel at least.
    pub interval_ms: u32,
    /// Milliseconds for which a member whose connection is lost may come back. 0 is none.
    pub grace_ms: u32,
}

/// Milliseconds for which the joins and leaves of a small channel are gathered.
pub const WINDOW_MS: u64 = 100;

/// Counts of one shard. All of them are zero once all members have left and their grace is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Channels with members or watchers that this shard owns.
    pub channels: u64,
    /// Members of these channels, those whose connection is lost included.
    pub members: u64,
    /// Members whose connection is lost and that may still come back.
    pub leaving: u64,
    /// Channels for which a window or a count is due, and dead nodes whose members are being removed.
    pub due: u64,
    /// Channels that members of this shard watch.
    pub watched: u64,
    /// Watchers on this shard.
    pub watchers: u64,
    /// Watchers that need the state of their channel anew.
    pub behind: u64,
    /// News that wait to be handed to watchers.
    pub news_waiting: u64,
    /// Messages that are queued for other shards.
    pub messages_waiting: u64,
    /// Events that wait for `event`.
    pub events_waiting: u64,
}
