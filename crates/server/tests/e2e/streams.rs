//! Channels without WebSocket: Server-Sent Events and long polls.

use serde_json::{Value, json};

use crate::channels::Client as Subscriber;
use crate::server::{Client, Server};

const OPEN: &str = "--namespace=default,publish=anyone";
const KEPT: &str = "--namespace=kept,publish=anyone,history-size=5";

fn server() -> Server {
    Server::start(&["--shards=3", "--ping-interval=1", OPEN, KEPT])
}

/// One event of a stream.
#[derive(Debug, Default, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// A stream, whose head has been read.
fn stream(server: &Server, target: &str, last: Option<&str>) -> Client {
    let mut client = server.connect();
    let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n{last}\r\n").as_bytes());
    let head = lines(&mut client, b"\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/event-stream\r\n"), "{head}");
    client
}

fn lines(client: &mut Client, end: &[u8]) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.extend(client.bytes(1));
    }
    String::from_utf8(bytes).expect("text")
}

/// The next event that is one, as a browser reads it.
fn event(client: &mut Client) -> Event {
    let mut event = Event::default();
    for line in lines(client, b"\n\n").lines() {
        match line.split_once(": ") {
            Some(("event", name)) => event.name = name.into(),
            Some(("id", id)) => event.id = id.into(),
            Some(("data", data)) => event.data = serde_json::from_str(data).expect("JSON"),
            _ => assert!(line.is_empty() || line == ":", "{line}"),
        }
    }
    if event.data.is_null() { self::event(client) } else { event }
}

fn publish(publisher: &mut Subscriber, identifier: &str, data: Value) {
    let published =
        publisher.ask(json!({"action": "publish", "identifier": identifier, "data": data}));
    assert_eq!(published["type"], "published", "{published}");
}

/// A stream says that it is subscribed, then each publication; signs of life go between. Cut off
/// and back with its last id it has missed nothing.
#[test]
fn a_stream_recovers() {
    let server = server();
    let mut publisher = Subscriber::of(&server);
    let mut first = stream(&server, "/sse?topic=kept%3Aa", None);
    let subscribed = event(&mut first);
    assert_eq!(
        (subscribed.name.as_str(), &subscribed.data["type"]),
        ("subscribed", &json!("subscribed"))
    );
    publish(&mut publisher, "kept:a", json!("one\ntwo"));
    let one = event(&mut first);
    assert_eq!(
        one.data,
        json!({"type": "publication", "identifier": "kept:a", "offset": 1, "data": "one\ntwo"})
    );
    assert_eq!(lines(&mut first, b"\n\n"), ":\n\n", "a sign of life");
    drop(first);
    publish(&mut publisher, "kept:a", json!(2));
    publish(&mut publisher, "kept:a", json!(3));
    let mut back = stream(&server, "/sse?topic=kept%3Aa", Some(&one.id));
    assert_eq!(event(&mut back).data["recovered"], true);
    assert_eq!(
        [event(&mut back).data["data"].take(), event(&mut back).data["data"].take()],
        [2, 3]
    );
    publish(&mut publisher, "kept:a", json!(4));
    assert_eq!(event(&mut back).data["data"], 4);
    let mut lost = stream(&server, "/sse?topic=kept%3Aa", Some("1-1"));
    assert_eq!(event(&mut lost).data["recovered"], false);
}

/// The id of a stream of several channels holds the positions of all of them.
#[test]
fn a_stream_of_several_channels_recovers() {
    let server = server();
    let mut publisher = Subscriber::of(&server);
    let target = "/sse?topic=kept:a&topic=plain&topic=kept:b";
    let mut first = stream(&server, target, None);
    (0..3).for_each(|_| assert_eq!(event(&mut first).name, "subscribed"));
    publish(&mut publisher, "kept:b", json!(1));
    publish(&mut publisher, "plain", json!(2));
    let mut last = String::new();
    for _ in 0..2 {
        last = event(&mut first).id;
    }
    assert_eq!(last.split(',').count(), 3, "{last}");
    drop(first);
    publish(&mut publisher, "kept:a", json!(3));
    publish(&mut publisher, "kept:b", json!(4));
    let mut back = stream(&server, target, Some(&last));
    let events: Vec<Event> = (0..5).map(|_| event(&mut back)).collect();
    let missed: Vec<&Value> = events
        .iter()
        .filter(|event| event.name.is_empty())
        .map(|event| &event.data["data"])
        .collect();
    assert!(missed.len() == 2 && missed.contains(&&json!(3)) && missed.contains(&&json!(4)));
}

