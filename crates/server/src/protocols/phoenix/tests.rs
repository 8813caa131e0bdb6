//! Messages byte by byte, and every message beside the parsers of known clients.

use std::sync::Arc;

use murre_codec::Kind;
use murre_router::channels::{Form, Origin, Payload, Position, Publication, Recovery};
use murre_router::presence::{Changes, Count, Meta, PresentMember};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::decode::{self, BadMessage, Body, JoinParams, JoinPresence, Message};
use super::encode::{self, Status};
use super::known_clients::{self, java_reads, swift_reads};
use super::refs::{Asked, Request};
use super::{Dialect, binary, presence};
use crate::hub::event::Event;
use crate::hub::member_names::MemberName;
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

const SUBSCRIBED: Reply<'_> =
    Reply::Subscribed { channel: "room:lobby", recovery: None, data: None };
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
        let reply = Reply::Subscribed { channel: "room:lobby", recovery, data: None };
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

fn member(number: u32, name: &str, meta: Option<&Value>, replaces: u32) -> PresentMember {
    PresentMember {
        node: 0,
        origin: Origin(number.into()),
        stamp: 7 + number,
        replaces,
        user: name.into(),
        meta: meta.map(|meta| Meta::new(meta.to_string().as_bytes())),
    }
}

/// Members byte by byte: grouped by key, each with a reference, whatever its metadata and its key are.
#[test]
fn members_of_a_topic() {
    let meta = json!({"online_at": 1, "phx_ref": "forged", "phx_ref_prev": "forged"});
    let escaped = Meta::new(br#"{"phx\u005fref":1,"a":[1.50]}"#);
    let key = MemberName::Key("a,b").text();
    let members = [
        member(0, "u1", Some(&meta), 0),
        member(1, &key, Some(&json!("away")), 6),
        PresentMember { meta: Some(escaped), ..member(0x0102, "u1", None, 0) },
        member(3, "__proto__", None, 0),
    ];
    let state = concat!(
        r#"{"\u0000__proto__":{"metas":[{"phx_ref":"AAAAAAAAAAMAAAAK"}]},"#,
        r#""a,b":{"metas":[{"phx_ref":"AAAAAAAAAAEAAAAI","phx_ref_prev":"AAAAAAAAAAEAAAAG","data":"away"}]},"#,
        r#""u1":{"metas":[{"phx_ref":"AAAAAAAAAAAAAAAH","online_at":1},{"phx_ref":"AAAAAAAAAQIAAAEJ","a":[1.50]}]}}"#,
    );
    assert_eq!(written(|out| presence::state(out, &members)), state);
    let changes = Changes { joins: Vec::new(), leaves: members[3..].to_vec() };
    assert_eq!(
        written(|out| presence::diff(out, &changes)),
        r#"{"joins":{},"leaves":{"\u0000__proto__":{"metas":[{"phx_ref":"AAAAAAAAAAMAAAAK"}]}}}"#
    );
    let count = Count { clients: u64::MAX, users: 0 };
    assert_eq!(
        written(|out| presence::count(out, count)),
        r#"{"clients":18446744073709551615,"users":0}"#
    );
    let pushed = |join_ref, event, payload: &str| {
        written(|out| {
            encode::push(out, Dialect::V2, join_ref, "room:lobby", event, |out| {
                out.extend_from_slice(payload.as_bytes());
            });
        })
    };
    assert_eq!(
        pushed("\"1\"", "presence_state", "{}"),
        r#"["1",null,"room:lobby","presence_state",{}]"#
    );
}

/// What a join asks of presence: metadata, or no membership, and a key. What cannot be read is not
/// taken for nothing.
#[test]
fn presence_of_joins() {
    let read = |json: &'static str| {
        JoinParams::read(Body::Json(json.as_bytes()))
            .expect("its members are read later")
            .presence()
    };
    for (json, meta, is_hidden, key) in [
        ("{}", None, false, None),
        (r#"{"presence":null,"presence_key":null}"#, None, false, None),
        (r#"{"presence":true}"#, None, false, None),
        (r#"{"presence":false}"#, None, true, None),
        (r#"{"presence":{"a": 1}}"#, Some(&br#"{"a": 1}"#[..]), false, None),
        (r#"{"presence_key":""}"#, None, false, Some("")),
        (r#"{"presence_key":"a,\u0062"}"#, None, false, Some("a,b")),
    ] {
        let key = key.map(Into::into);
        assert_eq!(read(json), Ok(JoinPresence { meta, is_hidden, key }), "{json}");
    }
    for (json, wrong) in [
        (r#"{"presence":"x"}"#, "presence"),
        (r#"{"presence":[]}"#, "presence"),
        (r#"{"presence":0}"#, "presence"),
        (r#"{"presence_key":7}"#, "presence_key"),
        (r#"{"presence_key":"\n"}"#, "presence_key"),
    ] {
        assert_eq!(read(json), Err(wrong), "{json}");
    }
}

/// The payload of a join may have a token under two names, and a position.
#[test]
fn params_of_joins() {
    let read = |json: &'static str| JoinParams::read(Body::Json(json.as_bytes()));
    let token =
        |text: &'static str| JoinParams { token: Some(text.into()), ..JoinParams::default() };
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
        members in prop::collection::vec((".{0,9}", prop::option::of(any_json()), 0..3_u32), 0..5),
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
            0 => Reply::Subscribed { channel, recovery: None, data: None },
            1 => Reply::Subscribed { channel, recovery, data: Some(&payload) },
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
        let members: Vec<PresentMember> = members
            .into_iter()
            .enumerate()
            .map(|(at, (name, meta, replaces))| member(at as u32, &name, meta.as_ref(), replaces))
            .collect();
        let joins = members.clone();
        let changes = Changes { joins, leaves: members };
        for (event, payload) in [
            ("presence_state", written(|out| presence::state(out, &changes.joins))),
            ("presence_diff", written(|out| presence::diff(out, &changes))),
            ("presence_count", written(|out| presence::count(out, Count { clients: 1, users: 0 }))),
        ] {
            messages.push(written(|out| {
                encode::push(out, Dialect::V2Text, join_ref, &topic, event, |out| {
                    out.extend_from_slice(payload.as_bytes());
                });
            }));
        }
        for text in messages {
            let read: [Value; 5] = serde_json::from_str(&text).expect("an array of five");
            let in_swift = swift_reads(&text);
            prop_assert_eq!(in_swift.as_ref(), Some(&read), "Swift: {}", text);
            prop_assert_eq!(java_reads(&text), Some(read), "Java: {}", text);
            known_clients::check(&text);
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
