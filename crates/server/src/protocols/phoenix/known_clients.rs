//! What known clients read, as a checker of every message to a client. Tests of this crate and of the
//! binary use it.

use serde_json::Value;

/// Whether the client in Java reads a message of version 2, and as what (`Defaults.kt` of
/// JavaPhoenixClient): the fields lie between the first four commas, null is `null`, and the payload is
/// the rest without its last character.
pub(crate) fn java_reads(text: &str) -> Option<[Value; 5]> {
    let mut rest = text.strip_prefix('[')?;
    let mut field = || {
        let (field, after) = rest.split_once(',')?;
        rest = after;
        match field {
            "null" => Some(Value::Null),
            // All quotes are removed, so a text with an escape would be another.
            quoted => {
                let text = quoted.strip_prefix('"')?.strip_suffix('"')?;
                (!text.contains(['"', '\\'])).then(|| Value::from(text))
            }
        }
    };
    let [join_ref, reference, topic, event] = [field()?, field()?, field()?, field()?];
    let payload: Value = serde_json::from_str(rest.strip_suffix(']')?).ok()?;
    payload.is_object().then_some([join_ref, reference, topic, event, payload])
}

/// Whether the client in Swift reads a message of version 2, and as what (`Message.swift` of
/// SwiftPhoenixClient).
pub(crate) fn swift_reads(text: &str) -> Option<[Value; 5]> {
    let message: [Value; 5] = serde_json::from_str(text).ok()?;
    let [join_ref, reference, topic, event, payload] = &message;
    let right = is_text(join_ref) && is_text(reference) && topic.is_string() && event.is_string();
    (right && payload.is_object()).then_some(message)
}

/// Whether a ref is one that known clients make.
fn is_text(reference: &Value) -> bool {
    reference.is_null() || reference.is_string()
}

/// Checks a text message of any version: the client in npm reads it, and so do those in Java and Swift if
/// it has refs, a topic and an event that they can make themselves.
pub(crate) fn check(text: &str) {
    match serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")) {
        Value::Object(message) => {
            let keys: Vec<&str> = message.keys().map(String::as_str).collect();
            assert_eq!(keys, ["event", "payload", "ref", "topic"], "{text}");
            assert!(message["topic"].is_string() && message["event"].is_string(), "{text}");
            check_payload(&message["event"], &message["payload"], text);
        }
        Value::Array(message) => {
            let message: [Value; 5] = message.try_into().expect("five elements");
            let [join_ref, reference, topic, event, payload] = &message;
            assert!(topic.is_string() && event.is_string(), "{text}");
            check_payload(event, payload, text);
            if !is_text(join_ref) || !is_text(reference) {
                return;
            }
            assert_eq!(swift_reads(text).as_ref(), Some(&message), "Swift: {text}");
            let is_plain = |field: &Value| {
                let text = field.as_str().unwrap_or_default();
                !text.contains(|c: char| c.is_control() || ",\"\\".contains(c))
            };
            if message[..4].iter().all(is_plain) {
                assert_eq!(java_reads(text).as_ref(), Some(&message), "Java: {text}");
            }
        }
        _ => panic!("{text} is no message"),
    }
}

/// Checks the payload of an event of the server.
fn check_payload(event: &Value, payload: &Value, text: &str) {
    assert!(payload.is_object(), "{text}");
    match event.as_str() {
        Some("phx_reply") => {
            assert!(payload["status"] == "ok" || payload["status"] == "error", "{text}");
            assert!(payload["response"].is_object(), "{text}");
        }
        Some("presence_state") => check_members(payload, text),
        Some("presence_diff") => {
            assert_eq!(payload.as_object().map(|members| members.len()), Some(2), "{text}");
            check_members(&payload["joins"], text);
            check_members(&payload["leaves"], text);
        }
        Some("presence_count") => {
            assert!(payload["clients"].is_u64() && payload["users"].is_u64(), "{text}");
        }
        _ => {}
    }
}

/// Checks members by key: each has metas, which are objects with a reference of their own.
fn check_members(members: &Value, text: &str) {
    for (_, member) in members.as_object().unwrap_or_else(|| panic!("{text}")) {
        let metas = member["metas"].as_array().unwrap_or_else(|| panic!("{text}"));
        let refs: Vec<_> = metas.iter().map(|meta| meta["phx_ref"].as_str()).collect();
        assert!(!refs.is_empty() && refs.iter().all(Option::is_some), "{text}");
        let differ = refs.iter().enumerate().all(|(at, one)| !refs[..at].contains(one));
        assert!(differ, "{text}");
    }
}

/// Checks a binary message of version 2, whose fields have the lengths of its header and are text
/// (`assets/js/phoenix/serializer.js`; kind 4 is in `src/lib/serializer.ts` of realtime-js).
pub(crate) fn check_binary(message: &[u8]) {
    let (fields, encodings) = match message.first() {
        Some(0) => (3, 0),
        Some(1) => (4, 0),
        Some(2) => (2, 0),
        Some(4) => (3, 1),
        kind => panic!("{kind:?} is no kind of binary messages"),
    };
    let lengths = message.get(1..=fields).expect("a header");
    let (encoding, mut rest) = message[1 + fields..].split_at_checked(encodings).expect("a header");
    assert!(encoding.iter().all(|encoding| *encoding < 2), "{message:?}");
    for length in lengths {
        let (field, after) = rest.split_at_checked(usize::from(*length)).expect("a field");
        assert!(str::from_utf8(field).is_ok(), "{message:?}");
        rest = after;
    }
}
