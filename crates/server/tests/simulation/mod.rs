//! The whole server on simulated rings, compared with a naive model: several shards with their
//! mailboxes, clients of every transport, the control plane, and faults of networks, kernels and
//! clocks. A run that fails is made as small as possible.
//!
//! `SEED=17 cargo test --package murre --lib simulation` repeats one run, `SEEDS=` says how many to
//! try.

mod application;
mod backend;
#[path = "../../../../fuzz/src/choices.rs"]
mod bytes;
mod choices;
mod client;
#[cfg(test)]
mod directed;
mod ends;
mod long_poll;
mod model;
mod operations;
mod phoenix;
mod plan;
mod presence;
#[cfg(test)]
mod seeds;
mod setup;
#[cfg(test)]
mod shrink;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;
use world::World;

/// Plays the run that follows from any bytes.
pub(crate) fn check(bytes: &[u8]) {
    let _ = World::play(&Plan::read(bytes));
}

/// Adds a name to the message of a panic.
fn naming<T>(name: &str, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().map(String::as_str);
        panic!("{name}: {}", why.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default())
    })
}
