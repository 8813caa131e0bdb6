//! The network cuts a stream anywhere; the decoded items do not depend on the cuts.

use murre_codec::{CloseCode, Kind, Role, TAIL_BYTES_MAX};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::oracles::listener::{Listener, MESSAGE_BYTES_MAX, Said};
use crate::wire::{
    BINARY, CLOSE, CONTINUATION, FIN, MASK, PING, PONG, TEXT, frame, hear, masked, said, text,
};

/// A short stream with one item of each kind, for trying every cut, and its items. A server
/// receives it masked, a client unmasked.
fn stream(role: Role) -> (Vec<u8>, Vec<Said>) {
    let mask = (role == Role::Server).then_some(MASK);
    let masked = |first: u8, payload: &[u8]| frame(first, payload, mask);
    let long = "gr\u{fc}n \u{20ac} \u{1f426} ".repeat(20);
    let (first, second) = long.as_bytes().split_at(131);
    let stream = [
        masked(FIN | TEXT, b"a"),
        masked(FIN | BINARY, b""),
        masked(TEXT, first),
        masked(FIN | PING, &[9; 125]),
        masked(CONTINUATION, b""),
        masked(FIN | CONTINUATION, second),
        masked(FIN | PONG, b""),
        masked(FIN | BINARY, &[0xFF; 126]),
        masked(FIN | CLOSE, b"\x03\xE8bye"),
    ]
    .concat();
    let said = vec![
        text("a"),
        Said::Message(Kind::Binary, vec![]),
        Said::Ping(vec![9; 125]),
        text(&long),
        Said::Pong(vec![]),
        Said::Message(Kind::Binary, vec![0xFF; 126]),
        Said::Close(Some((CloseCode::Normal, "bye".to_owned()))),
    ];
    (stream, said)
}

/// Chunks of one, two, three and any other number of bytes give the same items.
#[test]
fn chunks_of_every_size() {
    for role in [Role::Server, Role::Client] {
        let (stream, expected) = stream(role);
        for size in 1..=stream.len() {
            let heard = hear(role, stream.chunks(size));
            assert_eq!(heard, expected, "{role:?}, {size} bytes at a time");
        }
    }
}

/// Every cut into two pieces, and every pair of cuts a few bytes apart, gives the same items.
#[test]
fn every_cut() {
    for role in [Role::Server, Role::Client] {
        let (stream, expected) = stream(role);
        for first in 0..=stream.len() {
            for second in (first..=stream.len()).take(16) {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(hear(role, pieces), expected, "{role:?}, {first} and {second}");
            }
        }
    }
}

/// A frame with the longest form of length, cut anywhere in its header and around its end, gives
/// the same items.
#[test]
fn cuts_of_a_long_frame() {
    let payload: Vec<u8> = (0..70_000_u32).map(|index| index as u8).collect();
    let stream = [masked(FIN | BINARY, &payload), masked(FIN | PING, b"")].concat();
    let expected = [Said::Message(Kind::Binary, payload), Said::Ping(vec![])];
    for cut in (0..20).chain(stream.len() - 20..stream.len()).chain([4096, 65_535, 65_536]) {
        let (first, second) = stream.split_at(cut);
        assert_eq!(hear(Role::Server, [first, second]), expected, "cut at {cut}");
    }
}

/// The longest tail is a masked control frame without its last byte; it is `TAIL_BYTES_MAX` long.
#[test]
fn the_longest_tail() {
    let ping = masked(FIN | PING, &[1; 125]);
    assert_eq!(ping.len() - 1, TAIL_BYTES_MAX);
    let mut listener = Listener::new(Role::Server, MESSAGE_BYTES_MAX);
    listener.hear(&ping[..TAIL_BYTES_MAX]);
    assert_eq!(listener.said, []);
    listener.hear(&ping[TAIL_BYTES_MAX..]);
    assert_eq!(listener.said, [Said::Ping(vec![1; 125])]);
}

/// The decoder passes payload on as it arrives, and leaves none of it to the caller.
#[test]
fn payload_leaves_no_tail() {
    use murre_codec::{Decoded, Decoder, FrameLimits, Item};
    let limits = FrameLimits { role: Role::Server, max_message_bytes: 1000 };
    let mut bytes = masked(FIN | BINARY, &[5; 200]);
    let mut decoder = Decoder::default();
    let (head, rest) = bytes.split_at_mut(8);
    let nothing = Decoded { consumed: 8, item: None };
    assert_eq!(decoder.decode(head, &limits), Ok(nothing));
    let (half, rest) = rest.split_at_mut(77);
    for (piece, start, end) in [(half, true, false), (rest, false, true)] {
        let len = piece.len();
        let bytes = &mut vec![5; len][..];
        let item = Some(Item::Data { kind: Kind::Binary, bytes, start, end });
        assert_eq!(decoder.decode(piece, &limits), Ok(Decoded { consumed: len, item }));
    }
    assert_eq!(decoder.decode(&mut [], &limits), Ok(Decoded { consumed: 0, item: None }));
}

