//! The whole server on simulated rings, held against a naive model: several shards with their
//! mailboxes, clients of every transport, the control plane, and everything that networks, kernels and
//! clocks may do to them. A run that fails is made as small as it can be.
//!
//! `SEED=17 cargo test --package murre --lib simulation` repeats one run, `SEEDS=` says how many to
//! try.

#[path = "../../../../fuzz/src/dice.rs"]
mod bytes;
mod client;
mod dice;
#[cfg(test)]
mod directed;
mod ends;
mod model;
mod operations;
mod plan;
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

/// Any bytes: a run that follows from them.
pub(crate) fn check(bytes: &[u8]) {
    let _ = World::play(&Plan::read(bytes));
}

/// Says what it was about when something fails.
fn naming<T>(name: &str, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().map(String::as_str);
        panic!("{name}: {}", why.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default())
    })
}
