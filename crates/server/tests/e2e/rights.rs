//! Tests of the rules of namespaces and of the limits of commands.

use serde_json::{Value, json};
use tungstenite::{Error, Message};

use crate::client::Client;
use crate::reader::Events;
use crate::server::Server;

/// A command that its namespace does not allow is refused, and the connection stays open.
#[test]
fn namespaces_say_who_may() {
    let server = Server::start(&["--namespace=secret,subscribe=nobody,request=authenticated"]);
    let mut client = Client::of(&server);
    for command in [
        json!({"action": "subscribe", "identifier": "secret:a"}),
        json!({"action": "history", "identifier": "secret:a"}),
        json!({"action": "publish", "identifier": "news", "data": 1}),
        json!({"action": "serve", "service": "double"}),
        json!({"action": "request", "service": "secret:s", "data": 1}),
    ] {
        assert_eq!(client.error(command), "not_allowed");
    }
    assert_eq!(client.error(json!({"action": "auth", "token": "x.y.z"})), "bad_token");
    client.subscribe("news");
}

/// Every limit of commands has its own error, and commands within the limits still work.
#[test]
fn limits_are_told() {
    let server = Server::start(&[
        "--namespace=default,publish=anyone,serve=anyone",
        "--max-channels=3",
        "--max-commands-per-second=50",
        "--max-publication-bytes=100",
        "--max-name-bytes=20",
    ]);
    let mut client = Client::of(&server);
    for identifier in ["a", "b", "c"] {
        client.subscribe(identifier);
    }
    let subscribe = |identifier: &str| json!({"action": "subscribe", "identifier": identifier});
    assert_eq!(client.error(subscribe("d")), "too_many");
    assert_eq!(client.error(subscribe("c")), "already_subscribed");
    assert_eq!(client.error(json!({"action": "unsubscribe", "identifier": "d"})), "not_subscribed");
    assert_eq!(client.error(subscribe(&"x".repeat(21))), "bad_identifier");
    let long = json!({"action": "publish", "identifier": "e", "data": "x".repeat(99)});
    assert_eq!(client.error(long), "bad_publication");
    assert_eq!(client.error(json!({"action": "sing"})), "unknown_action");
    client.0.send(Message::text("{nonsense")).expect("sent");
    assert_eq!(client.receive()["code"], "bad_json");
    for _ in 0..10_000 {
        if client.0.send(Message::text(r#"{"action":"ping"}"#)).is_err() {
            break;
        }
    }
    let mut codes = Vec::new();
    loop {
        match client.0.read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                codes.push(message["code"].as_str().unwrap_or("pong").to_owned());
            }
            Ok(Message::Close(frame)) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1008));
                break;
            }
            // The kernel may answer the rest of the commands with a reset.
            Err(Error::Io(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(codes.iter().any(|code| code == "pong") && codes.iter().any(|code| code == "too_fast"));
}

/// Streams obey the same rules as WebSockets.
#[test]
fn streams_keep_the_rules() {
    let server = Server::start(&["--namespace=secret,subscribe=authenticated,history-size=1"]);
    for (target, status, code) in [
        ("/sse?topic=secret:a", 403, "not_allowed"),
        ("/sse?topic=news&topic=secret:a", 403, "not_allowed"),
        ("/poll?topic=secret:a", 403, "not_allowed"),
        ("/sse?topic=news&token=x.y.z", 401, "bad_token"),
        ("/sse?topic=", 400, "bad_identifier"),
        ("/sse?topic=%00", 400, "bad_identifier"),
        ("/sse", 400, "bad_command"),
    ] {
        let answer = server.connect().get(target);
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{target}");
    }
    let many: String = (0..33).map(|number| format!("topic={number}&")).collect();
    assert_eq!(server.connect().get(&format!("/sse?{many}")).status, 400);
}

/// If one channel of a stream is refused, its other subscriptions end, too: the next request on the
/// connection receives nothing of them.
#[test]
fn a_refused_stream_leaves_nothing() {
    for io in ["auto", "epoll"] {
        let io = format!("--io={io}");
        let open = "--namespace=default,publish=anyone,history-size=5";
        let server = Server::start(&["--shards=3", &io, "--max-channels=1", open]);
        let mut publisher = Client::of(&server);
        let mut client = server.connect();
        // Any shard may own the first channel, so the test tries several.
        for number in 0..20 {
            let answer = client.get(&format!("/sse?topic=a{number}&topic=b{number}"));
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!((answer.status, &body["code"]), (400, &json!("too_many")));
            publisher.publish(&format!("a{number}"), json!(number));
            assert_eq!(client.get("/healthz").text(), "ok\n");
        }
        let poll = client.get("/poll?topic=a0");
        let body: Value = serde_json::from_slice(&poll.body).expect("JSON");
        assert_eq!((&body["identifier"], &body["publications"]), (&json!("a0"), &json!([])));
        client.send(b"GET /sse?topic=c HTTP/1.1\r\nHost: m\r\n\r\n");
        let mut events = Events::read(client);
        for name in ["subscribed", ""] {
            let event = events.next().expect("an event");
            assert_eq!((event.name.as_str(), &event.data["identifier"]), (name, &json!("c")));
            if name == "subscribed" {
                publisher.publish("a0", json!("not heard"));
                publisher.publish("c", json!("heard"));
            }
        }
        drop(events);
        server.wait_until("left", |stats| stats["total"]["subscriptions"] == 0);
    }
}
