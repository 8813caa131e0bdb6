//! Tungstenite as the other endpoint.

use murre_codec::{CloseCode, Control, Data, Kind, OpCode, Role, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role as TheirRole, WebSocket};
use tungstenite::{Error, Message};

use crate::oracles::frames::{Line, beside_tungstenite, heard, in_our_words};
use crate::oracles::listener::{MESSAGE_BYTES_MAX, Said};
use crate::wire::{BINARY, FIN, PING, TEXT, frame, hear};

/// The bytes that tungstenite sends in this role.
fn written(role: TheirRole, messages: &[Message]) -> Vec<u8> {
    let mut socket = WebSocket::from_raw_socket(Line::default(), role, None);
    for message in messages {
        // A server gets an error once its close frame has been sent.
        match socket.send(message.clone()) {
            Ok(()) | Err(Error::ConnectionClosed) => {}
            Err(error) => panic!("{error}"),
        }
    }
    socket.get_ref().output.clone()
}

/// Every kind of message, at the lengths at which the header changes.
fn messages() -> Vec<Message> {
    let lengths = [0, 1, 4, 125, 126, 127, 1000, 65_535, 65_536, 200_000];
    let texts = lengths.map(|len| Message::text("\u{e4}bcd\u{20ac}".repeat(len / 9)));
    let binaries = lengths.map(|len| Message::binary(vec![0xA7; len]));
    let mut messages: Vec<_> = texts.into_iter().chain(binaries).collect();
    messages.push(Message::Ping(vec![1; 125].into()));
    messages.push(Message::Pong(vec![].into()));
    messages
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Library(4321), reason: "bye".into() }))
}

/// A fragment that tungstenite sends unchanged.
fn fragment(data: Data, payload: &[u8], fin: bool) -> Message {
    Message::Frame(Frame::message(payload.to_vec(), OpCode::Data(data), fin))
}

/// We decode the frames of tungstenite, as client and as server, to the same messages.
#[test]
fn we_hear_what_tungstenite_says() {
    for (theirs, ours) in [(TheirRole::Client, Role::Server), (TheirRole::Server, Role::Client)] {
        let mut messages = messages();
        messages.push(goodbye());
        let stream = written(theirs, &messages);
        let expected: Vec<_> = messages.into_iter().filter_map(in_our_words).collect();
        assert_eq!(hear(ours, [&stream[..]]), expected);
        assert_eq!(hear(ours, stream.chunks(4096)), expected);
    }
}

/// We decode fragments of tungstenite with a control frame between them, cut anywhere.
#[test]
fn we_hear_fragments_of_tungstenite() {
    let text = "\u{1f426}".repeat(50);
    let (first, second) = text.as_bytes().split_at(99);
    let messages = [
        fragment(Data::Text, first, false),
        Message::Ping(b"between".to_vec().into()),
        fragment(Data::Continue, second, true),
        fragment(Data::Binary, b"", false),
        fragment(Data::Continue, b"", true),
    ];
    let expected = [
        Said::Ping(b"between".to_vec()),
        Said::Message(Kind::Text, text.as_bytes().to_vec()),
        Said::Message(Kind::Binary, vec![]),
    ];
    for (theirs, ours) in [(TheirRole::Client, Role::Server), (TheirRole::Server, Role::Client)] {
        let stream = written(theirs, &messages);
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            assert_eq!(hear(ours, [first, second]), expected, "{ours:?}, cut at {cut}");
        }
    }
}

/// Tungstenite decodes our frames, as client and as server, to the same messages.
#[test]
fn tungstenite_hears_what_we_say() {
    let mut mask = [1, 2, 3, 4];
    for (theirs, masked) in [(Role::Server, true), (Role::Client, false)] {
        let mut expected: Vec<_> = messages().into_iter().filter_map(in_our_words).collect();
        let mut stream = vec![];
        for said in &expected {
            mask = mask.map(|byte: u8| byte.wrapping_mul(5).wrapping_add(7));
            let mask = masked.then_some(mask);
            let (opcode, payload) = match said {
                Said::Message(kind, payload) => (kind.opcode(), payload),
                Said::Ping(payload) => (OpCode::Control(Control::Ping), payload),
                Said::Pong(payload) => (OpCode::Control(Control::Pong), payload),
                Said::Close(_) | Said::Broken(_) => unreachable!("not among them"),
            };
            match mask {
                Some(_) => encode::write_frame(&mut stream, opcode, payload, mask),
                None => stream.extend_from_slice(&encode::frame(opcode, payload)),
            }
        }
        encode::write_close(&mut stream, CloseCode::Away, "so long", masked.then_some(mask));
        expected.push(Said::Close(Some((CloseCode::Away, "so long".to_owned()))));
        assert_eq!(heard(theirs, MESSAGE_BYTES_MAX, &stream), (expected, true));
    }
}

/// Tungstenite decodes our constant ping frame as a ping.
#[test]
fn tungstenite_hears_our_ping() {
    let heard = heard(Role::Client, MESSAGE_BYTES_MAX, &encode::PING);
    assert_eq!(heard, (vec![Said::Ping(vec![])], true));
}

/// One frame, mostly valid, with a bit that may be flipped.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![".{0,20}".prop_map(String::into_bytes), vec(any::<u8>(), 0..140)];
    let first = prop_oneof![
        Just(FIN | TEXT),
        Just(TEXT),
        Just(FIN | BINARY),
        Just(BINARY),
        Just(FIN),
        Just(0),
        Just(FIN | PING),
        Just(FIN | 8),
    ];
    (first, payload, any::<[u8; 4]>())
        .prop_map(|(first, payload, mask)| frame(first, &payload, Some(mask)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// We refuse every client's frame that tungstenite refuses, and agree on those that we accept.
    #[test]
    fn we_are_at_least_as_strict_as_tungstenite(
        parts in vec(parts(), 1..6),
        flip in proptest::option::of((any::<prop::sample::Index>(), 0..8_u8)),
    ) {
        let mut stream = parts.concat();
        if let Some((at, bit)) = flip {
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
        }
        beside_tungstenite(Role::Server, MESSAGE_BYTES_MAX, &stream);
    }
}