/// A part of a stream, valid or not.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..40),
        ".{0,30}".prop_map(String::into_bytes),
        vec(any::<u8>(), 120..135),
        (65_530..65_540_usize).prop_map(|len| vec![b'a'; len]),
    ];
    let valid_first = prop_oneof![
        Just(FIN | TEXT),
        Just(TEXT),
        Just(BINARY),
        Just(FIN | BINARY),
        Just(CONTINUATION),
        Just(FIN | CONTINUATION),
        Just(FIN | PING),
        Just(FIN | PONG),
    ];
    let first = prop_oneof![20 => valid_first, 1 => any::<u8>()];
    prop_oneof![
        20 => (first, payload, any::<[u8; 4]>())
            .prop_map(|(first, payload, mask)| frame(first, &payload, Some(mask))),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// Fragmented messages with control frames between the fragments, and their items.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Said>)> {
    let kind = prop_oneof![
        ".{0,80}".prop_map(|text| (Kind::Text, text.into_bytes())),
        vec(any::<u8>(), 0..300).prop_map(|bytes| (Kind::Binary, bytes)),
    ];
    let fragment = (0..40_usize, proptest::option::of(vec(any::<u8>(), 0..=125)), any::<[u8; 4]>());
    let message = (kind, vec(fragment, 1..6));
    vec(message, 1..5).prop_map(|messages| {
        let (mut stream, mut said) = (vec![], vec![]);
        for ((kind, payload), fragments) in messages {
            let last = fragments.len() - 1;
            let mut rest = &payload[..];
            for (index, (len, ping, mask)) in fragments.into_iter().enumerate() {
                let first = if index == 0 { u8::from(kind.opcode()) } else { CONTINUATION };
                let len = if index == last { rest.len() } else { len.min(rest.len()) };
                let (piece, after) = rest.split_at(len);
                rest = after;
                let fin = if index == last { FIN } else { 0 };
                stream.extend(frame(fin | first, piece, Some(mask)));
                if index == last {
                    said.push(Said::Message(kind, payload.clone()));
                }
                if let Some(ping) = ping {
                    stream.extend(frame(FIN | PING, &ping, Some(mask)));
                    said.push(Said::Ping(ping));
                }
            }
        }
        (stream, said)
    })
}

/// The stream in pieces of these sizes, repeated.
fn pieces<'b>(mut stream: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let mut pieces = vec![];
    for size in sizes.iter().cycle() {
        let (piece, rest) = stream.split_at((*size).min(stream.len()));
        pieces.push(piece);
        stream = rest;
        if stream.is_empty() {
            break;
        }
    }
    pieces
}

proptest! {
    /// Messages decode to what was sent, in any fragments and pieces.
    #[test]
    fn conversations_survive_any_cut(
        (stream, expected) in conversation(),
        sizes in vec(1..50_usize, 1..8),
    ) {
        prop_assert_eq!(said(&stream), &expected[..]);
        prop_assert_eq!(hear(Role::Server, pieces(&stream, &sizes)), expected);
    }

    /// Streams with errors decode to the same items and the same violation in any pieces.
    #[test]
    fn mistakes_do_not_depend_on_cuts(
        parts in vec(part(), 1..8),
        sizes in vec(1..3000_usize, 1..6),
    ) {
        let stream = parts.concat();
        prop_assert_eq!(said(&stream), hear(Role::Server, pieces(&stream, &sizes)));
    }

    /// No input makes the decoder panic, in either role, even if the caller continues after a
    /// violation.
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), client in any::<bool>()) {
        use murre_codec::{Decoder, FrameLimits};
        let role = if client { Role::Client } else { Role::Server };
        let limits = FrameLimits { role, max_message_bytes: 100 };
        let mut decoder = Decoder::default();
        for from in 0..bytes.len() {
            let mut input = bytes[from..].to_vec();
            if let Ok(decoded) = decoder.decode(&mut input, &limits) {
                prop_assert!(decoded.consumed <= bytes.len() - from);
            }
        }
        let heard = hear(role, [&bytes[..]]);
        prop_assert_eq!(heard, hear(role, bytes.chunks(1)));
    }
}
