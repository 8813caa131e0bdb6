//! `murre.v1`, the protocol of docs/protocol.md.

pub(crate) mod binary;
pub(crate) mod decode;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod decode_oracle;
pub(crate) mod encode;
pub(crate) mod errors;

/// The subprotocol of its WebSockets (RFC 6455 section 1.9).
pub(crate) const SUBPROTOCOL: &str = "murre.v1";
