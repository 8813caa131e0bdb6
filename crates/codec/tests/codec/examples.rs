//! The examples of RFC 6455 itself.

use murre_codec::{Kind, OpCode, Role, encode, handshake};

use crate::oracles::listener::Said;
use crate::wire::{hear, text};

/// The decoder accepts the frames of section 5.7 that a server sends.
#[test]
fn unmasked_frames_of_section_5_7() {
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(hear(Role::Client, [&hello[..]]), [text("Hello")]);
    assert_eq!(encode::frame(Kind::Text.opcode(), b"Hello"), &hello[..]);

    let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(hear(Role::Client, [&fragments[..]]), [text("Hello")]);

    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(hear(Role::Client, [&ping[..]]), [Said::Ping(b"Hello".to_vec())]);
    assert_eq!(encode::frame(OpCode::from(9), b"Hello"), &ping[..]);

    let binary = vec![0xA5; 256];
    let frame = [&[0x82, 0x7E, 0x01, 0x00], &binary[..]].concat();
    assert_eq!(hear(Role::Client, [&frame[..]]), [Said::Message(Kind::Binary, binary.clone())]);
    assert_eq!(encode::frame(Kind::Binary.opcode(), &binary), frame);

    let binary = vec![0x5A; 65_536];
    let frame =
        [&[0x82, 0x7F, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00], &binary[..]].concat();
    assert_eq!(hear(Role::Client, [&frame[..]]), [Said::Message(Kind::Binary, binary.clone())]);
    assert_eq!(encode::frame(Kind::Binary.opcode(), &binary), frame);
}

/// The decoder accepts the frames of section 5.7 that a client sends.
#[test]
fn masked_frames_of_section_5_7() {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(hear(Role::Server, [&hello[..]]), [text("Hello")]);
    let mut out = vec![];
    encode::write_frame(&mut out, Kind::Text.opcode(), b"Hello", Some(mask));
    assert_eq!(out, hello);

    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(hear(Role::Server, [&pong[..]]), [Said::Pong(b"Hello".to_vec())]);
}

/// The key of section 1.3 gives the accept value of that section.
#[test]
fn accept_key_of_section_1_3() {
    let mut out = vec![];
    handshake::accept(&mut out, b"dGhlIHNhbXBsZSBub25jZQ==", Some("chat"));
    assert_eq!(
        std::str::from_utf8(&out),
        Ok("HTTP/1.1 101 Switching Protocols\r\n\
            Upgrade: websocket\r\n\
            Connection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\n\r\n")
    );
}
