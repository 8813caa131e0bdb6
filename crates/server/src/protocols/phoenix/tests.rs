//! Messages byte by byte, and the parsers of known clients as a checker of every message.

use std::sync::Arc;

use murre_codec::Kind;
use murre_router::channels::{Form, Payload, Position, Publication, Recovery};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::decode::{self, BadMessage, Body, JoinParams, Message};
use super::encode::{self, Status};
use super::refs::{Asked, Request};
use super::{Dialect, binary};
use crate::hub::event::Event;
use crate::hub::{Error, ErrorCode, Reply, RequestId};
use crate::protocols::json::Validator;

const DIALECTS: [Dialect; 3] = [Dialect::V1, Dialect::V2, Dialect::V2Text];

fn read(text: &str, dialect: Dialect) -> Result<Message<'_>, BadMessage> {
    decode::text(text.as_bytes(), dialect, &mut Validator::default())
}

/// The text messages that a reply of the hub becomes.
fn replied(dialect: Dialect, id: &RequestId, reply: Reply<'_>) -> Vec<String> {
    let mut messages = Vec::new();
    encode::hub_reply(&mut Vec::new(), dialect, id, reply, |kind, message| {
        assert_eq!(kind, Kind::Text);
        messages.push(String::from_utf8(message.to_vec()).expect("text"));
    });
    messages
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("text")
}

fn published(payload: Payload) -> Publication {
    Publication { channel: Arc::from("room:lobby"), position: None, payload, except: None }
}

fn request<'a>(
    asked: Asked,
    join_ref: &'a str,
    reference: &'a str,
    replaces: Option<&'a str>,
) -> Request<'a> {
    Request { asked, join_ref, reference, topic: "room:lobby", replaces }
}

const SUBSCRIBED: Reply<'_> = Reply::Subscribed { channel: "room:lobby", recovery: None };
const PUBLISHED: Reply<'_> = Reply::Published { channel: "room:lobby", position: None };
const UNSUBSCRIBED: Reply<'_> = Reply::Unsubscribed { channel: "room:lobby" };

