//! Tests of subscriptions: delivery, order, and the release of all state at the end.

use std::collections::HashMap;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client;
use crate::matrix::SHARDS;
use crate::reader::Events;
use crate::server::Server;

/// Flags for a namespace in which anyone may publish and serve, and for one that also keeps the
/// newest five publications.
const OPEN: &str = "--namespace=default,publish=anyone,serve=anyone";
const KEPT: &str = "--namespace=kept,publish=anyone,history-size=5,history-ttl=300";

fn server() -> Server {
    Server::start(&[SHARDS[0], SHARDS[1], OPEN, KEPT])
}

/// A publication reaches all subscribers, also the publisher if it is subscribed, but no client
/// that has unsubscribed. The commands of 2012 still work.
#[test]
fn publications_reach_the_subscribers() {
    let server = server();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::of(&server)).collect();
    for client in &mut clients {
        client.send(json!({"action": "subscribe", "identifier": "AAPL"}));
        assert_eq!(client.receive(), json!({"type": "subscribed", "identifier": "AAPL"}));
    }
    let data =
        json!({"bid": 1.5, "text": "größe \u{1F427} \" \\", "large": 12345678901234567890u64});
    clients[0].send(json!({"action": "publish", "identifier": "AAPL", "data": data}));
    let expected = json!({"type": "publication", "identifier": "AAPL", "data": data});
    for client in &mut clients {
        assert_eq!(client.receive(), expected);
    }
    clients[1].send(json!({"action": "unsubscribe", "identifier": "AAPL", "id": "x"}));
    let unsubscribed = json!({"type": "unsubscribed", "identifier": "AAPL", "id": "x"});
    assert_eq!(clients[1].receive(), unsubscribed);
    let mut publisher = Client::of(&server);
    let published = publisher.publish("AAPL", json!([1]));
    assert_eq!(published, json!({"type": "published", "identifier": "AAPL"}));
    for (number, client) in clients.iter_mut().enumerate() {
        if number != 1 {
            assert_eq!(client.receive()["data"], json!([1]));
        }
        client.silent();
    }
}

/// All subscribers receive the publications of a channel in the same order, and those of each
/// publisher in its order, with clients on all shards.
#[test]
fn order_is_the_same_for_all() {
    const EACH: usize = 300;
    let server = Server::start(&["--shards=3", OPEN, "--max-commands-per-second=60000"]);
    let mut subscribers: Vec<Client> = (0..6).map(|_| Client::of(&server)).collect();
    subscribers.iter_mut().for_each(|client| _ = client.subscribe("chat"));
    let mut publishers: Vec<Client> = (0..4).map(|_| Client::of(&server)).collect();
    for number in 0..EACH {
        for (publisher, client) in publishers.iter_mut().enumerate() {
            let data = json!([publisher, number]);
            client.send(json!({"action": "publish", "identifier": "chat", "data": data}));
        }
    }
    let mut hear_all = |client: &mut Client| -> Vec<Value> {
        (0..4 * EACH).map(|_| client.receive()["data"].take()).collect()
    };
    let heard: Vec<Vec<Value>> = subscribers.iter_mut().map(&mut hear_all).collect();
    for other in &heard[1..] {
        assert_eq!(*other, heard[0]);
    }
    let mut next = HashMap::new();
    for data in &heard[0] {
        let next = next.entry(data[0].as_u64()).or_insert(0);
        assert_eq!(data[1].as_u64(), Some(*next));
        *next += 1;
    }
}

/// A binary publication reaches WebSockets as bytes, and is base64 in JSON.
#[test]
fn binary_publications() {
    let server = server();
    let (mut one, mut other) = (Client::of(&server), Client::of(&server));
    other.subscribe("kept:b");
    other.subscribe("plain");
    one.0.send(Message::binary(b"\x01\x06kept:b\x00\xff\x01".to_vec())).expect("sent");
    let heard = other.0.read().expect("a message");
    assert_eq!(heard, Message::binary(b"\x01\x06kept:b\0\0\0\0\0\0\0\x01\x00\xff\x01".to_vec()));
    one.0.send(Message::binary(b"\x01\x05plain".to_vec())).expect("sent");
    let heard = other.0.read().expect("a message");
    assert_eq!(heard, Message::binary(b"\x01\x05plain\0\0\0\0\0\0\0\0".to_vec()));
    let history = one.ask(json!({"action": "history", "identifier": "kept:b"}));
    assert_eq!(history["publications"], json!([{"offset": 1, "binary": "AP8B"}]));
    one.0.send(Message::binary(vec![9])).expect("sent");
    assert_eq!(one.receive()["code"], "bad_publication");
}

/// When all clients have left, the server stores nothing of them.
#[test]
fn nothing_is_left_behind() {
    let server = server();
    for round in 0..20 {
        let mut clients: Vec<Client> = (0..10).map(|_| Client::of(&server)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            for channel in 0..5 {
                let identifier = format!("c{}", (number + channel) % 7);
                client.send(json!({"action": "subscribe", "identifier": identifier}));
            }
            client.send(json!({"action": "serve", "service": "s"}));
            client.send(json!({"action": "request", "service": "s", "data": round, "id": 1}));
        }
        // In half of the rounds, clients leave before their commands are answered.
        if round % 2 == 0 {
            clients.iter_mut().for_each(Client::silent_at_last);
        }
    }
    server.wait_until("empty", |stats| {
        let total = &stats["total"];
        let names = ["subscriptions", "channels", "channels_owned", "services", "requests_waiting"];
        names.iter().all(|name| total[name] == 0) && total["websockets_open"] == 0
    });
}

/// The server selects its subprotocol if it is offered, and refuses a handshake that offers only
/// others.
#[test]
fn the_subprotocol_is_negotiated() {
    let server = server();
    let handshake = |offered: &str| {
        let mut client = server.connect();
        client.send(
            format!(
                "GET /ws HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 {offered}\r\n"
            )
            .as_bytes(),
        );
        let answer = client.answer();
        (answer.status, answer.header("sec-websocket-protocol").map(str::to_owned))
    };
    let offer = |protocols: &str| handshake(&format!("Sec-WebSocket-Protocol: {protocols}\r\n"));
    assert_eq!(handshake(""), (101, None));
    assert_eq!(offer("murre.v2, murre.v1"), (101, Some("murre.v1".into())));
    assert_eq!(offer("mqtt").0, 400);
}

/// Streams and polls leave no state behind, for every way in which they end.
#[test]
fn nothing_is_left_of_streams() {
    let server = server();
    let target = "/poll?topic=kept:p&position=1-1";
    let streams: Vec<_> = (0..20)
        .map(|number| match number % 3 {
            0 => Events::open(&server, "/sse?topic=a", None).into_inner(),
            1 => Events::open(&server, "/sse?topic=a&topic=b", None).into_inner(),
            _ => {
                let mut poller = server.connect();
                poller.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
                poller.0
            }
        })
        .collect();
    server.wait_until("subscribed", |stats| stats["total"]["subscriptions"] != 0);
    drop(streams);
    server.wait_until("empty", |stats| {
        ["subscriptions", "channels", "channels_owned"].iter().all(|name| stats["total"][name] == 0)
    });
}
