//! Tests of what the API does to the sessions of a user: disconnect, unsubscribe, refresh, over every transport.

use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::client::Client;
use crate::guarded::{Guarded, now, token};
use crate::reader::{Events, Position};
use crate::server::{self, PATIENCE, Server};

const FLAGS: [&str; 3] =
    ["--shards=3", "--phoenix-path=/socket", "--namespace=default,publish=anyone,history-size=5"];

fn token_of(user: &str) -> String {
    token(&json!({"sub": user}))
}

fn websocket(server: &Server, user: &str) -> Client {
    Client::at(server, &format!("/ws?token={}", token_of(user)))
}

/// A session of a user over each transport, subscribed to the channel `a`.
struct Everywhere {
    websocket: Client,
    stream: Events,
    stream_of_two: Events,
    poll: server::Client,
    phoenix: WebSocket<TcpStream>,
}

impl Everywhere {
    const SESSIONS: usize = 5;

    fn open(server: &Server, user: &str) -> Self {
        let token = token_of(user);
        let mut websocket = websocket(server, user);
        websocket.subscribe("a");
        let mut stream = Events::open(server, &format!("/sse?channel=a&token={token}"), None);
        let both = format!("/sse?channel=a&channel=b&token={token}");
        let mut stream_of_two = Events::open(server, &both, None);
        for (events, channels) in [(&mut stream, 1), (&mut stream_of_two, 2)] {
            for _ in 0..channels {
                assert_eq!(events.next().expect("an event").name, "subscribed");
            }
        }
        let mut poll = server.connect();
        let target =
            format!("/poll?channel=a&position={}&token={token}", Position::now(server, "a"));
        poll.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
        let mut phoenix = server.websocket(&format!("/socket/websocket?vsn=2.0.0&token={token}"));
        phoenix.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        phoenix.send(Message::text(r#"["1","1","a","phx_join",{}]"#)).expect("sent");
        assert!(text(&mut phoenix).contains(r#""status":"ok""#));
        Everywhere { websocket, stream, stream_of_two, poll, phoenix }
    }
}

fn text(socket: &mut WebSocket<TcpStream>) -> String {
    match socket.read().expect("a message") {
        Message::Text(text) => text.to_string(),
        Message::Ping(_) => text(socket),
        other => panic!("{other:?}"),
    }
}

/// The code and the reason of the close frame, which must be next.
fn closed(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    match socket.read().expect("a message") {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        Message::Ping(_) => closed(socket),
        other => panic!("{other:?}"),
    }
}

/// Waits until all sessions, of which one is a poll, have subscribed to `a`, and one to `b`.
fn wait_for(server: &Server, users: usize) {
    let subscriptions = users * (Everywhere::SESSIONS + 1);
    server.wait_for_subscriptions(subscriptions);
}

/// All sessions of a user end, with the code and the reason of the request; those of other users and those
/// left out stay.
#[test]
fn a_user_is_disconnected() {
    let guarded = Guarded::start(&FLAGS);
    let server = &guarded.server;
    let mut ann = Everywhere::open(server, "ann");
    let mut bob = Everywhere::open(server, "bob");
    let mut spared = websocket(server, "ann");
    wait_for(server, 2);
    let except = [spared.name(), "2-77-1".into()];
    let order = json!({"user": "ann", "except": except, "code": 4321, "reason": "Bye, \"ann\""});
    let answer = guarded.post("/api/disconnect", order.to_string());
    assert_eq!(answer, (200, json!({"disconnected": Everywhere::SESSIONS})));
    let is_told = |error: &Value| {
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!("disconnected"), &json!("Bye, \"ann\""))
        );
    };
    is_told(&ann.websocket.receive());
    for socket in [&mut ann.websocket.0, &mut ann.phoenix] {
        assert_eq!(closed(socket), (4321, "Bye, \"ann\"".into()));
    }
    for events in [&mut ann.stream, &mut ann.stream_of_two] {
        let event = events.next().expect("an event");
        assert_eq!(event.name, "error");
        is_told(&event.data);
        assert!(events.next().is_none());
    }
    let answer = ann.poll.answer();
    assert_eq!(answer.status, 403);
    is_told(&serde_json::from_slice(&answer.body).expect("JSON"));
    spared.silent();
    bob.websocket.silent();
    drop(ann);
    // Nobody is disconnected twice, and names of users are compared whole.
    for user in ["ann", "an", "anna", ""] {
        let order = json!({"user": user, "except": [spared.name()]}).to_string();
        assert_eq!(guarded.post("/api/disconnect", order).1, json!({"disconnected": 0}), "{user}");
    }
    let order = json!({"connection": spared.name()}).to_string();
    assert_eq!(guarded.post("/api/disconnect", order).1, json!({"disconnected": 1}));
    assert_eq!(spared.receive()["code"], "disconnected");
    assert_eq!(closed(&mut spared.0), (4000, "disconnected".into()));
    Client::of(server).publish("a", json!("after"));
    assert_eq!(bob.stream.next().expect("an event").data["data"], "after");
}

/// The subscriptions of a user to one channel end on every transport, in the form of each; others stay.
#[test]
fn a_user_is_unsubscribed() {
    let guarded = Guarded::start(&FLAGS);
    let server = &guarded.server;
    let mut ann = Everywhere::open(server, "ann");
    let mut bob = Everywhere::open(server, "bob");
    ann.websocket.subscribe("c");
    server.wait_for_subscriptions(13);
    let unsubscribe = |order: Value| guarded.post("/api/unsubscribe", order.to_string());
    let of_a = json!({"user": "ann", "identifier": "a", "reason": "out"});
    let answer = unsubscribe(of_a.clone());
    assert_eq!(answer, (200, json!({"unsubscribed": Everywhere::SESSIONS})));
    let told = json!({
        "type": "unsubscribed", "identifier": "a", "code": "unsubscribed", "message": "out",
    });
    assert_eq!(ann.websocket.receive(), told);
    for events in [&mut ann.stream, &mut ann.stream_of_two] {
        let event = events.next().expect("an event");
        assert_eq!((&*event.name, event.data), ("unsubscribed", told.clone()));
    }
    let answer = ann.poll.answer();
    let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (answer.status, &error["code"], &error["message"]),
        (403, &json!("unsubscribed"), &json!("out"))
    );
    let close = r#"[null,null,"a","phx_close",{"reason":"out"}]"#;
    assert_eq!(text(&mut ann.phoenix), close);
    // The same again concerns nobody; the topic can be joined again.
    assert_eq!(unsubscribe(of_a), (200, json!({"unsubscribed": 0})));
    ann.phoenix.send(Message::text(r#"["2","2","a","phx_join",{}]"#)).expect("sent");
    assert!(text(&mut ann.phoenix).contains(r#""status":"ok""#));
    let mut publisher = Client::of(server);
    publisher.publish("a", json!("not for the streams of ann"));
    publisher.publish("b", json!("after"));
    assert_eq!(ann.stream_of_two.next().expect("an event").data["data"], "after");
    assert_eq!(bob.websocket.receive()["type"], "publication");
    // All that is left: `c` of the WebSocket, `b` of the stream, `a` of the Phoenix client.
    let all = json!({"user": "ann", "all": true});
    assert_eq!(unsubscribe(all.clone()), (200, json!({"unsubscribed": 3})));
    let told = ann.websocket.receive();
    assert_eq!((&told["identifier"], &told["code"]), (&json!("c"), &json!("unsubscribed")));
    assert_eq!(unsubscribe(all), (200, json!({"unsubscribed": 0})));
    let only = json!({"connection": bob.websocket.name(), "identifier": "a"});
    assert_eq!(unsubscribe(only), (200, json!({"unsubscribed": 1})));
}

/// The expiry of a user's sessions moves: nearer, away, or to now. Sessions without a user have none.
#[test]
fn expiry_is_moved() {
    let guarded = Guarded::start(&FLAGS);
    let server = &guarded.server;
    let refresh = |order: Value| guarded.post("/api/refresh", order.to_string());
    let mut ann = Client::at(
        server,
        &format!("/ws?token={}", token(&json!({"sub": "ann", "exp": now() + 3600}))),
    );
    let mut nobody = Client::of(server);
    assert_eq!(refresh(json!({"user": "ann", "expire_at": 0})), (200, json!({"refreshed": 1})));
    let name = ann.name();
    let expires = || guarded.get(&format!("/api/connections/{name}")).1["expires"].clone();
    assert_eq!(expires(), Value::Null);
    let later = now() + 1000;
    assert_eq!(refresh(json!({"connection": name, "expire_at": later})).1, json!({"refreshed": 1}));
    assert_eq!(expires(), later);
    let huge = json!({"user": "ann", "expire_at": u64::MAX});
    assert_eq!((refresh(huge).0, expires()), (200, Value::Null));
    let anonymous = nobody.name();
    for order in [json!({"expire_at": 1}), json!({"expired": true})] {
        let mut order = order;
        order["connection"] = json!(anonymous);
        assert_eq!(refresh(order), (200, json!({"refreshed": 0})));
    }
    // Second 1 is long ago.
    assert_eq!(refresh(json!({"user": "ann", "expire_at": 1})).1, json!({"refreshed": 1}));
    assert_eq!(ann.receive()["code"], "token_expired");
    assert_eq!(closed(&mut ann.0).0, 1008);
    let mut everywhere = Everywhere::open(server, "ann");
    wait_for(server, 1);
    let answer = refresh(json!({"user": "ann", "expired": true}));
    assert_eq!(answer, (200, json!({"refreshed": Everywhere::SESSIONS})));
    assert_eq!(everywhere.websocket.receive()["code"], "token_expired");
    assert_eq!(closed(&mut everywhere.phoenix).0, 1008);
    assert_eq!(everywhere.stream.next().expect("an event").data["code"], "token_expired");
    assert_eq!(everywhere.poll.answer().status, 401);
    nobody.silent();
}

/// A user with many connections is served in slices, and the answer has all of them.
#[test]
fn many_connections() {
    let guarded = Guarded::start(&["--shards=2"]);
    let mut sessions: Vec<_> = (0..900).map(|_| websocket(&guarded.server, "ann")).collect();
    let order = json!({"user": "ann"}).to_string();
    assert_eq!(guarded.post("/api/disconnect", order), (200, json!({"disconnected": 900})));
    for session in &mut sessions {
        assert_eq!(session.receive()["code"], "disconnected");
    }
}

/// A request that can be read in two ways, or in none, does nothing and says why.
#[test]
fn bad_orders() {
    let guarded = Guarded::start(&["--strict-namespaces"]);
    let mut ann = websocket(&guarded.server, "ann");
    ann.subscribe("a");
    let name = ann.name();
    let long = "é".repeat(62);
    let many = vec!["0-0-0"; 101];
    for (path, order, status, code) in [
        ("disconnect", json!({}), 400, "bad_order"),
        ("disconnect", json!({"user": "ann", "connection": name}), 400, "bad_order"),
        ("disconnect", json!({"connection": name, "except": []}), 400, "bad_order"),
        ("disconnect", json!({"user": "ann", "except": many}), 400, "bad_order"),
        ("disconnect", json!({"user": "ann", "except": ["here"]}), 400, "bad_connection"),
        ("disconnect", json!({"user": "ann", "excpt": [name]}), 422, "bad_body"),
        ("disconnect", json!({"user": "ann", "code": 1000}), 400, "bad_code"),
        ("disconnect", json!({"user": "ann", "code": 5000}), 400, "bad_code"),
        ("disconnect", json!({"user": "ann", "code": 70000}), 422, "bad_body"),
        ("disconnect", json!({"user": "ann", "reason": ""}), 400, "bad_reason"),
        ("disconnect", json!({"user": "ann", "reason": "a\nb"}), 400, "bad_reason"),
        ("disconnect", json!({"user": "ann", "reason": long}), 400, "bad_reason"),
        ("unsubscribe", json!({"user": "ann"}), 400, "bad_channels"),
        ("unsubscribe", json!({"user": "ann", "identifer": "b"}), 422, "bad_body"),
        (
            "unsubscribe",
            json!({"user": "ann", "identifier": "a", "all": true}),
            400,
            "bad_channels",
        ),
        ("unsubscribe", json!({"user": "ann", "identifier": ""}), 400, "bad_identifier"),
        ("unsubscribe", json!({"user": "ann", "identifier": "x:a"}), 400, "unknown_namespace"),
        ("refresh", json!({"user": "ann"}), 400, "bad_expiry"),
        ("refresh", json!({"user": "ann", "expire_at": 1, "expired": true}), 400, "bad_expiry"),
        ("refresh", json!({"user": "ann", "expire_at": -1}), 422, "bad_body"),
        ("refresh", json!({"expired": true}), 400, "bad_order"),
        ("refresh", json!({"connection": "9-0-0", "expired": true}), 400, "bad_connection"),
        ("refresh", json!({"user": "ann", "expire_at": 1.5}), 422, "bad_body"),
        ("refresh", json!({"user": "ann", "expire_at": "1"}), 422, "bad_body"),
        ("refresh", json!({"user": "ann", "expire_at": 1e19}), 422, "bad_body"),
        ("refresh", json!({"user": "ann", "expireAt": 1}), 422, "bad_body"),
        ("refresh", json!({"user": "ann", "expired": "true"}), 422, "bad_body"),
        ("refresh", json!({"user": 7, "expired": true}), 422, "bad_body"),
        ("unsubscribe", json!({"user": ["ann"], "all": true}), 422, "bad_body"),
        ("unsubscribe", json!({"user": "ann", "all": 1}), 422, "bad_body"),
        ("unsubscribe", json!({"connection": "0-0", "all": true}), 400, "bad_connection"),
        ("disconnect", json!({"user": "ann", "code": -1}), 422, "bad_body"),
        ("disconnect", json!({"user": "ann", "code": 4000.0}), 422, "bad_body"),
        ("disconnect", json!({"user": "ann", "code": u64::MAX}), 422, "bad_body"),
        ("disconnect", json!({"user": "ann", "except": name}), 422, "bad_body"),
        ("disconnect", json!({"user": "ann", "except": [null]}), 422, "bad_body"),
        ("disconnect", json!({"connection": "+0-0-1"}), 400, "bad_connection"),
        ("disconnect", json!({"connection": "00-0-1"}), 400, "bad_connection"),
        ("disconnect", json!({"connection": "0-0-16777216"}), 400, "bad_connection"),
        ("disconnect", json!({"connection": "0-4294967296-0"}), 400, "bad_connection"),
        ("disconnect", json!([null, "ann", null, null, null]), 422, "bad_body"),
        ("disconnect", json!("ann"), 422, "bad_body"),
    ] {
        let answer = guarded.post(&format!("/api/{path}"), order.to_string());
        assert_eq!((answer.0, &answer.1["code"]), (status, &json!(code)), "{path} {order}");
        assert!(answer.1["message"].as_str().is_some_and(|text| text.len() > 10), "{}", answer.1);
    }
    for (body, status, code) in [
        (r#"{"user":"ann","user":"bob"}"#, 422, "bad_body"),
        (r#"{"user":"ann""#, 400, "bad_json"),
        ("", 400, "bad_json"),
    ] {
        let answer = guarded.post("/api/disconnect", body);
        assert_eq!((answer.0, &answer.1["code"]), (status, &json!(code)), "{body}");
    }
    ann.silent();
}

/// A request about nobody who is there reaches nobody, which is no error; numbers may be as large as they get.
#[test]
fn orders_about_nobody() {
    let guarded = Guarded::start(&["--shards=2"]);
    let mut ann = websocket(&guarded.server, "ann");
    ann.subscribe("a");
    for whom in [
        json!({"user": "nobody"}),
        json!({"user": ""}),
        json!({"user": "a\u{0}"}),
        json!({"user": "x".repeat(10_000)}),
        json!({"user": "ann", "except": [ann.name()]}),
        json!({"connection": "1-16777215-16777215"}),
        json!({"connection": "0-4294967295-16777215"}),
    ] {
        for (path, member, rest) in [
            ("disconnect", "disconnected", json!({})),
            ("unsubscribe", "unsubscribed", json!({"all": true})),
            ("unsubscribe", "unsubscribed", json!({"identifier": "a"})),
            ("unsubscribe", "unsubscribed", json!({"identifier": "unknown"})),
            ("refresh", "refreshed", json!({"expired": true})),
            ("refresh", "refreshed", json!({"expire_at": u64::MAX})),
        ] {
            let mut order = whom.clone();
            let rest = rest.as_object().expect("an object").clone();
            order.as_object_mut().expect("an object").extend(rest);
            let answer = guarded.post(&format!("/api/{path}"), order.to_string());
            assert_eq!(answer, (200, json!({member: 0})), "{path} {order}");
        }
    }
    ann.silent();
}