/// Messages of version 2 to the client, byte by byte.
#[test]
fn version_2() {
    let replied = |request: Request<'_>, reply| replied(Dialect::V2, &request.id(), reply);
    let join = request(Asked::Join, "\"1\"", "\"1\"", None);
    let ok = r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(replied(join, SUBSCRIBED), [ok]);
    let push = request(Asked::Push, "\"1\"", "\"2\"", None);
    let ok = r#"["1","2","room:lobby","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(replied(push, PUBLISHED), [ok]);
    let message = Event::new("new_msg").expect("an event").payload(Form::Json, br#"{"body":"hi"}"#);
    assert_eq!(
        written(|out| _ = encode::publication(out, Dialect::V2, &published(message))),
        r#"[null,null,"room:lobby","new_msg",{"body":"hi"}]"#
    );
    let heartbeat = written(|out| {
        let refs = ("null", "\"3\"");
        encode::reply(out, Dialect::V2, refs, "phoenix", Status::Ok, encode::nothing);
    });
    assert_eq!(heartbeat, r#"[null,"3","phoenix","phx_reply",{"status":"ok","response":{}}]"#);
    let unmatched = written(|out| {
        let refs = ("null", "\"4\"");
        let response = |out: &mut Vec<u8>| encode::reason(out, super::errors::UNMATCHED_TOPIC);
        encode::reply(out, Dialect::V2, refs, "nowhere", Status::Error, response);
    });
    assert_eq!(
        unmatched,
        r#"[null,"4","nowhere","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#
    );
    let again = request(Asked::Join, "\"7\"", "\"7\"", Some("\"1\""));
    let expected = [
        r#"["7","7","room:lobby","phx_reply",{"status":"ok","response":{}}]"#,
        r#"["1","1","room:lobby","phx_close",{}]"#,
    ];
    assert_eq!(replied(again, SUBSCRIBED), expected);
    let leave = request(Asked::Leave, "\"7\"", "\"9\"", None);
    let expected = [
        r#"["7","9","room:lobby","phx_reply",{"status":"ok","response":{}}]"#,
        r#"["7","7","room:lobby","phx_close",{}]"#,
    ];
    assert_eq!(replied(leave, UNSUBSCRIBED), expected);
    let here = Position { epoch: 7, offset: 9 };
    for (recovered, more) in [(None, ""), (Some(true), r#","recovered":true"#)] {
        let recovery = Some(Recovery { position: here, recovered });
        let reply = Reply::Subscribed { channel: "room:lobby", recovery };
        let response = format!(r#"{{"position":{{"epoch":7,"offset":9}}{more}}}"#);
        let expected = format!(
            r#"["1","1","room:lobby","phx_reply",{{"status":"ok","response":{response}}}]"#
        );
        assert_eq!(replied(join, reply), [expected]);
    }
    let refused = Reply::Error(ErrorCode::NotAllowed.into());
    let expected = r#"["1","2","room:lobby","phx_reply",{"status":"error","response":{"reason":"not_allowed"}}]"#;
    assert_eq!(replied(push, refused), [expected]);
    let failed = Error { detail: Some("no \"such\" room"), ..ErrorCode::ResponderFailed.into() };
    let expected = r#"["1","2","room:lobby","phx_reply",{"status":"error","response":{"reason":"no \"such\" room"}}]"#;
    assert_eq!(replied(push, Reply::Error(failed)), [expected]);
    assert_eq!(
        written(|out| encode::dropped(out, Dialect::V2, "room:lobby", 3)),
        r#"[null,null,"room:lobby","dropped",{"count":3}]"#
    );
    assert_eq!(
        written(|out| encode::ended(
            out,
            Dialect::V2,
            "room:lobby",
            ErrorCode::TokenExpired.into()
        )),
        r#"[null,null,"room:lobby","phx_close",{"reason":"token_expired"}]"#
    );
    assert!(super::tests::replied(Dialect::V2, &RequestId::None, UNSUBSCRIBED).is_empty());
}

/// Messages of version 1 to the client, byte by byte.
#[test]
fn version_1() {
    let ok = |reference: &str| {
        format!(
            r#"{{"topic":"room:lobby","event":"phx_reply","payload":{{"status":"ok","response":{{}}}},"ref":{reference}}}"#
        )
    };
    let join = request(Asked::Join, "null", "\"1\"", None).id();
    assert_eq!(replied(Dialect::V1, &join, SUBSCRIBED), [ok("\"1\"")]);
    let payload = Event::new("e").expect("an event").payload(Form::Json, b"{}");
    assert_eq!(
        written(|out| _ = encode::publication(out, Dialect::V1, &published(payload))),
        r#"{"topic":"room:lobby","event":"e","payload":{},"ref":null}"#
    );
    let leave = request(Asked::Leave, "null", "2", None).id();
    let close = r#"{"topic":"room:lobby","event":"phx_close","payload":{},"ref":null}"#;
    assert_eq!(replied(Dialect::V1, &leave, UNSUBSCRIBED), [&*ok("2"), close]);
}

/// Pushes of presence (px_pubsub's and the client's `presence.js`), byte by byte: the place where they
/// will be sent is not there yet.
#[test]
fn presence() {
    let state = br#"{"u1":{"metas":[{"phx_ref":"AAAA","online_at":1}]}}"#;
    let diff = br#"{"joins":{"u2":{"metas":[{"phx_ref":"BBBB"}]}},"leaves":{}}"#;
    let pushed = |join_ref, event, payload: &'static [u8]| {
        written(|out| {
            encode::push(out, Dialect::V2, join_ref, "room:lobby", event, |out| {
                out.extend_from_slice(payload);
            });
        })
    };
    assert_eq!(
        pushed("\"1\"", "presence_state", state),
        r#"["1",null,"room:lobby","presence_state",{"u1":{"metas":[{"phx_ref":"AAAA","online_at":1}]}}]"#
    );
    assert_eq!(
        pushed("null", "presence_diff", diff),
        r#"[null,null,"room:lobby","presence_diff",{"joins":{"u2":{"metas":[{"phx_ref":"BBBB"}]}},"leaves":{}}]"#
    );
}

/// Publications of other protocols: data that has the form of an event is one, and all else is the
/// event `publication`.
#[test]
fn publications_of_others() {
    let json = |text: &str| Payload::new(Form::Json, text.as_bytes());
    let binary = |text: &str| Payload::new(Form::Binary, text.as_bytes());
    let with_event =
        |form, text: &str| Event::new("e").expect("an event").payload(form, text.as_bytes());
    for (payload, event, expected) in [
        (json(r#"{"event":"x","payload":{"a":[1]}}"#), "x", r#"{"a":[1]}"#),
        (json(r#"{"payload":{},"event":"\u0078,"}"#), "x,", "{}"),
        (
            json(r#"{"event":"x","payload":5}"#),
            "publication",
            r#"{"data":{"event":"x","payload":5}}"#,
        ),
        (
            json(r#"{"event":"phx_close","payload":{}}"#),
            "publication",
            r#"{"data":{"event":"phx_close","payload":{}}}"#,
        ),
        (
            json(r#"{"event":"x","payload":{},"more":1}"#),
            "publication",
            r#"{"data":{"event":"x","payload":{},"more":1}}"#,
        ),
        (json("{}"), "publication", r#"{"data":{}}"#),
        (json("7"), "publication", r#"{"data":7}"#),
        (with_event(Form::Json, "7"), "e", r#"{"data":7}"#),
        (
            with_event(Form::Json, r#"{"event":"x","payload":{}}"#),
            "e",
            r#"{"event":"x","payload":{}}"#,
        ),
        (binary("abc"), "publication", r#"{"binary":"YWJj"}"#),
        (with_event(Form::Binary, "abc"), "e", r#"{"binary":"YWJj"}"#),
    ] {
        let publication = published(payload);
        let text = written(|out| _ = encode::publication(out, Dialect::V2Text, &publication));
        let event = Value::from(event);
        assert_eq!(text, format!(r#"[null,null,"room:lobby",{event},{expected}]"#));
        let form = publication.payload.form;
        let mut out = Vec::new();
        let kind = encode::publication(&mut out, Dialect::V2, &publication);
        assert_eq!(kind == Kind::Binary, form == Form::Binary, "{text}");
        if kind == Kind::Binary {
            let event = event.as_str().expect("a text");
            let head = [2, 10, event.len() as u8];
            assert_eq!(out, [&head, &b"room:lobby"[..], event.as_bytes(), b"abc"].concat());
        }
    }
}

/// Messages of clients, of both versions, with and without what is optional.
#[test]
fn messages_of_clients() {
    let text = r#" [ "1" , 2 , "room:lobby" , "new\u005fmsg" , { "body" : "hi" } , "more" ] "#;
    let message = read(text, Dialect::V2).expect("a message");
    assert_eq!((message.join_ref.json(), message.reference.json()), ("\"1\"", "2"));
    assert_eq!((&*message.topic, &*message.event), ("room:lobby", "new_msg"));
    assert_eq!(message.body, Body::Json(br#"{ "body" : "hi" }"#));
    let text = r#"{"topic":"a","event":"phx_join","payload":{},"ref":"1","topic":"room:a"}"#;
    let message = read(text, Dialect::V1).expect("a message");
    assert_eq!((message.join_ref.json(), message.reference.json()), ("null", "\"1\""));
    assert_eq!((&*message.topic, &*message.event), ("room:a", "phx_join"));
    let text = r#"{"topic":"a","event":"e","payload":null,"ref":null,"join_ref":"7"}"#;
    let message = read(text, Dialect::V1).expect("a message");
    assert_eq!((message.join_ref.json(), message.body), ("\"7\"", Body::Json(b"null")));
}

/// What is not JSON, and JSON of another form, is told apart.
#[test]
fn messages_that_cannot_be_read() {
    for text in ["", "[", r#"["1","1","a","b",{}"#, "nul", "[1e400]"] {
        for dialect in DIALECTS {
            assert_eq!(read(text, dialect), Err(BadMessage::Json), "{text}");
        }
    }
    let deep = format!(r#"["1","1","a","b",{}{}]"#, "[".repeat(40), "]".repeat(40));
    for text in [
        "7",
        "[]",
        r#"["1","1","a","b"]"#,
        r#"["1","1",7,"b",{}]"#,
        r#"["1","1","a",null,{}]"#,
        r#"[[],"1","a","b",{}]"#,
        r#"["1",true,"a","b",{}]"#,
        r#"{"topic":"a","event":"b","payload":{}}"#,
        r#"{"topic":"a","event":"b","ref":"1"}"#,
        r#"{"topic":"a","event":[],"payload":{},"ref":"1"}"#,
        &deep,
    ] {
        for dialect in DIALECTS {
            assert_eq!(read(text, dialect), Err(BadMessage::Form), "{text}");
        }
    }
    let right = r#"["1","1","a","b",{}]"#;
    assert_eq!(read(right, Dialect::V1), Err(BadMessage::Form));
    assert!(read(right, Dialect::V2).is_ok());
}

/// The payload of a join may have a token under two names, and a position.
#[test]
fn params_of_joins() {
    let read = |json: &'static str| JoinParams::read(Body::Json(json.as_bytes()));
    let token = |text: &'static str| JoinParams { token: Some(text.into()), position: None };
    assert_eq!(read("{}"), Ok(JoinParams::default()));
    assert_eq!(read("null"), Ok(JoinParams::default()));
    assert_eq!(read(r#"{"token":"t","user":7}"#), Ok(token("t")));
    assert_eq!(read(r#"{"access_token":"t\u0074","token":null}"#), Ok(token("tt")));
    let position = JoinParams { position: Some((7, 9)), ..JoinParams::default() };
    assert_eq!(read(r#"{"position":{"offset":9,"epoch":7}}"#), Ok(position));
    assert_eq!(read(r#"{"token":7}"#), Err("token"));
    for wrong in
        ["7", "{}", r#"{"epoch":1}"#, r#"{"epoch":-1,"offset":1}"#, r#"{"epoch":1,"offset":1.5}"#]
    {
        let json = format!(r#"{{"position":{wrong}}}"#);
        assert_eq!(JoinParams::read(Body::Json(json.as_bytes())), Err("position"), "{wrong}");
    }
}

/// Every version of the parameter `vsn`.
#[test]
fn versions() {
    for (vsn, expected) in [
        (None, Some(Dialect::V1)),
        (Some("1.0.0"), Some(Dialect::V1)),
        (Some("2.0.0"), Some(Dialect::V2)),
        (Some("2.0.x"), None),
        (Some("1.0"), None),
    ] {
        assert_eq!(Dialect::of_version(vsn), expected);
    }
}

/// Whether the client in Java reads a message of version 2 as it was meant
/// (`Defaults.kt` of JavaPhoenixClient): the fields lie between the first four commas, null is `null`,
/// and the payload is the rest without its last character.
fn java_reads(text: &str) -> Option<[Value; 5]> {
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

/// Whether the client in Swift reads a message of version 2 (`Message.swift` of SwiftPhoenixClient).
fn swift_reads(text: &str) -> Option<[Value; 5]> {
    let message: [Value; 5] = serde_json::from_str(text).ok()?;
    let [join_ref, reference, topic, event, payload] = &message;
    let is_ref = |value: &Value| value.is_null() || value.is_string();
    let right = is_ref(join_ref) && is_ref(reference) && topic.is_string() && event.is_string();
    (right && payload.is_object()).then_some(message)
}

/// Texts that those clients send as refs, topics and events: anything but commas, quotes and escapes.
fn plain() -> impl Strategy<Value = String> {
    "[^,\"\\\\\\p{C}]{1,20}"
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let form = |json: Value| (Form::Json, json.to_string().into_bytes());
    let data = prop_oneof![
        any_json().prop_map(form),
        (plain(), any_json())
            .prop_map(move |(event, inner)| { form(json!({"event": event, "payload": inner})) }),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| (Form::Binary, bytes)),
    ];
    (data, prop::option::of(plain())).prop_map(|((form, data), event)| {
        match event.as_deref().and_then(Event::new) {
            Some(event) => event.payload(form, &data),
            None => Payload::new(form, data),
        }
    })
}

proptest! {
    /// The clients in Java and Swift, and JSON itself, read the same in every text message of
    /// version 2 that answers them or is published to them.
    #[test]
    fn known_clients_read_every_message(
        (join_ref, reference, topic) in (prop::option::of(plain()), plain(), plain()),
        (payload, detail) in (any_payload(), ".{0,20}"),
        (case, replaced) in (0..8_usize, prop::option::of(plain())),
    ) {
        let quoted = |text: String| Value::from(text).to_string();
        let (join_ref, reference) = (join_ref.map_or("null".into(), quoted), quoted(reference));
        let replaced = replaced.map(quoted);
        let asked = [Asked::Join, Asked::Push, Asked::Leave][case % 3];
        let replaces = replaced.as_deref().filter(|_| asked == Asked::Join);
        let (join_ref, reference) = (&*join_ref, &*reference);
        let id = Request { asked, join_ref, reference, topic: &topic, replaces }.id();
        let channel = &*topic;
        let position = Position { epoch: 1, offset: u64::MAX };
        let recovery = Some(Recovery { position, recovered: Some(true) });
        let failed = Error { detail: Some(&detail), ..ErrorCode::ResponderFailed.into() };
        let reply = match case {
            0 => Reply::Subscribed { channel, recovery: None },
            1 => Reply::Subscribed { channel, recovery },
            2 => Reply::Unsubscribed { channel },
            3 => Reply::Published { channel, position: Some(position) },
            4 => Reply::Response { service: channel, payload: &payload },
            5 => Reply::Error(failed),
            6 => Reply::Error(ErrorCode::Overloaded.into()),
            _ => Reply::Authenticated { user: "u", expires: None },
        };
        let mut messages = replied(Dialect::V2Text, &id, reply);
        let publication = Publication { channel: topic.as_str().into(), position: None, payload, except: None };
        messages.push(written(|out| _ = encode::publication(out, Dialect::V2Text, &publication)));
        messages.push(written(|out| encode::dropped(out, Dialect::V2Text, &topic, 7)));
        for text in messages {
            let read: [Value; 5] = serde_json::from_str(&text).expect("an array of five");
            let in_swift = swift_reads(&text);
            prop_assert_eq!(in_swift.as_ref(), Some(&read), "Swift: {}", text);
            prop_assert_eq!(java_reads(&text), Some(read), "Java: {}", text);
        }
    }

    /// Any text and any bytes are read or refused, and what is read comes back as it was written.
    #[test]
    fn messages_come_back(
        (join_ref, reference, topic, event) in (".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}"),
        payload in any_json(),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let quoted = |text: &str| Value::from(text).to_string();
        let text = json!([join_ref, reference, topic, event, payload]).to_string();
        let message = read(&text, Dialect::V2).expect("a message");
        prop_assert_eq!(message.join_ref.json(), quoted(&join_ref));
        prop_assert_eq!(message.reference.json(), quoted(&reference));
        prop_assert_eq!((&*message.topic, &*message.event), (&*topic, &*event));
        let v1 = json!({"topic": topic, "event": event, "payload": payload, "ref": reference,
                        "join_ref": join_ref}).to_string();
        prop_assert_eq!(read(&v1, Dialect::V1).expect("a message"), message);
        super::oracle::check(&bytes);
    }
}

/// The corpus of the fuzz target.
#[test]
fn the_corpus() {
    crate::corpus::each("phoenix", super::oracle::check);
    assert!(binary::read(b"").is_err());
}
