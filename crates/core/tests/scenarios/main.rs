//! Scenarios of a shard with its peers: the same on the simulated ring, with many seeds, and on the
//! kernel, so that the simulation cannot drift from it.

mod client;
mod echo;
mod tcp;
mod watched;
mod world;

mod closing;
mod draining;
mod outgoing;
mod pressure;
mod sizes;
mod streams;
mod timers;
mod waking;
