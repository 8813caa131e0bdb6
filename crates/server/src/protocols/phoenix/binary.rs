//! Binary messages of version 2. A header has the kind and the lengths of the fields, a byte each; the
//! fields follow in the order of their lengths, then the payload up to the end
//! (`lib/phoenix/socket/serializers/v2_json_serializer.ex`).

use std::str;

use super::decode::{BadMessage, Body, Message};
use super::refs::{self, Ref};

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

/// Decodes a push of a client.
///
/// # Errors
/// The message is no push, or is shorter than its lengths.
pub(crate) fn read(message: &[u8]) -> Result<Message<'_>, BadMessage> {
    let read = || {
        let (&header, mut rest) = message.split_first_chunk::<5>()?;
        let [PUSH, lengths @ ..] = header else { return None };
        let mut field = |length: u8| {
            let (field, after) = rest.split_at_checked(usize::from(length))?;
            rest = after;
            str::from_utf8(field).ok()
        };
        let [join_ref, reference, topic, event] = lengths.map(&mut field);
        Some(Message {
            join_ref: Ref::of_text(join_ref?),
            reference: Ref::of_text(reference?),
            topic: topic?.into(),
            event: event?.into(),
            body: Body::Binary(rest),
        })
    };
    read().ok_or(BadMessage::Form)
}

/// Appends a reply. Refs are JSON text, as they are kept.
pub(super) fn reply(
    out: &mut Vec<u8>,
    (join_ref, reference): (&str, &str),
    topic: &str,
    status: &str,
    response: &[u8],
) {
    let [join_ref, reference] = [join_ref, reference].map(refs::binary_text);
    write(out, REPLY, &[&join_ref, &reference, topic, status], response);
}

/// Appends a push for one client, which has no ref.
#[allow(dead_code, reason = "the server sends no such message yet")]
pub(super) fn push(out: &mut Vec<u8>, join_ref: &str, topic: &str, event: &str, payload: &[u8]) {
    write(out, PUSH, &[&refs::binary_text(join_ref), topic, event], payload);
}

/// Appends a publication for all subscribers.
pub(super) fn broadcast(out: &mut Vec<u8>, topic: &str, event: &str, payload: &[u8]) {
    write(out, BROADCAST, &[topic, event], payload);
}

fn write(out: &mut Vec<u8>, kind: u8, fields: &[&str], payload: &[u8]) {
    out.push(kind);
    for field in fields {
        out.push(
            u8::try_from(field.len()).expect("topics, events and refs have at most 255 bytes"),
        );
    }
    fields.iter().for_each(|field| out.extend_from_slice(field.as_bytes()));
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("digits"), 16);
        digits.chunks(2).map(|pair| byte(pair).expect("a byte")).collect()
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    /// The messages of Phoenix's own test, byte by byte
    /// (`test/phoenix/socket/v2_json_serializer_test.exs`).
    #[test]
    fn the_messages_of_the_original_test() {
        let push = hex("00 02 03 05 05 3132 313233 746f706963 6576656e74 656667");
        let message = read(&push).expect("a push");
        assert_eq!((message.join_ref.json(), message.reference.json()), ("\"12\"", "\"123\""));
        assert_eq!((&*message.topic, &*message.event), ("topic", "event"));
        assert_eq!(message.body, Body::Binary(b"efg"));
        assert_eq!(
            written(|out| self::push(out, "\"12\"", "topic", "event", b"efg")),
            hex("00 02 05 05 3132 746f706963 6576656e74 656667")
        );
        assert_eq!(
            written(|out| reply(out, ("\"12\"", "\"123\""), "topic", "ok", b"efg")),
            hex("01 02 03 05 02 3132 313233 746f706963 6f6b 656667")
        );
        assert_eq!(
            written(|out| broadcast(out, "topic", "event", b"efg")),
            hex("02 05 05 746f706963 6576656e74 656667")
        );
    }

    /// Lengths count bytes of UTF-8, and empty fields are refs that are null.
    #[test]
    fn lengths_are_bytes() {
        let message = read("\0\x04\0\x0a\x01🚀room:cafée".as_bytes());
        let message = message.expect("a push");
        assert_eq!((message.join_ref.json(), message.reference.json()), ("\"🚀\"", "null"));
        assert_eq!((&*message.topic, &*message.event), ("room:café", "e"));
        assert_eq!(message.body, Body::Binary(b""));
        let long = "n".repeat(255);
        let quoted = format!("\"{long}\"");
        let frame = written(|out| reply(out, (&quoted, &quoted), &long, &long, b"x"));
        assert_eq!((&frame[..5], frame.len()), (&[1, 255, 255, 255, 255][..], 5 + 4 * 255 + 1));
    }

    /// Other kinds, lengths that exceed the message, and fields that are no text are refused.
    #[test]
    fn wrong_ones_are_refused() {
        for message in [
            &b""[..],
            b"\0",
            b"\0\0\0\0",
            b"\0\0\0\x02\0a",
            b"\0\xff\xff\xff\xffa",
            b"\x01\0\0\0\0",
            b"\x02\0\0\0\0",
            b"\x03\0\0\0\0\0\0",
            b"\0\0\0\x01\0\xff",
        ] {
            assert_eq!(read(message), Err(BadMessage::Form), "{message:?}");
        }
        assert!(read(b"\0\0\0\0\0").is_ok(), "its topic is empty, which no channel's name is");
    }
}
