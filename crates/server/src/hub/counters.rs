//! Counters of a shard's hub, read by other threads.

use murre_core::Counter;
use murre_router::{channels, presence, services};

use super::auth::VerifierCounts;

/// Totals since the start, and gauges.
#[derive(Debug, Default)]
pub(crate) struct HubCounters {
    /// Commands, refused ones included.
    pub(crate) commands: Counter,
    /// Commands that were refused.
    pub(crate) refused: Counter,
    /// Publications by sessions of this shard.
    pub(crate) published: Counter,
    /// Publications queued to subscribers of this shard.
    pub(crate) delivered: Counter,
    /// Publications dropped for subscribers that read too slowly.
    pub(crate) dropped: Counter,
    /// News of members queued to watchers of this shard.
    pub(crate) presence_news: Counter,
    /// Connections closed because they read too slowly.
    pub(crate) disconnected: Counter,
    /// Signature checks of tokens.
    pub(crate) signature_checks: Counter,
    /// Tokens accepted from the cache of good tokens.
    pub(crate) tokens_cached: Counter,
    /// Tokens refused without a check, because their address had too many bad ones.
    pub(crate) tokens_refused: Counter,
    /// Good tokens in the cache, and addresses that have sent bad ones.
    pub(crate) tokens_kept: Counter,
    /// Signature checks put off to the next turn.
    pub(crate) signature_checks_put_off: Counter,
    pub(crate) authenticated: Counter,
    pub(crate) channels: Counter,
    pub(crate) subscriptions: Counter,
    pub(crate) channels_owned: Counter,
    pub(crate) history_kept: Counter,
    pub(crate) history_bytes: Counter,
    pub(crate) history_evicted: Counter,
    pub(crate) broker_fetches_waiting: Counter,
    pub(crate) broker_joins_waiting: Counter,
    pub(crate) broker_held_bytes: Counter,
    pub(crate) broker_dropped: Counter,
    pub(crate) broker_losses: Counter,
    pub(crate) messages_waiting: Counter,
    pub(crate) deliveries_waiting: Counter,
    pub(crate) readers_behind: Counter,
    pub(crate) members_behind: Counter,
    pub(crate) log_publications: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) services: Counter,
    pub(crate) requests_waiting: Counter,
    pub(crate) parked_bytes: Counter,
    pub(crate) presence_channels: Counter,
    pub(crate) presence_members: Counter,
    pub(crate) presence_leaving: Counter,
    pub(crate) presence_watchers: Counter,
    /// Calls of the backend.
    pub(crate) backend_calls: Counter,
    /// Calls of the backend without an answer yet.
    pub(crate) backend_waiting: Counter,
    /// Commands that wait for answers of the router.
    pub(crate) pending: Counter,
    /// Sessions whose tokens have an expiry.
    pub(crate) expiries: Counter,
    /// Sessions of Phoenix clients that poll.
    pub(crate) phoenix_polls: Counter,
    /// Bytes that wait for the next polls of those.
    pub(crate) phoenix_polls_bytes: Counter,
    /// Sessions that did not begin because of a limit.
    pub(crate) phoenix_polls_refused: Counter,
}

impl HubCounters {
    /// Updates the gauges.
    pub(crate) fn tell(
        &self,
        channels: &channels::Stats,
        services: &services::Stats,
        presence: &presence::Stats,
    ) {
        self.channels.set(channels.channels);
        self.subscriptions.set(channels.subscriptions);
        self.channels_owned.set(channels.owned);
        self.history_kept.set(channels.kept);
        self.history_bytes.set(channels.history_bytes);
        self.history_evicted.set(channels.evicted);
        self.broker_fetches_waiting.set(channels.fetches_waiting);
        self.broker_joins_waiting.set(channels.joins_waiting);
        self.broker_held_bytes.set(channels.held_back_bytes);
        self.broker_dropped.set(channels.arrivals_dropped);
        self.broker_losses.set(channels.losses);
        self.messages_waiting.set(channels.messages_waiting);
        self.deliveries_waiting.set(channels.deliveries_waiting);
        self.readers_behind.set(channels.readers_behind);
        self.members_behind.set(channels.members_behind);
        self.log_publications.set(channels.log_publications);
        self.log_bytes.set(channels.log_bytes);
        self.services.set(services.offers as u64);
        self.requests_waiting.set(services.waiting as u64);
        self.parked_bytes.set(services.parked_bytes as u64);
        self.presence_channels.set(presence.channels);
        self.presence_members.set(presence.members);
        self.presence_leaving.set(presence.leaving);
        self.presence_watchers.set(presence.watchers);
    }

    /// Updates the counts of signature checks.
    pub(crate) fn tell_checks(&self, counts: VerifierCounts) {
        self.signature_checks.set(counts.checks);
        self.tokens_cached.set(counts.cached);
        self.tokens_refused.set(counts.refused_without_check);
        self.signature_checks_put_off.set(counts.put_off);
    }
}
