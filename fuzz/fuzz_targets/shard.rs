//! A whole shard on the simulated ring, driven by the input bytes. The modules are those of the
//! scenarios of `murre-core`, which refer to each other from the crate root.

#![no_main]
#![expect(dead_code, reason = "other scenarios use it")]

#[path = "../../crates/core/tests/scenarios/any_bytes.rs"]
mod any_bytes;
#[path = "../../crates/core/tests/scenarios/app.rs"]
mod app;
#[path = "../src/choices.rs"]
mod choices;
#[path = "../../crates/core/tests/scenarios/network.rs"]
mod network;
#[path = "../../crates/core/tests/scenarios/records.rs"]
mod records;
#[path = "../../crates/core/tests/scenarios/tcp.rs"]
mod tcp;
#[path = "../../crates/core/tests/scenarios/watched.rs"]
mod watched;
#[path = "../../crates/core/tests/scenarios/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any_bytes::check(bytes));
