//! What is in force, for all shards alike.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use murre_router::{Shard, services, topics};

use super::command;
use super::floor::Floors;
use super::namespaces::Namespaces;
use crate::config::Config;
use crate::hub::auth::Keys;
use crate::hub::rate::TokenBucket;

/// What all shards share of channels: rules, and what makes them one.
pub(crate) struct Setting {
    pub(crate) namespaces: Namespaces,
    pub(crate) keys: Keys,
    pub(crate) limits: command::Limits,
    pub(crate) topics: topics::Limits,
    pub(crate) services: services::Limits,
    pub(crate) rate: TokenBucket,
    pub(crate) floors: Floors,
    /// What hashes names, the same for all shards and unknown to clients.
    pub(crate) seed: u64,
    /// When time began, for all shards.
    pub(crate) began: Instant,
    pub(crate) shards: Shard,
    /// Whether the services of the published runs are built in.
    pub(crate) bench: bool,
}

impl Setting {
    /// What `config` says, for a shard on each of `cores`, of so many connections.
    ///
    /// # Errors
    /// What is wrong with it, and what helps.
    pub(crate) fn new(config: &Config, cores: &[usize], conns_max: u32) -> Result<Self, String> {
        let shards = cores.len();
        let topics = topics::Limits {
            members_usual: conns_max as usize,
            subscriptions_max: config.max_channels as usize,
            history_bytes_max: config.max_history_bytes / shards as u64,
            ..topics::Limits::default()
        };
        let services = services::Limits {
            services_max: SERVICES_MAX,
            requests_max: REQUESTS_MAX,
            serving_max: SERVING_MAX,
            notes_max: topics.notes_max,
        };
        let (secret, public) = (&config.jwt_hmac_secret_file, &config.jwt_public_key_file);
        let (secret, public) = (secret.as_deref(), public.as_deref());
        Ok(Setting {
            namespaces: config.namespaces(),
            keys: Keys::read(secret, public).map_err(|error| error.to_string())?,
            limits: config.command_limits(),
            topics,
            services,
            rate: TokenBucket::new(
                config.max_commands_per_second,
                config.max_commands_per_second.saturating_mul(2),
            ),
            floors: Floors::new(cores),
            // The only source of numbers that cannot be guessed in the standard library.
            seed: RandomState::new().hash_one(()),
            began: Instant::now(),
            shards: shards as Shard,
            bench: config.bench,
        })
    }
}

/// Services that one connection offers at most.
const SERVICES_MAX: u32 = 100;
/// Requests of one connection in flight at most.
const REQUESTS_MAX: u32 = 100;
/// Requests that one connection is to answer at most.
const SERVING_MAX: u32 = 1000;
