//! `Channels` beside naive models of it, for any bytes: by the tests here and by a fuzz target.

#[path = "../../../../../fuzz/src/dice.rs"]
mod dice;

mod model;
mod oracle;
mod shards;

pub(crate) use model::one_shard;
pub(crate) use shards::several;

use std::sync::Arc;

use murre_router::channels::{Form, Payload, Retention};

/// Bytes are what one shard does, operation by operation, or what several do that hear each other
/// late.
pub(crate) fn check(bytes: &[u8]) {
    match bytes {
        [] => {}
        [0, bytes @ ..] => one_shard(bytes),
        [_, bytes @ ..] => several(bytes),
    }
}

/// The channels of all tests; what is before the colon says what is kept.
pub(crate) const CHANNELS: [&str; 7] =
    ["plain:a", "plain:b", "plain:c", "brief:a", "brief:b", "long:a", "long:b"];

pub(crate) fn rules(channel: &str) -> Option<Retention> {
    match channel.split_once(':') {
        Some(("brief", _)) => Some(Retention { size: 3, ttl_ms: 30 }),
        Some(("long", _)) => Some(Retention { size: 20, ttl_ms: 200 }),
        _ => None,
    }
}

pub(crate) fn payload(number: u32) -> Payload {
    Payload { form: Form::Binary, bytes: Arc::from(number.to_be_bytes()) }
}

pub(crate) fn number(payload: &Payload) -> u32 {
    u32::from_be_bytes(payload.bytes[..].try_into().expect("what `payload` made"))
}