/// A poll without a position tells the current one; with it, it waits for what follows; the
/// connection is used again and again.
#[test]
fn polls_wait_for_what_is_new() {
    let server = server();
    let mut publisher = Subscriber::of(&server);
    let mut poller = server.connect();
    let mut ask = |target: &str| {
        let answer = poller.get(target);
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, body)
    };
    let target = |position: &Value| {
        format!("/poll?topic=kept:p&position={}-{}", position["epoch"], position["offset"])
    };
    let (status, now) = ask("/poll?topic=kept:p");
    assert_eq!((status, &now["publications"]), (200, &json!([])));
    // Nothing comes: the answer says so after a ping interval.
    let (_, nothing) = ask(&target(&now["position"]));
    assert_eq!((&nothing["publications"], &nothing["position"]), (&json!([]), &now["position"]));
    // Something is there already.
    publish(&mut publisher, "kept:p", json!("a"));
    publish(&mut publisher, "kept:p", json!("b"));
    let (_, missed) = ask(&target(&now["position"]));
    assert_eq!(
        missed["publications"],
        json!([{"offset": 1, "data": "a"}, {"offset": 2, "data": "b"}])
    );
    // Something comes while it waits.
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        publish(&mut publisher, "kept:p", json!("c"));
        publisher
    });
    let (_, news) = ask(&target(&missed["position"]));
    assert_eq!(news["publications"], json!([{"offset": 3, "data": "c"}]));
    drop(waiting.join().expect("published"));
    assert_eq!(ask("/poll?topic=kept:p&position=1-1").1["recovered"], false);
    assert_eq!(ask("/poll?topic=plain").0, 400);
    assert_eq!(ask("/poll?topic=plain").1["code"], "no_history");
    assert_eq!(ask("/poll").0, 400);
}

/// What a WebSocket may not have a stream may not either.
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

/// A stream that is not read is ended, and what was sent of it is a stream to its end.
#[test]
fn slow_streams_are_ended() {
    let server = Server::start(&[OPEN, "--max-send-bytes=200000"]);
    let mut slow = stream(&server, "/sse?topic=x", None);
    let mut publisher = Subscriber::of(&server);
    let disconnected = |stats: &Value| stats["total"]["slow_consumers_disconnected"] == 1;
    while !disconnected(&server.stats()) {
        publish(&mut publisher, "x", json!("x".repeat(50_000)));
    }
    let sent = String::from_utf8(slow.rest()).expect("text");
    assert!(sent.starts_with("event: subscribed\n"), "{}", &sent[..100.min(sent.len())]);
}

/// Streams and polls that end leave nothing behind, however they end.
#[test]
fn nothing_is_left_of_streams() {
    let server = server();
    let streams: Vec<Client> = (0..20)
        .map(|number| match number % 3 {
            0 => stream(&server, "/sse?topic=a", None),
            1 => stream(&server, "/sse?topic=a&topic=b", None),
            _ => {
                let mut poller = server.connect();
                poller.send(b"GET /poll?topic=kept:p&position=1-1 HTTP/1.1\r\nHost: m\r\n\r\n");
                poller
            }
        })
        .collect();
    server.wait_until("subscribed", |stats| stats["total"]["subscriptions"] != 0);
    drop(streams);
    server.wait_until("empty", |stats| {
        ["subscriptions", "channels", "channels_owned"].iter().all(|name| stats["total"][name] == 0)
    });
}
