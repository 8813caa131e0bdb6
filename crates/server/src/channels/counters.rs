//! What a shard's channels count, read by other threads.

use murre_core::Counter;
use murre_router::{services, topics};

use super::lagging::Delivered;

/// Totals, and what there is now.
#[derive(Debug, Default)]
pub(crate) struct ChannelCounters {
    /// Commands, those that were refused included.
    pub(crate) commands: Counter,
    /// Commands that were refused.
    pub(crate) refused: Counter,
    /// Publications by clients of this shard.
    pub(crate) published: Counter,
    /// Publications queued to subscribers of this shard.
    pub(crate) delivered: Counter,
    /// Publications kept for connections that lag.
    pub(crate) kept_back: Counter,
    /// Publications dropped for newer ones.
    pub(crate) dropped: Counter,
    /// Connections closed because they lagged.
    pub(crate) disconnected: Counter,
    pub(crate) authenticated: Counter,
    pub(crate) topics: Counter,
    pub(crate) subscriptions: Counter,
    pub(crate) topics_owned: Counter,
    pub(crate) history_kept: Counter,
    pub(crate) history_bytes: Counter,
    pub(crate) history_evicted: Counter,
    pub(crate) notes_waiting: Counter,
    pub(crate) deliveries_waiting: Counter,
    pub(crate) lagging: Counter,
    pub(crate) services: Counter,
    pub(crate) requests_waiting: Counter,
}

impl ChannelCounters {
    /// One publication for one subscriber.
    pub(crate) fn count(&self, delivered: Delivered) {
        match delivered {
            Delivered::Sent => self.delivered.add(1),
            Delivered::Kept => self.kept_back.add(1),
            Delivered::Dropped => {
                self.kept_back.add(1);
                self.dropped.add(1);
            }
            Delivered::Disconnected => self.disconnected.add(1),
            Delivered::Gone => {}
        }
    }

    /// What there is now.
    pub(crate) fn tell(
        &self,
        topics: &topics::Stats,
        services: &services::Stats,
        lagging: usize,
        authenticated: u32,
    ) {
        self.authenticated.set(authenticated.into());
        self.topics.set(topics.topics);
        self.subscriptions.set(topics.subscriptions);
        self.topics_owned.set(topics.owned);
        self.history_kept.set(topics.kept);
        self.history_bytes.set(topics.history_bytes);
        self.history_evicted.set(topics.evicted);
        self.notes_waiting.set(topics.notes_waiting);
        self.deliveries_waiting.set(topics.deliveries_waiting);
        self.lagging.set(lagging as u64);
        self.services.set(services.offers as u64);
        self.requests_waiting.set(services.waiting as u64);
    }
}
