//! Every rule of RFC 6455 section 5, and the frames that the rules allow.

use murre_codec::{CloseCode, Kind, Role, Violation};

use crate::oracles::listener::{Listener, MESSAGE_BYTES_MAX, Said};
use crate::wire::{
    BINARY, CLOSE, CONTINUATION, FIN, MASK, PING, PONG, TEXT, frame, hear, masked, said, text,
};

/// Each violation of a rule of frames has its close code. The decoder still returns the items
/// before it.
#[test]
fn every_violation_has_its_code() {
    use Violation::*;
    let masked_len = |first: u8, len_bytes: &[u8]| {
        [&[first, 0x80 | if len_bytes.len() == 2 { 126 } else { 127 }], len_bytes, &MASK].concat()
    };
    let broken = [
        (Unmasked, 1002, frame(FIN | TEXT, b"hi", None)),
        (Unmasked, 1002, frame(FIN | PING, b"", None)),
        (ReservedBits, 1002, masked(FIN | 0x40 | TEXT, b"hi")),
        (ReservedBits, 1002, masked(FIN | 0x20 | TEXT, b"hi")),
        (ReservedBits, 1002, masked(FIN | 0x10 | PING, b"hi")),
        (ReservedOpcode, 1002, masked(FIN | 0x3, b"hi")),
        (ReservedOpcode, 1002, masked(FIN | 0x7, b"")),
        (ReservedOpcode, 1002, masked(FIN | 0xB, b"hi")),
        (ReservedOpcode, 1002, masked(FIN | 0xF, b"")),
        (LengthNotMinimal, 1002, masked_len(FIN | TEXT, &[0, 125])),
        (LengthNotMinimal, 1002, masked_len(FIN | BINARY, &[0, 0, 0, 0, 0, 0, 0xFF, 0xFF])),
        (LengthNegative, 1002, masked_len(FIN | BINARY, &[0x80, 0, 0, 0, 0, 0, 0, 0])),
        (ContinuationUnexpected, 1002, masked(FIN | CONTINUATION, b"hi")),
        (ContinuationUnexpected, 1002, masked(CONTINUATION, b"")),
        (ContinuationExpected, 1002, [masked(TEXT, b"a"), masked(FIN | TEXT, b"b")].concat()),
        (ContinuationExpected, 1002, [masked(TEXT, b""), masked(BINARY, b"b")].concat()),
        (ControlFragmented, 1002, masked(PING, b"hi")),
        (ControlFragmented, 1002, masked(CLOSE, b"")),
        (ControlTooLong, 1002, masked(FIN | PING, &[0; 126])),
        (ControlTooLong, 1002, masked(FIN | CLOSE, &[3; 70_000])),
        (ControlTooLong, 1002, masked_len(FIN | PONG, &[0, 5])),
        (CloseTooShort, 1002, masked(FIN | CLOSE, &[3])),
        (NotUtf8, 1007, masked(FIN | CLOSE, &[3, 232, 0xC3])),
        (NotUtf8, 1007, masked(FIN | TEXT, b"a\xFF")),
        (NotUtf8, 1007, masked(FIN | TEXT, b"a\xC3")),
        (NotUtf8, 1007, [masked(TEXT, b"\xC3"), masked(FIN, b"a")].concat()),
        (NotUtf8, 1007, [masked(TEXT, b"\xC3"), masked(FIN, b"")].concat()),
        (MessageTooLong, 1009, masked_len(FIN | BINARY, &[0, 0, 0, 0, 0, 0x10, 0, 1])),
        (MessageTooLong, 1009, masked_len(FIN | BINARY, &[0x7F, 0, 0, 0, 0, 0, 0, 0])),
    ];
    for (violation, code, bytes) in broken {
        let stream = [masked(FIN | PING, b"before"), bytes, masked(FIN | PING, b"after")].concat();
        let expected = [Said::Ping(b"before".to_vec()), Said::Broken(violation)];
        assert_eq!(said(&stream), expected, "{violation:?}: {stream:02x?}");
        // The result is the same byte by byte.
        assert_eq!(hear(Role::Server, stream.chunks(1)), expected, "byte by byte: {stream:02x?}");
        for cut in 0..=stream.len().min(300) {
            let (first, second) = stream.split_at(cut);
            assert_eq!(hear(Role::Server, [first, second]), expected, "{violation:?} at {cut}");
        }
        assert_eq!(u16::from(violation.close_code()), code, "{violation:?}");
        assert!(violation.reason().len() <= 123, "{violation:?} does not fit a close frame");
    }
}

