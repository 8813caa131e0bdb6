//! Channels over WebSocket, by tungstenite's client: `docs/protocol.md`, line by line.

use std::collections::HashMap;
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

use crate::server::{PATIENCE, Server};

/// A namespace in which anyone may do anything, and one that keeps the newest five besides.
const OPEN: &str = "--namespace=default,publish=anyone,serve=anyone";
const KEPT: &str = "--namespace=kept,publish=anyone,history-size=5,history-ttl=300";

/// Several shards, so that most channels are owned by another than their subscribers'.
fn server() -> Server {
    Server::start(&["--shards=3", OPEN, KEPT])
}

/// A client of `/ws`.
pub(crate) struct Client(pub(crate) WebSocket<TcpStream>);

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        Client::at(server, "/ws")
    }

    pub(crate) fn at(server: &Server, path: &str) -> Self {
        let socket = server.websocket(path);
        socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client(socket)
    }

    pub(crate) fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).expect("sent");
    }

    pub(crate) fn hear(&mut self) -> Value {
        match self.0.read().unwrap_or_else(|error| panic!("no message: {error}")) {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) => self.hear(),
            other => panic!("{other:?}"),
        }
    }

    /// Says a command and hears its answer; nothing else is to come first.
    pub(crate) fn ask(&mut self, mut command: Value) -> Value {
        command["id"] = json!(77);
        self.say(command);
        let mut answer = self.hear();
        assert_eq!(answer["id"].take(), json!(77), "{answer}");
        answer.as_object_mut().expect("an object").remove("id");
        answer
    }

    pub(crate) fn subscribe(&mut self, identifier: &str) -> Value {
        let answer = self.ask(json!({"action": "subscribe", "identifier": identifier}));
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    fn publish(&mut self, identifier: &str, data: Value) -> Value {
        let answer = self.ask(json!({"action": "publish", "identifier": identifier, "data": data}));
        assert_eq!(answer["type"], "published", "{answer}");
        answer
    }

    /// The code of the error that a command ends with.
    pub(crate) fn error(&mut self, command: Value) -> String {
        let answer = self.ask(command);
        assert_eq!(answer["type"], "error", "{answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }

    /// Nothing more has come: what is asked last is answered next.
    fn silent(&mut self) {
        assert_eq!(self.ask(json!({"action": "ping"}))["type"], "pong");
    }

    fn closed(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(CloseFrame { code, .. }))) => return code.into(),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What one says the others hear, the publisher too if it is subscribed; who has unsubscribed does
/// not. What was sent in 2012 is still understood.
#[test]
fn publications_reach_the_subscribers() {
    let server = server();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::of(&server)).collect();
    for client in &mut clients {
        client.say(json!({"action": "subscribe", "identifier": "AAPL"}));
        assert_eq!(client.hear(), json!({"type": "subscribed", "identifier": "AAPL"}));
    }
    let data =
        json!({"bid": 1.5, "text": "größe \u{1F427} \" \\", "large": 12345678901234567890u64});
    clients[0].say(json!({"action": "publish", "identifier": "AAPL", "data": data}));
    let expected = json!({"type": "publication", "identifier": "AAPL", "data": data});
    for client in &mut clients {
        assert_eq!(client.hear(), expected);
    }
    clients[1].say(json!({"action": "unsubscribe", "identifier": "AAPL", "id": "x"}));
    let unsubscribed = json!({"type": "unsubscribed", "identifier": "AAPL", "id": "x"});
    assert_eq!(clients[1].hear(), unsubscribed);
    let mut publisher = Client::of(&server);
    let published = publisher.publish("AAPL", json!([1]));
    assert_eq!(published, json!({"type": "published", "identifier": "AAPL"}));
    for (number, client) in clients.iter_mut().enumerate() {
        if number != 1 {
            assert_eq!(client.hear()["data"], json!([1]));
        }
        client.silent();
    }
}

/// Every subscriber hears every channel in one order, and each publisher's in its own, with
/// publishers and subscribers on all shards.
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
            client.say(json!({"action": "publish", "identifier": "chat", "data": data}));
        }
    }
    let mut hear_all = |client: &mut Client| -> Vec<Value> {
        (0..4 * EACH).map(|_| client.hear()["data"].take()).collect()
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

/// Who comes back with its position hears what it missed and then goes on, without a gap and
/// without hearing anything twice; who was away for too long is told.
#[test]
fn a_position_recovers_what_was_missed() {
    let server = server();
    let mut publisher = Client::of(&server);
    let mut away = Client::of(&server);
    let start = away.subscribe("kept:a");
    assert_eq!(start["position"]["offset"], 0);
    for number in 1..=7 {
        let published = publisher.publish("kept:a", json!(number));
        assert_eq!(published["position"]["offset"], number);
        assert_eq!(published["position"]["epoch"], start["position"]["epoch"]);
    }
    let epoch = &start["position"]["epoch"];
    let subscribe = |position: Value| json!({"action": "subscribe", "identifier": "kept:a", "position": position});
    // Five are kept: 3 to 7.
    for (offset, recovered) in [(7, true), (4, true), (2, true), (1, false), (0, false), (8, false)]
    {
        let mut back = Client::of(&server);
        let answer = back.ask(subscribe(json!({"epoch": epoch, "offset": offset})));
        assert_eq!(answer["recovered"], recovered, "from {offset}");
        assert_eq!(answer["position"]["offset"], 7);
        for number in if recovered { offset + 1 } else { 8 }..=7 {
            let publication = back.hear();
            assert_eq!(
                (&publication["offset"], &publication["data"]),
                (&json!(number), &json!(number))
            );
        }
        back.silent();
    }
    let mut stranger = Client::of(&server);
    let other = json!({"epoch": epoch.as_u64().map(|epoch| (epoch as u32) ^ 1), "offset": 7});
    assert_eq!(stranger.ask(subscribe(other))["recovered"], false);
    let live = publisher.publish("kept:a", json!("live"));
    assert_eq!(stranger.hear()["offset"], live["position"]["offset"]);
    let history = json!({"action": "history", "identifier": "kept:a", "limit": 2});
    let history = stranger.ask(history);
    assert_eq!(history["position"], live["position"]);
    assert_eq!(
        history["publications"],
        json!([
            {"offset": 7, "data": 7}, {"offset": 8, "data": "live"}
        ])
    );
    assert_eq!(stranger.error(json!({"action": "history", "identifier": "a"})), "no_history");
}

/// Positions move while publications are under way: nobody loses or hears twice.
#[test]
fn recovery_is_exact_while_publishing() {
    let server = Server::start(&[
        "--shards=3",
        "--namespace=kept,publish=anyone,history-size=10000",
        "--max-commands-per-second=60000",
    ]);
    let mut publisher = Client::of(&server);
    let mut reader = Client::of(&server);
    let mut position = reader.subscribe("kept:a")["position"].clone();
    let mut seen = 0;
    for round in 0..40 {
        for number in 0..50 {
            let data = json!(round * 50 + number + 1);
            publisher.say(json!({"action": "publish", "identifier": "kept:a", "data": data}));
        }
        while seen < (round * 50 + 20) {
            let publication = reader.hear();
            seen += 1;
            assert_eq!(publication["data"], seen);
            position["offset"] = publication["offset"].clone();
        }
        reader = Client::of(&server);
        let subscribe =
            json!({"action": "subscribe", "identifier": "kept:a", "position": position});
        assert_eq!(reader.ask(subscribe)["recovered"], true);
    }
    while seen < 2000 {
        seen += 1;
        assert_eq!(reader.hear()["data"], seen);
    }
}

/// Bytes go to everybody as bytes, and are base64 in what is JSON.
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
    assert_eq!(one.hear()["code"], "bad_publication");
}

