//! The common part of the tests of several crates: choosing the seeds of simulations, running them on all
//! cores, catching the message of a panic, and a PostgreSQL server.

mod panics;
mod postgres;
mod seeds;

pub use panics::catch_panic;
pub use postgres::PostgresServer;
pub use seeds::{env_number, first_failure, seeds};
