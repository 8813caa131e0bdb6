//! The check of each fuzz target on any bytes. The oracles are those of the crates' own tests,
//! which also run them on the corpora.

#[path = "../../crates/codec/tests/codec/oracles/mod.rs"]
mod codec;

#[path = "../../crates/router/tests/channels/oracles/mod.rs"]
mod channels;
#[path = "../../crates/router/tests/services/oracles/mod.rs"]
mod services;

/// RFC 6455 frames, in any pieces, compared with tungstenite.
pub fn frames(bytes: &[u8]) {
    codec::frames::check(bytes);
}

/// HTTP requests, in any pieces, compared with httparse and the rules.
pub fn requests(bytes: &[u8]) {
    codec::requests::check(bytes);
}

/// HTTP responses, in any pieces, compared with httparse and the rules.
pub fn responses(bytes: &[u8]) {
    codec::responses::check(bytes);
}

/// Opening handshakes, of both sides, compared with their rules and tungstenite.
pub fn upgrades(bytes: &[u8]) {
    codec::upgrades::check(bytes);
}

/// PROXY protocol headers, in any cut, compared with another parser.
pub fn proxies(bytes: &[u8]) {
    codec::proxies::check(bytes);
}

/// Messages of `murre.v1`, compared with serde_json and the rules.
pub fn commands(bytes: &[u8]) {
    murre::fuzzing::commands(bytes);
}

/// Claims of a token, compared with serde_json and the rules.
pub fn claims(bytes: &[u8]) {
    murre::fuzzing::claims(bytes);
}

/// Messages of Phoenix clients, compared with serde_json.
pub fn phoenix(bytes: &[u8]) {
    murre::fuzzing::phoenix(bytes);
}

/// What NATS sends, and the messages of other nodes.
pub fn nodes(bytes: &[u8]) {
    murre::fuzzing::nodes(bytes);
}

/// The whole server on simulated rings, compared with its model.
pub fn hub(bytes: &[u8]) {
    murre::fuzzing::hub(bytes);
}

/// Channels on one shard and on several, compared with their models.
pub fn channels(bytes: &[u8]) {
    channels::check(bytes);
}

/// Services on one shard and on several, compared with their models.
pub fn services(bytes: &[u8]) {
    services::check(bytes);
}
