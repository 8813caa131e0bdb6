//! What each fuzz target of this crate does with any bytes.

/// Messages of `murre.v1`, beside serde_json and the rules.
pub fn commands(bytes: &[u8]) {
    crate::protocols::murre_v1::decode_oracle::check(bytes);
}

/// Claims of a token, beside serde_json and the rules.
pub fn claims(bytes: &[u8]) {
    crate::hub::auth::claims_oracle::check(bytes);
}

/// Messages of Phoenix clients, beside serde_json.
pub fn phoenix(bytes: &[u8]) {
    crate::protocols::phoenix::oracle::check(bytes);
}

/// What NATS sends, and the messages of other nodes.
pub fn nodes(bytes: &[u8]) {
    crate::backplane::check(bytes);
}

/// A run of the whole server on simulated rings, beside its model.
pub fn hub(bytes: &[u8]) {
    crate::simulation::check(bytes);
}
