//! The additions of Supabase's `realtime-js` to Phoenix Channels: topics with a prefix, the configuration
//! of a join, and broadcasts and presence as events of their own (`RealtimeChannel.ts`,
//! `lib/serializer.ts`, and `user_socket.ex`, `realtime_channel.ex` of the server).

use std::borrow::Cow;
use std::str;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use murre_router::channels::{Form, Payload};

use super::decode::{BadMessage, Body, Message, string};
use super::encode::{data_member, text};
use super::refs::Ref;
use crate::hub::member_names::MemberName;
use crate::protocols::json::{self, Validator};

/// All topics begin with it; the rest is the name of a channel.
pub(crate) const TOPIC_PREFIX: &str = "realtime:";

/// The event of all broadcasts, whose own event is in the payload.
pub(crate) const BROADCAST: &str = "broadcast";

/// What the payload of a join asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinConfig<'a> {
    /// Broadcasts of the client are answered.
    pub(crate) ack: bool,
    /// Broadcasts of the client come back to it.
    pub(crate) echo: bool,
    /// Whether the client is told of the members; `None` for clients that know no such choice, which are.
    pub(crate) watches: Option<bool>,
    /// The key of the member that the client may become.
    pub(crate) key: Option<Cow<'a, str>>,
    /// Only clients with a user may join.
    pub(crate) is_private: bool,
    /// The client wants changes of a database.
    pub(crate) wants_changes: bool,
    pub(crate) token: Option<Cow<'a, str>>,
}

