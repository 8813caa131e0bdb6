//! WebSocket frames (RFC 6455 section 5): bytes in, items out, and the reverse.

pub mod encode;
pub mod mask;

mod decode;
mod header;
mod limits;
mod utf8;
mod violation;

pub use decode::{Close, Decoded, Decoder, Item, Kind, TAIL_BYTES_MAX};
pub use limits::{FrameLimits, Role};
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
pub use violation::Violation;