/// Requests are spread over those who offer the service, and each is answered by one.
#[test]
fn requests_are_spread_and_answered() {
    let server = server();
    let mut workers: Vec<Client> = (0..3).map(|_| Client::of(&server)).collect();
    for worker in &mut workers {
        let serving = worker.ask(json!({"action": "serve", "service": "double"}));
        assert_eq!(serving, json!({"type": "serving", "service": "double"}));
        worker.silent();
    }
    let mut asker = Client::of(&server);
    for number in 0..9 {
        let request =
            json!({"action": "request", "service": "double", "data": number, "id": number});
        asker.say(request);
    }
    for worker in &mut workers {
        for _ in 0..3 {
            let request = worker.hear();
            assert_eq!(
                (&request["type"], &request["service"]),
                (&json!("request"), &json!("double"))
            );
            let doubled = request["data"].as_u64().expect("a number") * 2;
            worker.say(json!({"action": "reply", "request": request["request"], "data": doubled}));
        }
        worker.silent();
    }
    let mut answers: Vec<(u64, u64)> = (0..9)
        .map(|_| {
            let answer = asker.hear();
            assert_eq!(answer["type"], "response", "{answer}");
            (answer["id"].as_u64().expect("an id"), answer["data"].as_u64().expect("a number"))
        })
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, (0..9).map(|number| (number, 2 * number)).collect::<Vec<_>>());
}