impl<'a> JoinConfig<'a> {
    /// Reads the payload of a join. Members that are unknown are ignored, and those that are null or
    /// missing have their defaults.
    ///
    /// # Errors
    /// The name of a member that cannot be read.
    pub(crate) fn read(body: Body<'a>) -> Result<Self, &'static str> {
        let mut config = JoinConfig::default();
        let Body::Json(json) = body else { return Ok(config) };
        for (key, value) in given(json) {
            match key {
                b"access_token" => config.token = Some(string(value).ok_or("access_token")?),
                b"config" => config.read_config(value)?,
                _ => {}
            }
        }
        Ok(config)
    }

    fn read_config(&mut self, json: &'a [u8]) -> Result<(), &'static str> {
        for (key, value) in given(json) {
            match key {
                b"private" => self.is_private = boolean(value).ok_or("private")?,
                b"postgres_changes" => {
                    let filters = value.strip_prefix(b"[");
                    self.wants_changes =
                        filters.is_none_or(|rest| json::split_first(rest).is_some());
                }
                b"broadcast" => {
                    for (key, value) in given(value) {
                        match key {
                            b"ack" => self.ack = boolean(value).ok_or("ack")?,
                            b"self" => self.echo = boolean(value).ok_or("self")?,
                            _ => {}
                        }
                    }
                }
                b"presence" => {
                    for (key, value) in given(value) {
                        match key {
                            b"enabled" => self.watches = Some(boolean(value).ok_or("enabled")?),
                            b"key" => {
                                let key = string(value).or_else(|| written(value));
                                let key = key.filter(|key| MemberName::is_key(key));
                                // An empty key is none: the server chooses.
                                self.key = Some(key.ok_or("key")?).filter(|key| !key.is_empty());
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The members of an object that are not null; none of another value.
pub(super) fn given(json: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    json::members(json).into_iter().flatten().filter(|(_, value)| *value != b"null")
}

/// A boolean, which some clients write as a string.
pub(super) fn boolean(json: &[u8]) -> Option<bool> {
    match json {
        b"true" | b"\"true\"" => Some(true),
        b"false" | b"\"false\"" => Some(false),
        _ => None,
    }
}

/// A number or a boolean as it is written, which some applications use as a key.
fn written(json: &[u8]) -> Option<Cow<'_, str>> {
    let is_scalar = matches!(json.first(), Some(b'-' | b'0'..=b'9' | b't' | b'f'));
    str::from_utf8(json).ok().filter(|_| is_scalar).map(Cow::Borrowed)
}

/// What the event `presence` of a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PresenceEvent<'a> {
    /// To be a member with these metadata, an object.
    Track(&'a [u8]),
    Untrack,
}

impl<'a> PresenceEvent<'a> {
    /// Reads the payload of the event; `None` if it asks for nothing that is known.
    pub(crate) fn read(body: Body<'a>) -> Option<Self> {
        let (event, payload) = event_and_payload(body)?;
        match &*event.to_ascii_lowercase() {
            "track" => {
                let meta = payload.unwrap_or(b"{}");
                meta.starts_with(b"{").then_some(PresenceEvent::Track(meta))
            }
            "untrack" => Some(PresenceEvent::Untrack),
            _ => None,
        }
    }
}

/// A broadcast of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broadcast<'a> {
    pub(crate) event: Cow<'a, str>,
    pub(crate) form: Form,
    /// Valid JSON, or bytes.
    pub(crate) data: &'a [u8],
}

impl<'a> Broadcast<'a> {
    /// Reads the payload of the event `broadcast`; `None` if it names no event.
    pub(crate) fn read(body: Body<'a>) -> Option<Self> {
        if let Body::Broadcast { event, form, data } = body {
            return Some(Broadcast { event: event.into(), form, data });
        }
        let (event, payload) = event_and_payload(body)?;
        Some(Broadcast { event, form: Form::Json, data: payload.unwrap_or(b"{}") })
    }
}

/// The members `event` and `payload` of a payload: `{"type":T,"event":E,"payload":P}`.
fn event_and_payload(body: Body<'_>) -> Option<(Cow<'_, str>, Option<&[u8]>)> {
    let Body::Json(json) = body else { return None };
    let (mut event, mut payload) = (None, None);
    for (key, value) in json::members(json)? {
        match key {
            b"event" => event = string(value),
            b"payload" => payload = Some(value),
            _ => {}
        }
    }
    Some((event?, payload))
}

/// The token of an `access_token` event; `None` for null and for a payload without one.
pub(crate) fn token(body: Body<'_>) -> Option<Cow<'_, str>> {
    let Body::Json(json) = body else { return None };
    given(json)
        .filter(|(key, _)| *key == b"access_token")
        .last()
        .and_then(|(_, value)| string(value))
}

/// Whether a token names a user. Those that Supabase calls keys, such as that of the role `anon`, name
/// none and are no credentials here: they are not checked, and give no rights.
pub(crate) fn names_user(token: &str) -> bool {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.filter(|claims| json::check(claims).is_ok()).unwrap_or_default();
    json::members(&claims).is_some_and(|mut members| members.any(|(key, _)| key == b"sub"))
}

/// The first byte of a broadcast of a client: the lengths of join ref, ref, topic, event and metadata
/// follow, the encoding of the payload, then the fields.
const CLIENT_BROADCAST: u8 = 3;
/// The first byte of a broadcast to a client: the lengths of topic, event and metadata follow, the
/// encoding of the payload, then the fields.
const SERVER_BROADCAST: u8 = 4;
/// The encodings of payloads.
const BYTES: u8 = 0;
const JSON: u8 = 1;

/// Whether a binary message of a client is a broadcast.
pub(crate) fn is_broadcast(message: &[u8]) -> bool {
    message.first() == Some(&CLIENT_BROADCAST)
}

/// Decodes a binary broadcast of a client.
///
/// # Errors
/// The message is shorter than its lengths, or its payload is not JSON though it says so.
pub(crate) fn read<'a>(
    message: &'a [u8],
    validator: &mut Validator,
) -> Result<Message<'a>, BadMessage> {
    let read = || {
        let (&header, mut rest) = message.split_first_chunk::<7>()?;
        let [CLIENT_BROADCAST, lengths @ .., encoding] = header else { return None };
        let mut field = |length: u8| {
            let (field, after) = rest.split_at_checked(usize::from(length))?;
            rest = after;
            str::from_utf8(field).ok()
        };
        let [join_ref, reference, topic, event, metadata] = lengths.map(&mut field);
        metadata?;
        let form = match encoding {
            BYTES => Form::Binary,
            JSON => Form::Json,
            _ => return None,
        };
        Some(Message {
            join_ref: Ref::of_text(join_ref?),
            reference: Ref::of_text(reference?),
            topic: topic?.into(),
            event: BROADCAST.into(),
            body: Body::Broadcast { event: event?, form, data: rest },
        })
    };
    let message = read().ok_or(BadMessage::Form)?;
    if let Body::Broadcast { form: Form::Json, data, .. } = message.body {
        validator.check(data).map_err(BadMessage::from)?;
    }
    Ok(message)
}

/// Appends the payload of a broadcast to a client: `{"type":"broadcast","event":E,"payload":P}`. Data
/// without an event are a member of P.
pub(super) fn envelope(out: &mut Vec<u8>, event: &str, payload: &Payload, is_event: bool) {
    out.extend_from_slice(b"{\"type\":\"broadcast\",\"event\":");
    text(out, event);
    out.extend_from_slice(b",\"payload\":");
    match payload.form {
        Form::Json if is_event => out.extend_from_slice(payload.data()),
        _ => data_member(out, payload),
    }
    out.push(b'}');
}

/// Appends a binary broadcast to a client.
pub(super) fn write_binary(out: &mut Vec<u8>, topic: &str, event: &str, data: &[u8]) {
    let length = |field: &str| u8::try_from(field.len()).expect("topics and events have 255 bytes");
    out.extend_from_slice(&[SERVER_BROADCAST, length(topic), length(event), 0, BYTES]);
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(data);
}

/// Appends the payload of an event `system` about an error of a channel.
pub(crate) fn system_error(out: &mut Vec<u8>, channel: &str, why: &str) {
    out.extend_from_slice(b"{\"extension\":\"system\",\"status\":\"error\",\"message\":");
    text(out, why);
    out.extend_from_slice(b",\"channel\":");
    text(out, channel);
    out.push(b'}');
}

/// Appends the members of the response to a join.
pub(super) fn joined(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"postgres_changes\":[]");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload of a join, with and without what is optional, with booleans of both forms. What cannot
    /// be read is no default.
    #[test]
    fn configurations() {
        let read = |json: &'static str| JoinConfig::read(Body::Json(json.as_bytes()));
        let default = JoinConfig::default;
        for json in [
            "{}",
            "null",
            r#"{"config":{}}"#,
            r#"{"config":{"broadcast":{"ack":false,"self":null},"presence":{"key":""},"postgres_changes":[ ]}}"#,
        ] {
            assert_eq!(read(json), Ok(default()), "{json}");
        }
        let all = r#"{"access_token":"t","config":{"private":"true","postgres_changes":[{}],
            "presence":{"enabled":true,"key":"a,\u0062"},"broadcast":{"self":true,"ack":"true"}}}"#;
        let expected = JoinConfig {
            ack: true,
            echo: true,
            watches: Some(true),
            key: Some("a,b".into()),
            is_private: true,
            wants_changes: true,
            token: Some("t".into()),
        };
        assert_eq!(read(all), Ok(expected));
        for (key, expected) in
            [("42", "42"), ("-1.50", "-1.50"), ("true", "true"), ("false", "false")]
        {
            let json = format!(r#"{{"config":{{"presence":{{"key":{key},"enabled":false}}}}}}"#);
            let read = JoinConfig::read(Body::Json(json.as_bytes())).expect(key);
            assert_eq!((read.key.as_deref(), read.watches), (Some(expected), Some(false)));
        }
        for (json, wrong) in [
            (r#"{"access_token":7}"#, "access_token"),
            (r#"{"config":{"private":1}}"#, "private"),
            (r#"{"config":{"broadcast":{"ack":"yes"}}}"#, "ack"),
            (r#"{"config":{"broadcast":{"self":[]}}}"#, "self"),
            (r#"{"config":{"presence":{"enabled":0}}}"#, "enabled"),
            (r#"{"config":{"presence":{"key":[7]}}}"#, "key"),
            (r#"{"config":{"presence":{"key":{}}}}"#, "key"),
            (r#"{"config":{"presence":{"key":"\n"}}}"#, "key"),
        ] {
            assert_eq!(read(json), Err(wrong), "{json}");
        }
    }

    /// Events of clients, and those that are none.
    #[test]
    fn events() {
        let broadcast = |json: &'static str| Broadcast::read(Body::Json(json.as_bytes()));
        let is = |event: &'static str, data: &'static [u8]| {
            Some(Broadcast { event: event.into(), form: Form::Json, data })
        };
        let json = r#"{"type":"broadcast","event":"cursor","payload":{"x": 1}}"#;
        assert_eq!(broadcast(json), is("cursor", br#"{"x": 1}"#));
        assert_eq!(broadcast(r#"{"event":"e"}"#), is("e", b"{}"));
        for none in ["{}", "[]", "1", r#"{"event":7,"payload":{}}"#] {
            assert_eq!(broadcast(none), None, "{none}");
        }
        let presence = |json: &'static str| PresenceEvent::read(Body::Json(json.as_bytes()));
        let track = PresenceEvent::Track(br#"{"a":1}"#);
        assert_eq!(presence(r#"{"event":"track","payload":{"a":1}}"#), Some(track));
        assert_eq!(presence(r#"{"event":"track"}"#), Some(PresenceEvent::Track(b"{}")));
        assert_eq!(presence(r#"{"event":"untrack"}"#), Some(PresenceEvent::Untrack));
        assert_eq!(presence(r#"{"event":"UnTrack"}"#), Some(PresenceEvent::Untrack));
        for none in ["{}", r#"{"event":"track","payload":1}"#, r#"{"event":"x"}"#] {
            assert_eq!(presence(none), None, "{none}");
        }
        let of = |json: &'static str| token(Body::Json(json.as_bytes()));
        assert_eq!(of(r#"{"access_token":"t"}"#).as_deref(), Some("t"));
        assert_eq!((of(r#"{"access_token":null}"#), of("{}")), (None, None));
    }

    /// A binary broadcast, byte by byte, and those that are refused.
    #[test]
    fn binary_broadcasts() {
        let mut validator = Validator::default();
        let message = b"\x03\x01\x01\x0a\x06\0\x0114realtime:rcursor{\"x\":1}";
        let read = super::read(message, &mut validator).expect("a broadcast");
        assert_eq!((read.join_ref.json(), read.reference.json()), ("\"1\"", "\"4\""));
        assert_eq!((&*read.topic, &*read.event), ("realtime:r", "broadcast"));
        let (form, data) = (Form::Json, &b"{\"x\":1}"[..]);
        assert_eq!(read.body, Body::Broadcast { event: "cursor", form, data });
        let mut out = Vec::new();
        write_binary(&mut out, "realtime:r", "cursor", b"\xff");
        assert_eq!(out, b"\x04\x0a\x06\0\0realtime:rcursor\xff");
        super::super::known_clients::check_binary(&out);
        for (wrong, why) in [
            (&b"\x03"[..], BadMessage::Form),
            (b"\x03\0\0\0\0\0", BadMessage::Form),
            (b"\x03\0\0\0\x01\0\0", BadMessage::Form),
            (b"\x03\0\0\0\0\0\x02", BadMessage::Form),
            (b"\x03\0\0\0\0\x01\0\xff", BadMessage::Form),
            (b"\x03\0\0\0\0\0\x01{", BadMessage::Json),
            (b"\x03\0\0\0\0\0\x01", BadMessage::Json),
        ] {
            assert_eq!(super::read(wrong, &mut validator).err(), Some(why), "{wrong:?}");
        }
        assert!(super::read(b"\x03\0\0\0\0\0\0", &mut validator).is_ok());
    }

    /// Publications of all forms as broadcasts, in both versions.
    #[test]
    fn publications() {
        use murre_codec::Kind;
        use murre_router::channels::Publication;

        use super::super::{Dialect, encode, known_clients};
        use crate::hub::event::Event;

        let json = |text: &str| Payload::new(Form::Json, text.as_bytes());
        let event = |form, text: &str| Event::new("e").expect("one").payload(form, text.as_bytes());
        for (payload, expected) in [
            (event(Form::Json, r#"{"n":1.50}"#), r#""event":"e","payload":{"n":1.50}"#),
            (event(Form::Json, "7"), r#""event":"e","payload":7"#),
            (event(Form::Binary, "abc"), r#""event":"e","payload":{"binary":"YWJj"}"#),
            (json(r#"{"event":"x","payload":{"a":1}}"#), r#""event":"x","payload":{"a":1}"#),
            (json("[1]"), r#""event":"publication","payload":{"data":[1]}"#),
        ] {
            let is_binary = payload.form == Form::Binary;
            let channel = "r".into();
            let publication = Publication { channel, position: None, payload, except: None };
            let written = |dialect| {
                let mut out = Vec::new();
                (encode::publication(&mut out, dialect, &publication), out)
            };
            let envelope = format!(r#"{{"type":"broadcast",{expected}}}"#);
            let v1 = format!(
                r#"{{"topic":"realtime:r","event":"broadcast","payload":{envelope},"ref":null}}"#
            );
            known_clients::check(&v1);
            assert_eq!(written(Dialect::SupabaseV1), (Kind::Text, v1.into_bytes()));
            let v2 = format!(r#"[null,null,"realtime:r","broadcast",{envelope}]"#);
            known_clients::check(&v2);
            let v2 = match is_binary {
                true => (Kind::Binary, b"\x04\x0a\x01\0\0realtime:reabc".to_vec()),
                false => (Kind::Text, v2.into_bytes()),
            };
            assert_eq!(written(Dialect::SupabaseV2), v2);
        }
    }
}
