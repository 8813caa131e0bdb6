//! Items to RFC 6455 frames. Every frame is the only one of its message.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use super::header::CONTROL_BYTES_MAX;
use super::mask;

/// A server's empty ping, built once for all connections.
pub const PING: Bytes = Bytes::from_static(&[0x89, 0]);

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// A server's frame, to be shared by all connections that it is sent to.
///
/// # Panics
/// As [`write_frame`] does.
pub fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    write_frame(&mut out, opcode, payload, None);
    out.into()
}

/// Appends a frame to `out`: a server's without a mask, a client's with one, which must be fresh and
/// unpredictable for every frame (RFC 6455 section 5.3).
///
/// # Panics
/// If the payload of a control frame has more than 125 bytes, which RFC 6455 section 5.5 forbids.
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

/// Appends a close frame (RFC 6455 section 5.5.1). Cuts a reason of more than 123 bytes between two
/// characters.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = [0; CONTROL_BYTES_MAX];
    let ends = reason.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = ends.take_while(|&end| end <= CONTROL_BYTES_MAX - 2).last().unwrap_or(0);
    let reason = &reason[..end];
    payload[..2].copy_from_slice(&u16::from(code).to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    write_frame(out, OpCode::Control(Control::Close), &payload[..2 + reason.len()], mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    /// Lengths take the shortest of their three forms, at both ends of each.
    #[test]
    fn lengths_are_as_short_as_can_be() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0xFFFF, &[0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = frame(Kind::Binary.opcode(), &vec![7; len]);
            assert_eq!(frame.len(), header.len() + len);
            assert_eq!(&frame[..header.len()], header);
            let mut masked = vec![0xAA];
            write_frame(&mut masked, Kind::Binary.opcode(), &vec![7; len], Some([1, 2, 3, 4]));
            assert_eq!(masked[..2], [0xAA, 0x82], "appended");
            assert_eq!(masked[2], 0x80 | header[1]);
            assert_eq!(masked[3..3 + header.len() - 2], header[2..]);
            assert_eq!(masked.len(), 1 + header.len() + 4 + len);
        }
    }

    /// A reason that does not fit is cut between two characters.
    #[test]
    fn reasons_are_cut_between_characters() {
        for (reason, bytes) in [
            ("", 0),
            ("bye", 3),
            (&"x".repeat(123), 123),
            (&"x".repeat(124), 123),
            (&"\u{e9}".repeat(62), 122),
            (&"\u{1f426}".repeat(40), 120),
        ] {
            let mut out = vec![];
            write_close(&mut out, CloseCode::Normal, reason, None);
            assert_eq!(out[..4], [0x88, 2 + bytes as u8, 3, 0xE8]);
            assert_eq!(&out[4..], &reason.as_bytes()[..bytes]);
        }
    }

    /// A control frame that is too long is a mistake of the caller.
    #[test]
    #[should_panic]
    fn control_frames_are_short() {
        frame(OpCode::Control(Control::Ping), &[0; 126]);
    }
}
