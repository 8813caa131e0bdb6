//! Items to RFC 6455 frames. Every frame is final: we do not fragment.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use crate::header::CONTROL_BYTES_MAX;
use crate::mask;

/// A server's empty ping, built once for everybody.
pub const PING: Bytes = Bytes::from_static(&[0x89, 0]);

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// A whole server frame, built once and shared by all who are sent it.
pub fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    write_frame(&mut out, opcode, payload, None);
    out.into()
}

/// Appends a frame: a server's without a mask, a client's with one, which must be fresh and
/// unpredictable for every frame (RFC 6455 section 5.3).
///
/// # Panics
/// If the payload of a control frame has more than 125 bytes: no peer takes that.
pub fn write_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], mask: Option<[u8; 4]>) {
    assert!(matches!(opcode, OpCode::Data(_)) || payload.len() <= CONTROL_BYTES_MAX);
    out.reserve(HEADER_BYTES_MAX + payload.len());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | u8::from(opcode));
    // The shortest form that holds the length (RFC 6455 section 5.2).
    match payload.len() {
        len @ 0..=125 => out.push(masked | len as u8),
        len @ 126..=0xFFFF => {
            out.push(masked | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(masked | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let Some(mask) = mask else { return out.extend_from_slice(payload) };
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[start..], mask);
}

/// Appends a close frame; a reason that is too long is cut.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = [0; CONTROL_BYTES_MAX];
    let ends = reason.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = ends.take_while(|&end| end <= CONTROL_BYTES_MAX - 2).last().unwrap_or(0);
    let reason = &reason[..end];
    payload[..2].copy_from_slice(&u16::from(code).to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    write_frame(out, OpCode::Control(Control::Close), &payload[..2 + reason.len()], mask);
}
