//! Request and reply, as its caller sees it.

mod cases;
mod model;
mod simulation;

use murre_router::services::{Limits, Services};

/// More than a test needs.
const ROOMY: Limits =
    Limits { services_max: 1000, requests_max: 1000, serving_max: 1000, notes_max: 1000 };

fn one_shard<P>(limits: Limits) -> Services<P> {
    Services::new(0, 1, 0, limits)
}
