//! The publishing peers do the work for which they are measured, checked with an independent
//! client.

#![forbid(unsafe_code)]

use std::net::TcpStream;

use peer::Peer;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

mod peer;

/// All subscribers of a channel, and no other connection, receive its publications in order; after
/// `unsubscribe` they receive nothing.
#[test]
fn tokio_broadcast_publishes() {
    let mut peer = start();
    let [mut one, mut other, mut publisher] = [(); 3].map(|()| peer.connect());
    for client in [&mut one, &mut other] {
        send(client, json!({"action": "subscribe", "identifier": "a", "id": "x"}));
        let answer = json!({"type": "subscribed", "identifier": "a", "id": "x"});
        assert_eq!(receive(client), answer);
    }
    for number in 0..100 {
        let data = json!({"number": number, "text": "1.50 \"quoted\""});
        send(&mut publisher, json!({"action": "publish", "identifier": "b", "data": data}));
        send(&mut publisher, json!({"action": "publish", "identifier": "a", "data": data}));
    }
    send(&mut publisher, json!({"action": "publish", "identifier": "a", "data": "end", "id": 7}));
    let published = json!({"type": "published", "identifier": "a", "id": 7});
    assert_eq!(receive(&mut publisher), published);
    for client in [&mut one, &mut other] {
        for number in 0..100 {
            let publication = receive(client);
            assert_eq!(publication["type"], "publication");
            assert_eq!(publication["data"]["number"], number);
        }
        assert_eq!(receive(client)["data"], "end");
    }
    send(&mut one, json!({"action": "unsubscribe", "identifier": "a"}));
    assert_eq!(receive(&mut one)["type"], "unsubscribed");
    send(&mut publisher, json!({"action": "publish", "identifier": "a", "data": 1, "id": 8}));
    assert_eq!(receive(&mut publisher)["id"], 8);
    send(&mut one, json!({"action": "nonsense", "id": 9}));
    assert_eq!(receive(&mut one)["code"], "unknown_action");
    assert!(peer.end_by_sigterm());
}

/// Shows the messages of the article: their size, that they carry the identifier subscribed to,
/// that they end; and the answer to its request.
#[test]
fn tokio_broadcast_feeds_and_serves() {
    let peer = start();
    let [mut client, mut feeder] = [(); 2].map(|()| peer.connect());
    send(&mut client, json!({"action": "subscribe", "identifier": "17"}));
    assert_eq!(receive(&mut client)["type"], "subscribed");
    send(&mut feeder, json!({"action": "feed", "bytes": 1400, "rate": 1000}));
    assert_eq!(receive(&mut feeder)["type"], "feed");
    for request in 0..20 {
        let text = client.read().expect("a message").into_text().expect("a text");
        assert_eq!(text.len(), 1400);
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&message["type"], &message["identifier"]),
            (&"publication".into(), &"17".into())
        );
        let data = &message["data"];
        assert_eq!((&data["identifier"], &data["request"]), (&"17".into(), &request.into()));
        assert!(data["timestamp"].is_u64() && data["elements"].is_string());
    }
    send(&mut feeder, json!({"action": "feed", "bytes": 1400, "rate": 0}));
    assert_eq!(receive(&mut feeder)["type"], "feed");

    let data = json!({"request": 3, "timestamp": 5, "rows": 0, "execs": []});
    send(
        &mut feeder,
        json!({"action": "request", "service": "order-request", "id": 3, "data": data}),
    );
    let data = json!({"request": 3, "timestamp": 5, "address": "127.0.0.1"});
    let answer = json!({"type": "response", "service": "order-request", "id": 3, "data": data});
    assert_eq!(receive(&mut feeder), answer);
}

fn start() -> Peer {
    Peer::start(env!("CARGO_BIN_EXE_peer-tokio-broadcast"), &[])
}

fn send(client: &mut WebSocket<TcpStream>, command: Value) {
    client.send(Message::text(command.to_string())).expect("sent");
}

fn receive(client: &mut WebSocket<TcpStream>) -> Value {
    let text = client.read().expect("a message").into_text().expect("a text");
    serde_json::from_str(&text).expect("JSON")
}
