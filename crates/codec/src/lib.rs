//! RFC 6455 frames and HTTP/1.1 heads: bytes in, items out.
//!
//! Sans-IO: no sockets, no clock, no `unsafe`, and no allocation while decoding. A decoder holds
//! positions, never bytes: its caller keeps what is cut off and calls again with more behind it.
//!
//! - [`http`]: requests with bodies in any cuts, responses;
//! - [`upgrade`]: the opening handshake;
//! - [`proxy`]: the header of a proxy before all that;
//! - [`Decoder`]: frames to messages and control frames, for servers and clients;
//! - [`encode`]: the reverse.
#![forbid(unsafe_code)]

pub mod http;
pub mod proxy;
pub mod upgrade;

mod decode;
mod header;
mod utf8;

pub mod encode;
pub mod mask;

pub use decode::{Close, Decoded, Decoder, Item, Kind, Limits, Role, TAIL_BYTES_MAX, Violation};
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