/// A violation in the first two bytes of a frame is refused without waiting for more.
#[test]
fn two_bytes_are_enough_to_refuse() {
    for first in 0..=0xFF_u8 {
        for second in 0..=0xFF_u8 {
            let long_control = first & 0x08 != 0 && second & 0x7F > 125;
            let broken = second & 0x80 == 0
                || first & 0x70 != 0
                || !matches!(first & 0x0F, TEXT | BINARY | CLOSE | PING | PONG)
                || (first & 0x08 != 0 && first & FIN == 0)
                || long_control;
            let heard = said(&[first, second]);
            assert_eq!(!heard.is_empty(), broken, "{first:#04x} {second:#04x}: {heard:?}");
        }
    }
}

/// A server masks no frame: a client accepts unmasked frames and refuses masked ones.
#[test]
fn a_client_wants_no_masks() {
    let plain = frame(FIN | TEXT, b"hi", None);
    assert_eq!(hear(Role::Client, [&plain[..]]), [text("hi")]);
    let masked = masked(FIN | TEXT, b"hi");
    assert_eq!(hear(Role::Client, [&masked[..]]), [Said::Broken(Violation::Masked)]);
}

/// A fragmented message is one message, whatever control frames arrive between the fragments
/// (section 5.4).
#[test]
fn control_frames_come_between_fragments() {
    let stream = [
        masked(TEXT, "mur".as_bytes()),
        masked(FIN | PING, b"1"),
        masked(CONTINUATION, b""),
        masked(FIN | PONG, b""),
        masked(CONTINUATION, &"re, gr\u{fc}n".as_bytes()[..7]),
        masked(FIN | PING, b"2"),
        masked(FIN | CONTINUATION, &"re, gr\u{fc}n".as_bytes()[7..]),
        masked(FIN | BINARY, b"\xFF\xFE"),
    ]
    .concat();
    let expected = [
        Said::Ping(b"1".to_vec()),
        Said::Pong(vec![]),
        Said::Ping(b"2".to_vec()),
        text("murre, gr\u{fc}n"),
        Said::Message(Kind::Binary, vec![0xFF, 0xFE]),
    ];
    assert_eq!(said(&stream), expected);
}

/// An empty frame, which has no further byte to wait for, is decoded at once and delays no frame
/// after it.
#[test]
fn empty_frames_are_heard_at_once() {
    for last in [&b""[..], b"x"] {
        let stream = [
            masked(BINARY, b""),
            masked(CONTINUATION, b""),
            masked(CONTINUATION, b""),
            masked(FIN | CONTINUATION, last),
            masked(FIN | TEXT, b""),
            masked(FIN | PING, b""),
        ]
        .concat();
        let expected = [Said::Message(Kind::Binary, last.to_vec()), text(""), Said::Ping(vec![])];
        assert_eq!(said(&stream), expected);
    }
}

/// The limit holds for the message, not for its fragments, and is exact to the byte.
#[test]
fn messages_have_a_limit() {
    let limit = 1000;
    let whole = |len: usize| masked(FIN | BINARY, &vec![7; len]);
    let pieces = |len: usize| {
        [masked(BINARY, &[7; 400]), masked(0, &[7; 600]), masked(FIN, &vec![7; len - 1000])]
            .concat()
    };
    let too_long = Said::Broken(Violation::MessageTooLong);
    for (stream, expected) in [
        (whole(1000), Said::Message(Kind::Binary, vec![7; 1000])),
        (whole(1001), too_long.clone()),
        (pieces(1000), Said::Message(Kind::Binary, vec![7; 1000])),
        (pieces(1001), too_long),
        // The length in the header is enough to refuse.
        (whole(1001)[..8].to_vec(), Said::Broken(Violation::MessageTooLong)),
    ] {
        let mut listener = Listener::new(Role::Server, limit);
        listener.hear(&stream);
        assert_eq!(listener.said, [expected]);
    }
    // Each message has the whole limit again.
    let mut listener = Listener::new(Role::Server, limit);
    listener.hear(&[whole(1000), whole(1000)].concat());
    assert_eq!(listener.said.len(), 2);
    assert!(!listener.is_over());
}