/// Every way in which a request comes to nothing is told, and at once where it is known.
#[test]
fn requests_that_fail() {
    let server = server();
    let (mut worker, mut asker) = (Client::of(&server), Client::of(&server));
    let request = json!({"action": "request", "service": "slow", "data": null, "timeout": 60000});
    assert_eq!(asker.error(request.clone()), "no_responders");
    worker.ask(json!({"action": "serve", "service": "slow"}));

    asker.say(json!({"action": "request", "service": "slow", "data": 1, "id": 1}));
    let asked = worker.hear();
    worker.say(json!({"action": "reply", "request": asked["request"], "error": "out of eggs"}));
    let failed = asker.hear();
    assert_eq!(
        (&failed["code"], &failed["message"], &failed["id"]),
        (&json!("responder_failed"), &json!("out of eggs"), &json!(1))
    );
    let again = json!({"action": "reply", "request": asked["request"], "data": 1});
    assert_eq!(worker.error(again), "unknown_request");

    let mut quick = request.clone();
    quick["timeout"] = json!(100);
    assert_eq!(asker.error(quick), "timeout");
    worker.hear();

    asker.say(json!({"action": "request", "service": "slow", "data": 2, "id": 2}));
    worker.hear();
    drop(worker);
    assert_eq!(asker.hear()["code"], "responder_gone");
    assert_eq!(asker.error(request), "no_responders");
}

/// What a namespace does not allow is refused, and the connection stays.
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

/// Every bound has its error, and what is within it goes on.
#[test]
fn limits_are_told() {
    let server = Server::start(&[
        OPEN,
        "--max-channels=3",
        "--max-commands-per-second=50",
        "--max-publication-bytes=100",
        "--max-identifier-bytes=20",
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
    assert_eq!(client.hear()["code"], "bad_json");
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
            // The rest of what was said may be answered with a reset.
            Err(Error::Io(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(codes.iter().any(|code| code == "pong") && codes.iter().any(|code| code == "too_fast"));
}

/// A subscriber that does not read is dealt with as its namespace says; others hear everything.
#[test]
fn slow_consumers() {
    let server = Server::start(&[
        "--namespace=o,publish=anyone,slow=drop_oldest",
        "--namespace=l,publish=anyone,slow=latest_only",
        "--max-send-bytes=200000",
        "--max-commands-per-second=60000",
    ]);
    const COUNT: u64 = 300;
    let channels = ["o:x", "l:x"];
    let mut slow: Vec<Client> = channels
        .iter()
        .map(|channel| {
            let mut client = Client::of(&server);
            client.subscribe(channel);
            client
        })
        .collect();
    let mut publisher = Client::of(&server);
    let (mut healthy, filling) = (Client::of(&server), "x".repeat(50_000));
    channels.iter().for_each(|channel| _ = healthy.subscribe(channel));
    for number in 1..=COUNT {
        for channel in channels {
            let data = json!([number, filling]);
            publisher.say(json!({"action": "publish", "identifier": channel, "data": data}));
            let heard = healthy.hear();
            assert_eq!(
                (&heard["identifier"], &heard["data"][0]),
                (&json!(channel), &json!(number))
            );
        }
    }
    for (client, kept) in slow.iter_mut().zip([100, 1]) {
        let (mut sum, mut last, mut after_the_drop) = (0, 0, 0);
        while last < COUNT {
            let heard = client.hear();
            if heard["type"] == "dropped" {
                sum += heard["count"].as_u64().expect("a count");
                after_the_drop = 0;
                continue;
            }
            let number = heard["data"][0].as_u64().expect("a number");
            assert!(number > last, "in order");
            (last, sum, after_the_drop) = (number, sum + 1, after_the_drop + 1);
        }
        assert_eq!(sum, COUNT, "each was heard or told as dropped");
        assert_eq!(after_the_drop, kept);
    }
}

/// In a namespace that disconnects them, slow consumers are told so.
#[test]
fn slow_consumers_are_disconnected() {
    let server = Server::start(&[OPEN, "--max-send-bytes=200000"]);
    let mut slow = Client::of(&server);
    slow.subscribe("x");
    let mut publisher = Client::of(&server);
    let data = json!("x".repeat(50_000));
    let disconnected = |stats: &Value| stats["total"]["slow_consumers_disconnected"] == 1;
    while !disconnected(&server.stats()) {
        publisher.publish("x", data.clone());
    }
    assert_eq!(slow.closed(), 1013);
}

/// When everybody has left nothing is left of anything.
#[test]
fn nothing_is_left_behind() {
    let server = server();
    for round in 0..20 {
        let mut clients: Vec<Client> = (0..10).map(|_| Client::of(&server)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            for channel in 0..5 {
                let identifier = format!("c{}", (number + channel) % 7);
                client.say(json!({"action": "subscribe", "identifier": identifier}));
            }
            client.say(json!({"action": "serve", "service": "s"}));
            client.say(json!({"action": "request", "service": "s", "data": round, "id": 1}));
        }
        // Some leave with everything under way.
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

impl Client {
    /// Waits for the answer to the last thing said, whatever comes before it.
    fn silent_at_last(&mut self) {
        self.say(json!({"action": "ping"}));
        while self.hear()["type"] != "pong" {}
    }
}

/// The subprotocol is chosen if it is offered; others alone are refused.
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
