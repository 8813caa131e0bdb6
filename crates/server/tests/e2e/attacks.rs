//! Tests of what goes wrong at other servers when tokens, rights and connections end at the same time.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client;
use crate::guarded::{Guarded, expiring, now, token};
use crate::reader::Events;
use crate::server::{PATIENCE, Server};

const KEPT: &str = "--namespace=default,publish=anyone,subscribe=authenticated,history-size=10";

/// A token expires while its client is away. The old token opens nothing, and costs nothing of what the client
/// recovers with a new one, over each transport.
#[test]
fn a_token_expires_while_the_client_is_away() {
    let guarded = Guarded::start(&["--shards=3", "--phoenix-path=/socket", KEPT]);
    let server = &guarded.server;
    let (old, new) = (expiring(-60), expiring(3600));
    let mut client = Client::at(server, &format!("/ws?token={new}"));
    let position = client.subscribe("a")["position"].clone();
    let id = format!("{}-{}", position["epoch"], position["offset"]);
    drop(client);
    let mut publisher = Client::of(server);
    for number in 1..=3 {
        publisher.publish("a", json!(number));
    }
    let poll = |token: &str| {
        let answer = server.connect().get(&format!("/poll?channel=a&position={id}&token={token}"));
        (answer.status, serde_json::from_slice::<Value>(&answer.body).expect("JSON"))
    };
    for _ in 0..3 {
        assert_eq!(server.upgrade(&format!("/ws?token={old}")).1.status, 401);
        let phoenix = format!("/socket/websocket?vsn=2.0.0&token={old}");
        assert_eq!(server.upgrade(&phoenix).1.status, 403);
        let stream = format!("/sse?channel=a&lastEventId={id}&token={old}");
        assert_eq!(server.connect().get(&stream).status, 401);
        assert_eq!(poll(&old).0, 401);
        let mut late = Client::of(server);
        assert_eq!(late.error(json!({"action": "auth", "token": old})), "bad_token");
        let subscribe = json!({"action": "subscribe", "identifier": "a", "position": position});
        assert_eq!(late.error(subscribe), "not_allowed");
    }
    let mut client = Client::at(server, &format!("/ws?token={new}"));
    let subscribe = json!({"action": "subscribe", "identifier": "a", "position": position});
    assert_eq!(client.ask(subscribe)["recovered"], true);
    for number in 1..=3 {
        assert_eq!(client.receive()["data"], number);
    }
    let mut events = Events::open(server, &format!("/sse?channel=a&token={new}"), Some(&id));
    assert_eq!(events.next().expect("an event").data["recovered"], true);
    assert_eq!(events.next().expect("an event").data["data"], 1);
    let (status, page) = poll(&new);
    assert_eq!((status, page["publications"].as_array().map(Vec::len)), (200, Some(3)));
    let mut phoenix = server.websocket(&format!("/socket/websocket?vsn=2.0.0&token={new}"));
    phoenix.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let join = json!(["1", "1", "a", "phx_join", {"position": position}]).to_string();
    phoenix.send(Message::text(join)).expect("sent");
    let reply = phoenix.read().expect("a reply").into_text().expect("text");
    assert!(reply.contains("\"recovered\":true"), "{reply}");
}

/// A token whose `subs` or `channels` are empty grants nothing at all, over each transport; one without them
/// leaves it to the namespace.
#[test]
fn empty_grants_grant_nothing() {
    let open =
        "--namespace=default,publish=anyone,subscribe=anyone,presence=members,history-size=5";
    let guarded = Guarded::start(&["--shards=2", "--phoenix-path=/socket", open]);
    let server = &guarded.server;
    for (claims, allowed) in [
        (json!({"subs": {}}), false),
        (json!({"channels": []}), false),
        (json!({"subs": {}, "channels": []}), false),
        (json!({}), true),
    ] {
        let mut claims = claims;
        claims["sub"] = json!("ann");
        claims["exp"] = json!(now() + 3600);
        let token = token(&claims);
        let mut client = Client::at(server, &format!("/ws?token={token}"));
        for command in [
            json!({"action": "subscribe", "identifier": "a"}),
            json!({"action": "publish", "identifier": "a", "data": 1}),
            json!({"action": "history", "identifier": "a"}),
            json!({"action": "presence", "identifier": "a"}),
        ] {
            let mut command = command;
            command["id"] = json!(7);
            client.send(command.clone());
            // Its own publication may come first.
            let answer = std::iter::repeat_with(|| client.receive())
                .find(|message| message["id"] == 7)
                .expect("an answer");
            assert_eq!(answer["code"] != "not_allowed", allowed, "{claims} {command} {answer}");
        }
        for path in ["/sse?channel=a", "/poll?channel=a"] {
            let mut client = server.connect();
            let target = format!("{path}&token={token}");
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
            let status = client.answer_to("HEAD").status;
            assert_eq!(status, if allowed { 200 } else { 403 }, "{claims} {path}");
        }
        let mut phoenix = server.websocket(&format!("/socket/websocket?vsn=2.0.0&token={token}"));
        phoenix.send(Message::text(r#"["1","1","a","phx_join",{}]"#)).expect("sent");
        let reply = phoenix.read().expect("a reply").into_text().expect("text");
        assert_eq!(reply.contains("not_allowed"), !allowed, "{claims} {reply}");
    }
}

/// A frame whose length does not fit in any number of bytes ends its connection, and no other.
#[test]
fn lengths_that_overflow() {
    let server = Server::start(&["--shards=1"]);
    let mut other = Client::of(&server);
    for length in [u64::MAX, 1 << 63, (1 << 63) - 1, u64::MAX - 13, 1 << 32, u64::from(u32::MAX)] {
        for first_byte in [0x81, 0x82, 0x01, 0x80] {
            let mut client = server.raw_websocket("/ws");
            client.send(&[&[first_byte, 0xff][..], &length.to_be_bytes(), &[0; 4], b"x"].concat());
            let rest = client.rest();
            let code =
                rest.strip_prefix(&[0x88]).map(|close| u16::from_be_bytes([close[1], close[2]]));
            assert!(matches!(code, Some(1002 | 1009)), "{length:x} {first_byte:x}: {rest:?}");
        }
        other.silent();
    }
}
