//! RFC 6455 frames and HTTP/1.1 heads: bytes in, items out.
//!
//! Sans-IO: no sockets, no clock, no `unsafe`, and no allocation while decoding. A decoder holds
//! positions, never bytes: its caller keeps what is cut off and calls again with more behind it.
//!
//! - [`proxy_protocol`]: the header that a proxy writes first;
//! - [`http`]: requests with their bodies, and responses;
//! - [`handshake`]: from HTTP to WebSocket;
//! - [`frame`]: frames to messages and control frames with [`Decoder`], and the reverse with
//!   [`encode`], for servers and clients.
#![forbid(unsafe_code)]

pub mod frame;
pub mod handshake;
pub mod http;
pub mod proxy_protocol;

pub use frame::{
    Close, CloseCode, Control, Data, Decoded, Decoder, FrameLimits, Item, Kind, OpCode, Role,
    TAIL_BYTES_MAX, Violation, encode, mask,
};