/// The largest limit works, and lengths beyond a `u32` do not wrap.
#[test]
fn messages_without_a_limit() {
    let header = |first: u8, len: u64| [&[first, 0xFF][..], &len.to_be_bytes(), &MASK].concat();
    let max = u64::from(u32::MAX);
    for (stream, refused) in [
        (header(FIN | BINARY, max), false),
        (header(FIN | BINARY, max + 1), true),
        (header(FIN | BINARY, max + 10), true),
        (header(FIN | BINARY, u64::MAX >> 1), true),
        ([masked(BINARY, b"x"), header(FIN, max - 1)].concat(), false),
        ([masked(BINARY, b"x"), header(FIN, max)].concat(), true),
        ([masked(BINARY, b"x"), header(0, u64::MAX >> 1)].concat(), true),
    ] {
        let mut listener = Listener::new(Role::Server, u32::MAX);
        listener.hear(&stream);
        let expected = if refused { vec![Said::Broken(Violation::MessageTooLong)] } else { vec![] };
        assert_eq!(listener.said, expected, "{stream:02x?}");
    }
}

/// Of all 65,536 close codes, the decoder accepts those that RFC 6455 section 7.4 and the registry
/// allow on the wire.
#[test]
fn close_codes() {
    for code in 0..=u16::MAX {
        let allowed = match code {
            1000..=1003 | 1007..=1011 => true,  // 7.4.1
            1012..=1014 => true,                // registered later, as 11.7 provides
            1004 | 1005 | 1006 | 1015 => false, // 7.4.1: reserved, not for the wire
            3000..=4999 => true,                // 7.4.2
            _ => false,
        };
        let heard = said(&masked(FIN | CLOSE, &code.to_be_bytes()));
        let expected = match allowed {
            true => Said::Close(Some((CloseCode::from(code), String::new()))),
            false => Said::Broken(Violation::CloseCode),
        };
        assert_eq!(heard, [expected], "{code}");
        assert_eq!(u16::from(CloseCode::from(code)), code, "and is echoed as it came");
    }
    assert_eq!(Violation::CloseCode.close_code(), CloseCode::Protocol);
}

/// A close frame is empty, or has a code, or a code and a reason (section 5.5.1).
#[test]
fn close_payloads() {
    let reason = "\u{e9}".repeat(61);
    assert_eq!(said(&masked(FIN | CLOSE, b"")), [Said::Close(None)]);
    let payload = [&1001_u16.to_be_bytes(), reason.as_bytes()].concat();
    assert_eq!(payload.len(), 124);
    let expected = Said::Close(Some((CloseCode::Away, reason)));
    assert_eq!(said(&masked(FIN | CLOSE, &payload)), [expected]);
}

/// Text is refused at the first byte that makes valid UTF-8 impossible (Autobahn cases 6.4):
/// neither later nor earlier.
#[test]
fn text_fails_at_the_first_impossible_byte() {
    let start = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes();
    let (go_on, stop) = (&b"edited"[..], &b"never read"[..]);
    for (wrong, at) in [
        (&b"\xF4\x90\x80\x80"[..], 1), // beyond U+10FFFF
        (b"\xED\xA0\x80", 1),          // a surrogate
        (b"\xC0\xAF", 0),              // overlong
        (b"\xE0\x9F\xBF", 1),
        (b"\xF0\x8F\xBF\xBF", 1),
        (b"\xF5\x80\x80\x80", 0),
        (b"\xFF", 0),
        (b"\x80", 0),
        (b"\xE2\x82a", 2),
        (b"\xF0\x9F\x98a", 3),
    ] {
        let payload = [start, go_on, wrong, stop].concat();
        let good = start.len() + go_on.len() + at;
        // One frame that arrives byte by byte, and fragments of one byte.
        let one = masked(FIN | TEXT, &payload);
        let header = one.len() - payload.len();
        let fragments: Vec<_> = payload
            .iter()
            .enumerate()
            .map(|(index, byte)| masked(if index == 0 { TEXT } else { CONTINUATION }, &[*byte]))
            .collect();
        let bytes: Vec<&[u8]> =
            [&one[..header]].into_iter().chain(one[header..].chunks(1)).collect();
        let pieces: Vec<&[u8]> = fragments.iter().map(Vec::as_slice).collect();
        for (pieces, passed) in [(bytes, good + 1), (pieces, good)] {
            let mut listener = Listener::new(Role::Server, MESSAGE_BYTES_MAX);
            for piece in &pieces[..passed] {
                listener.hear(piece);
                assert_eq!(listener.said, [], "{wrong:02x?}: too early");
            }
            listener.hear(pieces[passed]);
            assert_eq!(listener.said, [Said::Broken(Violation::NotUtf8)], "{wrong:02x?}: too late");
        }
    }
}
