//! `Channels` beside naive models of it, for any bytes: by the tests here and by a fuzz target.

#[path = "../../../../../fuzz/src/choices.rs"]
pub(crate) mod choices;

mod model;
mod oracle;
mod shards;
mod sockets;
mod world;

pub(crate) use model::one_shard;
pub(crate) use shards::several;

use murre_router::channels::{Form, Origin, Payload, Publisher, Retention};

/// Bytes are what one shard does, operation by operation, or what several do that hear each other
/// late.
pub(crate) fn check(bytes: &[u8]) {
    match bytes {
        [] => {}
        [0, bytes @ ..] => one_shard(bytes),
        [_, bytes @ ..] => _ = several(bytes),
    }
}

/// The channels of all tests. The part before the colon says what is kept, the part behind it what
/// happens to slow readers.
pub(crate) const CHANNELS: [&str; 7] = [
    "plain:oldest",
    "plain:newest",
    "plain:end",
    "brief:oldest",
    "brief:newest",
    "long:oldest",
    "long:end",
];

pub(crate) fn rules(channel: &str) -> Option<Retention> {
    match channel.split_once(':') {
        Some(("brief", _)) => Some(Retention { size: 3, ttl_ms: 30 }),
        Some(("long", _)) => Some(Retention { size: 20, ttl_ms: 200 }),
        _ => None,
    }
}

/// Of 4 to 64 bytes.
pub(crate) fn payload(number: u32) -> Payload {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(4 + number as usize % 7 * 10, 0);
    Payload::new(Form::Binary, bytes)
}

pub(crate) fn number(payload: &Payload) -> u32 {
    u32::from_be_bytes(payload.bytes[..4].try_into().expect("what `payload` made"))
}

pub(crate) fn publisher(ticket: Option<u32>) -> Publisher {
    Publisher { origin: Origin(0), ticket, except: false }
}
