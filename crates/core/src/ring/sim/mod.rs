//! A [`Ring`](super::Ring) without a kernel, for tests: seeded, in memory, with a clock of its own.
//!
//! It injects the faults that a kernel shows on a bad day, and checks what a kernel would not forgive:
//! a caller that breaks a rule of [`Ring`](super::Ring) or [`Op`](super::Op) panics with the rule. A
//! test that fails drops the ring while panicking, and then the ring prints the last events.

mod config;
mod faults;
mod injector;
mod log;
mod net;
mod peers;
mod ring;
mod rules;

pub use config::SimConfig;
pub use faults::Faults;
pub use log::Keep;
pub use net::{ConnStats, Peer};
pub use peers::{Read, SimNet};
pub use ring::SimRing;
