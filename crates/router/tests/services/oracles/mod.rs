//! Request and reply beside naive models of it, for any bytes: by the tests here and by a fuzz target.

#[path = "../../../../../fuzz/src/choices.rs"]
mod choices;

mod evenly;
mod model;
mod simulation;
mod world;

pub(crate) use evenly::evenly;
pub(crate) use model::one_shard;
pub(crate) use simulation::several;

use murre_router::services::ServiceLimits;

/// More than a test needs.
pub(crate) const ROOMY: ServiceLimits = ServiceLimits {
    services_max: 1000,
    requests_max: 1000,
    serving_max: 1000,
    messages_max: 1000,
    parked_bytes_max: 1 << 20,
    parked_bytes_total_max: 1 << 20,
};

/// Where there is too much of everything.
pub(crate) const TIGHT: ServiceLimits = ServiceLimits {
    services_max: 2,
    requests_max: 6,
    serving_max: 2,
    messages_max: 6,
    parked_bytes_max: 10,
    parked_bytes_total_max: 25,
};

/// Bytes are what members of one shard do, or of several that hear each other late.
pub(crate) fn check(bytes: &[u8]) {
    match bytes {
        [] => {}
        [0, bytes @ ..] => one_shard(bytes),
        [1, bytes @ ..] => evenly(bytes),
        [2, bytes @ ..] => _ = several(bytes, ROOMY),
        [_, bytes @ ..] => _ = several(bytes, TIGHT),
    }
}
