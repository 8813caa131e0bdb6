//! Tests of what waits for a call, and of what ends while it is out.

use serde_json::{Value, json};
use tungstenite::Message;

use super::{ok, publish, start, subscribe, that_does};
use crate::application::Do;
use crate::client::Client;
use crate::costs::{KEY, bad_token};

/// Commands of a channel wait for its call and keep their order; those of other channels go on, and pings
/// of WebSocket are answered.
#[test]
fn one_channel_waits() {
    let application = that_does("subscribe", |_| Do::SayLater(400, ok()));
    let server = start(&application, &["--shards=2"]);
    let mut client = Client::of(&server);
    let id = |id: u64, mut command: Value| {
        command["id"] = json!(id);
        command
    };
    let unsubscribe = json!({"action": "unsubscribe", "identifier": "ask:x"});
    let history = json!({"action": "history", "identifier": "ask:x"});
    client.send(json!([
        id(1, subscribe("ask:x")),
        id(2, history.clone()),
        id(3, history),
        id(4, unsubscribe),
        id(5, subscribe("news")),
        id(6, json!({"action": "ping"})),
    ]));
    client.0.send(Message::Ping("p".into())).expect("sent");
    let mut order = Vec::new();
    while order.len() < 7 {
        match client.0.read().expect("a message") {
            Message::Text(text) => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                assert_ne!(answer["type"], "error", "{answer}");
                order.push(answer["id"].as_u64().expect("an id"));
            }
            Message::Pong(_) => order.push(0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(order[3..], [1, 2, 3, 4], "{order:?}");
    server.wait_until("left", |stats| stats["total"]["backend_calls_waiting"] == 0);
}

/// A connection has 16 waiting commands, and 64 KiB of them; more are refused, and none is lost.
#[test]
fn waiting_commands_are_bounded() {
    let application = that_does("publish", |_| Do::SayLater(300, ok()));
    let server = start(&application, &["--shards=1", "--backend-timeout=60"]);
    let mut client = Client::of(&server);
    let long = "x".repeat(40_000);
    for (commands, waits) in [(20, 16), (3, 1)] {
        for id in 0..commands {
            let data = if commands == 3 { json!(long) } else { json!(id) };
            let command =
                json!({"action": "publish", "identifier": "ask:x", "data": data, "id": id});
            client.send(command);
        }
        let (mut published, mut refused) = (Vec::new(), 0);
        for _ in 0..commands {
            let answer = client.receive();
            match answer["code"].as_str() {
                None => published.push(answer["id"].as_u64().expect("an id")),
                Some("too_many") => refused += 1,
                Some(other) => panic!("{other}"),
            }
        }
        assert_eq!((published.len(), refused), (waits, commands as usize - waits));
        assert!(published.is_sorted());
    }
}

/// A connection that ends while a call is out, and one that draws its subscription back: nothing arrives,
/// and nothing is left.
#[test]
fn connections_end_during_calls() {
    let application = that_does("subscribe", |_| Do::SayLater(300, ok()));
    let server = start(&application, &["--shards=2"]);
    for _ in 0..3 {
        let mut client = Client::of(&server);
        client.send(subscribe("ask:x"));
        client.send(publish("ask:x"));
        drop(client);
        let mut request = server.connect();
        request.send(b"GET /sse?channel=ask:x HTTP/1.1\r\nHost: m\r\n\r\n");
        drop(request);
    }
    application.wait_for("subscribe", 6);
    let mut client = Client::of(&server);
    client.send(subscribe("ask:x"));
    client.send(json!({"action": "unsubscribe", "identifier": "ask:x"}));
    // The owner of the channel may hear of both at once: then the subscription is an error.
    let answers = [client.receive(), client.receive()];
    assert!(answers.iter().any(|answer| answer["type"] == "unsubscribed"), "{answers:?}");
    server.wait_until("left", |stats| {
        let total = &stats["total"];
        total["backend_calls_waiting"] == 0
            && total["subscriptions"] == 0
            && stats["connections"] == 1
    });
    client.silent();
    let metrics = server.admin("/metrics");
    let late = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("murre_backend_answers_late_total "));
    assert!(late.is_some_and(|late| late != "0"), "{late:?}");
}

/// Commands that wait behind a call, and whose tokens take more time than a turn has, go on in later turns.
#[test]
fn waiting_tokens_take_several_turns() {
    let application = that_does("subscribe", |_| Do::SayLater(200, ok()));
    let server = start(&application, &["--shards=1", KEY]);
    let mut client = Client::of(&server);
    for id in 0..12 {
        let mut command = subscribe("ask:x");
        command["id"] = json!(id);
        if id > 0 {
            command["token"] = json!(bad_token(id));
        }
        client.send(command);
    }
    for id in 0..12 {
        let answer = client.receive();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["type"], if id == 0 { "subscribed" } else { "error" }, "{answer}");
    }
    client.silent();
}

/// Messages of a Phoenix client about a topic wait behind a call, keep their order, and lock nothing.
#[test]
fn a_topic_goes_on_after_a_call() {
    let application = that_does("publish", |_| Do::SayLater(300, ok()));
    let server = start(&application, &["--shards=1"]);
    let mut client = server.websocket("/socket/websocket?vsn=2.0.0");
    let mut say = |text: &str| client.send(Message::text(text)).expect("sent");
    say(r#"["1","1","ask:x","phx_join",{}]"#);
    say(r#"["1","2","ask:x","msg",{"a":1}]"#);
    application.wait_for("publish", 1);
    say(r#"["1","3","ask:x","phx_leave",{}]"#);
    say(r#"["4","4","ask:x","phx_join",{}]"#);
    say(r#"["4","5","ask:x","msg",{"a":2}]"#);
    let mut replies = Vec::new();
    while replies.len() < 5 {
        let Message::Text(text) = client.read().expect("a message") else { continue };
        if text.contains("phx_reply") {
            replies.push(text[..text.find(",\"ask").expect("a topic")].to_owned());
        }
    }
    let refs = |join_ref, reference| format!(r#"["{join_ref}","{reference}""#);
    let expected = [refs(1, 1), refs(1, 2), refs(1, 3), refs(4, 4), refs(4, 5)];
    assert_eq!(replies, expected);
}
