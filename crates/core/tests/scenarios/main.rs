//! Scenarios of a shard with its peers. Each runs on the simulated ring with many seeds, and on the
//! kernel, so that the simulation cannot diverge from it.

mod any_bytes;
mod app;
mod client;
mod echo;
mod network;
mod records;
mod tcp;
mod watched;
mod world;

mod addresses;
mod admission;
mod arriving;
mod chaos;
mod closing;
mod corpus;
mod draining;
mod holding;
mod http;
mod later;
mod outgoing;
mod pressure;
mod session_timers;
mod simulation;
mod sizes;
mod streams;
mod timers;
mod vanished;
mod waking;
mod websocket;

#[path = "../../../../fuzz/src/choices.rs"]
mod choices;
