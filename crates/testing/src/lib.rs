//! What the simulations of several crates share: which seeds to run, on all cores, and the message of a
//! run that panics.

mod panics;
mod seeds;

pub use panics::catch_panic;
pub use seeds::{env_number, first_failure, seeds};
