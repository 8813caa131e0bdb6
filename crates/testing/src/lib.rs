//! The common part of the simulations of several crates: choosing the seeds, running them on all
//! cores, and catching the message of a panic.

mod panics;
mod seeds;

pub use panics::catch_panic;
pub use seeds::{env_number, first_failure, seeds};
