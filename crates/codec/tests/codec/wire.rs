//! Frames as bytes, and the items that a decoder reads from them.

use murre_codec::{Kind, Role};

use crate::oracles::listener::{self, MESSAGE_BYTES_MAX, Said};

/// The first byte of a final frame.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame with this first byte, its length in the shortest form; masked unless the mask is `None`.
pub(crate) fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let len = payload.len();
    let extended = match len {
        0..=125 => vec![],
        126..=0xFFFF => (len as u16).to_be_bytes().to_vec(),
        _ => (len as u64).to_be_bytes().to_vec(),
    };
    let seven_bits = match extended.len() {
        0 => len as u8,
        2 => 126,
        _ => 127,
    };
    let mut out = vec![first, seven_bits | if mask.is_some() { 0x80 } else { 0 }];
    out.extend(extended);
    out.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A client's frame.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, Some(MASK))
}

/// The items of a stream that arrives in these pieces.
pub(crate) fn hear<'b>(role: Role, pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<Said> {
    listener::hear(role, MESSAGE_BYTES_MAX, pieces)
}

/// The items of a stream that reaches a server at once.
pub(crate) fn said(stream: &[u8]) -> Vec<Said> {
    hear(Role::Server, [stream])
}

/// A text message.
pub(crate) fn text(text: &str) -> Said {
    Said::Message(Kind::Text, text.as_bytes().to_vec())
}
