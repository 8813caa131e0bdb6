//! `Topics` beside naive models of it: one shard, operation by operation, and several shards that
//! hear each other late, over many seeds.

mod model;
mod situations;

mod oracle;
mod shards;

use std::sync::Arc;

use murre_router::topics::{Form, Payload, Retention};

/// The topics of all tests; what is before the colon says what is kept.
const TOPICS: [&str; 7] =
    ["plain:a", "plain:b", "plain:c", "brief:a", "brief:b", "long:a", "long:b"];

fn rules(topic: &str) -> Option<Retention> {
    match topic.split_once(':') {
        Some(("brief", _)) => Some(Retention { size: 3, ttl_ms: 30 }),
        Some(("long", _)) => Some(Retention { size: 20, ttl_ms: 200 }),
        _ => None,
    }
}

fn payload(number: u32) -> Payload {
    Payload { form: Form::Binary, bytes: Arc::from(number.to_be_bytes()) }
}

fn number(payload: &Payload) -> u32 {
    u32::from_be_bytes(payload.bytes[..].try_into().expect("what `payload` made"))
}
