//! The configuration that the hubs of all shards share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use murre_core::TokenBucket;
use murre_router::channels::Backplane;
use murre_router::{Shard, channels, services};

use super::auth::{Keys, Required};
use super::drain::DrainBarrier;
use super::limits::NameLimits;
use super::rules::Namespaces;
use crate::backend::Backend;
use crate::backplane;
use crate::backplane::nats::Nats;
use crate::backplane::presence::OtherNodes;
use crate::config::Config;
use crate::webhooks::Webhooks;
use murre_session_log::SessionLog;

/// Rules, limits and shared state of the hubs of all shards.
pub(crate) struct HubConfig {
    pub(crate) namespaces: Namespaces,
    /// The keys at start; those in force are the verifiers'.
    pub(crate) keys: Keys,
    /// Set by a shard that is asked for a key that it has not; `None` if no others can be had.
    pub(crate) keys_wanted: Option<Arc<AtomicBool>>,
    pub(crate) required: Required,
    /// The application that decides over HTTP, if there is one.
    pub(crate) backend: Option<Arc<Backend>>,
    pub(crate) limits: NameLimits,
    pub(crate) channels: channels::ChannelLimits,
    pub(crate) services: services::ServiceLimits,
    pub(crate) commands: TokenBucket,
    pub(crate) max_bad_tokens_per_second: u32,
    /// Topics that one Phoenix session may have joined.
    pub(crate) max_phoenix_topics: usize,
    /// Sessions of Phoenix clients that poll, on one shard.
    pub(crate) max_phoenix_polls: u32,
    /// Bytes that may be queued for one session of a client that polls.
    pub(crate) max_send_bytes: u32,
    /// The longest wait of a poll of a Phoenix client.
    pub(crate) phoenix_poll_window: Duration,
    /// The silence after which a Phoenix client is pinged.
    pub(crate) phoenix_ping_interval: Duration,
    /// Number of deliveries in one turn of a shard at most.
    pub(crate) deliveries_per_turn: usize,
    /// Makes the backplane of the channels that a shard owns.
    pub(crate) backplane: fn(&HubConfig, Shard) -> Box<dyn Backplane + Send>,
    pub(crate) drain_barrier: DrainBarrier,
    /// What is told of sessions, members and channels; `None` without any.
    pub(crate) webhooks: Option<Arc<Webhooks>>,
    /// The connection to the other nodes; `None` if this one is alone.
    pub(crate) nats: Option<Arc<Nats>>,
    /// What other nodes and this one tell each other of members; `None` if this one is alone.
    pub(crate) nodes: Option<Arc<OtherNodes>>,
    /// Told when users come and go.
    pub(crate) session_log: Option<Arc<SessionLog>>,
    /// Seed of the hash of names, the same for all shards and unknown to clients.
    pub(crate) seed: u64,
    /// The start of the clock that all shards share.
    pub(crate) began: Instant,
    pub(crate) shards: Shard,
}

impl HubConfig {
    /// The configuration for `shards` shards with `max_conns` connections each, of which `together` share a
    /// thread.
    ///
    /// # Errors
    /// A sentence that names the setting that cannot be used, and a remedy.
    pub(crate) fn new(
        config: &Config,
        (shards, together): (usize, usize),
        max_conns: u32,
    ) -> Result<Self, String> {
        let each = |bytes: u64| bytes.checked_div(shards as u64).unwrap_or(0).max(1);
        let channels = channels::ChannelLimits {
            members_expected: max_conns as usize,
            subscriptions_max: config.limits.max_channels as usize,
            history_bytes_max: each(config.limits.max_history_bytes),
            log_bytes_max: config.limits.max_log_bytes,
            logs_bytes_max: each(config.limits.max_logs_bytes),
            slow_grace_ms: config.limits.slow_grace.0.as_millis() as u64,
            ..channels::ChannelLimits::default()
        };
        let services = services::ServiceLimits {
            services_max: SERVICES_MAX,
            requests_max: REQUESTS_MAX,
            serving_max: SERVING_MAX,
            messages_max: channels.messages_max,
            parked_bytes_max: PARKED_BYTES_MAX,
            parked_bytes_total_max: each(PARKED_BYTES_TOTAL_MAX) as usize,
        };
        Ok(HubConfig {
            namespaces: config.namespaces(),
            keys: Keys::default(),
            keys_wanted: None,
            required: config.required_of_tokens(),
            backend: None,
            limits: config.name_and_payload_limits(),
            channels,
            services,
            commands: commands(config.limits.max_commands_per_second),
            max_bad_tokens_per_second: match config.limits.max_bad_tokens_per_second {
                0 => u32::MAX,
                limit => limit,
            },
            max_phoenix_topics: config.limits.max_phoenix_topics as usize,
            max_phoenix_polls: config.limits.max_phoenix_polls.div_ceil(shards.max(1) as u32),
            max_send_bytes: config.limits.max_send_bytes,
            phoenix_poll_window: config.limits.phoenix_poll_window.0,
            phoenix_ping_interval: config.limits.phoenix_ping_interval.0,
            deliveries_per_turn: deliveries_per_turn(together),
            backplane: backplane::start,
            drain_barrier: DrainBarrier::new(shards),
            webhooks: None,
            nats: None,
            nodes: None,
            session_log: None,
            // The standard library's only source of unpredictable numbers.
            seed: RandomState::new().hash_one(()),
            began: Instant::now(),
            shards: shards as Shard,
        })
    }
}

/// Deliveries of a shard's turn if `together` shards take turns on a thread. They are few enough that a fan-out
/// does not delay other connections, and many enough that the fixed cost of a turn does not matter.
fn deliveries_per_turn(together: usize) -> usize {
    DELIVERIES_OF_THREAD.checked_div(together).unwrap_or(0).max(DELIVERIES_PER_TURN_MIN)
}

/// Deliveries of a thread in one turn of each of its shards.
const DELIVERIES_OF_THREAD: usize = 64;
const DELIVERIES_PER_TURN_MIN: usize = 8;
/// Bytes of requests and responses that wait for one congested connection at most.
const PARKED_BYTES_MAX: usize = 8 << 20;
/// Bytes of requests and responses that wait for all congested connections, over all shards.
const PARKED_BYTES_TOTAL_MAX: u64 = 64 << 20;

/// Allows `per_second` commands a second, and twice as many at once.
fn commands(per_second: u32) -> TokenBucket {
    TokenBucket::new(per_second, per_second.saturating_mul(2))
}

/// Services that one connection offers at most.
const SERVICES_MAX: u32 = 100;
/// Requests of one connection in flight at most.
const REQUESTS_MAX: u32 = 100;
/// Requests that one connection has to answer at most.
const SERVING_MAX: u32 = 1000;
