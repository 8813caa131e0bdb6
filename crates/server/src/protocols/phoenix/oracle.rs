//! What any bytes come to as a message, beside serde_json. Also the oracle of a fuzz target.

use std::str;

use serde_json::Value;

use super::decode::{self, BadMessage, Body, JoinParams, Message};
use super::refs::{Asked, Request};
use super::supabase::{Broadcast, JoinConfig, PresenceEvent};
use super::{Dialect, binary, rest, supabase};
use crate::protocols::json::{JsonError, Validator};

/// Any bytes: the first chooses how the rest is read.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&how, message)) = bytes.split_first() else { return };
    let mut validator = Validator::default();
    let read = match how {
        b'1' => text(message, Dialect::V1, &mut validator),
        b'2' => text(message, Dialect::V2, &mut validator),
        b'3' => supabase::read(message, &mut validator),
        b'4' => return over_http(message),
        _ => binary::read(message),
    };
    let Ok(Message { join_ref, reference, topic, event, body }) = read else { return };
    // What is read fits a request id, and comes out of it.
    if !topic.contains(char::is_control) {
        let (join_ref, reference) = (join_ref.json(), reference.json());
        let request =
            Request { asked: Asked::Push, join_ref, reference, topic: &topic, replaces: None };
        assert_eq!(Request::of(&request.id()), Some(request));
    }
    for reference in [&join_ref, &reference] {
        let value: Value = serde_json::from_str(reference.json()).expect("a ref is JSON");
        assert!(value.is_null() || value.is_string() || value.is_number());
    }
    assert!(topic.len() <= message.len());
    // The event of a binary broadcast of Supabase's client is not in the message.
    assert!(event.len() <= message.len() || event == supabase::BROADCAST);
    let params = JoinParams::read(body);
    _ = (params.as_ref().map(JoinParams::presence), JoinConfig::read(body));
    _ = (PresenceEvent::read(body), Broadcast::read(body), supabase::token(body));
    if let Body::Json(json) = body {
        let payload: Value = serde_json::from_slice(json).expect("a payload is JSON");
        if let Ok(JoinParams { token: Some(token), .. }) = params {
            let given = ["token", "access_token"].map(|key| payload[key].as_str());
            // A member whose name is escaped is not found.
            assert!(given.contains(&Some(&token)) || str::from_utf8(json).is_ok());
        }
    }
}

/// Any bytes as the body of broadcasts over HTTP, and as the path of one.
fn over_http(bytes: &[u8]) {
    for broadcast in rest::several(bytes).unwrap_or_default() {
        let payload: Value = serde_json::from_slice(&broadcast.data).expect("a payload is JSON");
        assert!(payload.is_object() && !broadcast.channel.is_empty());
    }
    let path = str::from_utf8(bytes).unwrap_or_default();
    if let Ok(one) = rest::single(path, None, None, b"{}") {
        assert!(one.channel.len() <= path.len() && one.event.len() <= path.len());
    }
}

/// Reads a text message, which must be read if serde_json finds the form of its version.
fn text<'a>(
    message: &'a [u8],
    dialect: Dialect,
    validator: &mut Validator,
) -> Result<Message<'a>, BadMessage> {
    let read = decode::text(message, dialect, validator);
    let valid = validator.check(message);
    assert_eq!(read == Err(BadMessage::Json), valid == Err(JsonError::Malformed));
    if let (Ok(message), Ok(Value::Array(parts)), Dialect::V2) =
        (&read, serde_json::from_slice(message), dialect)
    {
        let part = |at: usize| parts.get(at).and_then(Value::as_str);
        assert_eq!((part(2), part(3)), (Some(&*message.topic), Some(&*message.event)));
        let Body::Json(json) = message.body else { panic!("a text has no bytes") };
        assert_eq!(serde_json::from_slice::<Value>(json).ok().as_ref(), parts.get(4));
    }
    read
}
