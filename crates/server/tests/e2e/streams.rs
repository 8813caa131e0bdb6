//! Tests of properties that only event streams and long polls have.

use std::io::{BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chunks::Chunks;
use crate::client::Client;
use crate::guarded::{Guarded, expiring};
use crate::reader::{Event, Events, Position};
use crate::server::Server;

const OPEN: &str = "--namespace=default,publish=anyone";
const KEPT: &str = "--namespace=kept,publish=anyone,history-size=5";

fn server() -> Server {
    Server::start(&["--shards=3", "--ping-interval=1", OPEN, KEPT])
}

/// A stream has an event for its subscription, one for each publication, and comments while it is
/// silent. A client that reconnects with its last id misses nothing.
#[test]
fn a_stream_recovers() {
    let server = server();
    let mut publisher = Client::of(&server);
    let mut first = Events::open(&server, "/sse?topic=kept%3Aa", None);
    let subscribed = first.next().expect("an event");
    assert_eq!(
        (subscribed.name.as_str(), &subscribed.data["type"]),
        ("subscribed", &json!("subscribed"))
    );
    publisher.publish("kept:a", json!("one\ntwo"));
    let one = first.next().expect("an event");
    assert_eq!(
        one.data,
        json!({"type": "publication", "identifier": "kept:a", "offset": 1, "data": "one\ntwo"})
    );
    assert_eq!(
        [(); 2].map(|()| first.line()),
        [":", ""].map(|line| Some(line.into())),
        "a sign of life"
    );
    drop(first);
    publisher.publish("kept:a", json!(2));
    publisher.publish("kept:a", json!(3));
    let mut back = Events::open(&server, "/sse?topic=kept%3Aa", Some(&one.id));
    assert_eq!(back.next().expect("an event").data["recovered"], true);
    assert_eq!(
        [
            back.next().expect("an event").data["data"].take(),
            back.next().expect("an event").data["data"].take()
        ],
        [2, 3]
    );
    publisher.publish("kept:a", json!(4));
    assert_eq!(back.next().expect("an event").data["data"], 4);
    let mut lost = Events::open(&server, "/sse?topic=kept%3Aa", Some("1-1"));
    assert_eq!(lost.next().expect("an event").data["recovered"], false);
}

/// A polyfill of `EventSource` sends its last id in the query, and recovers as with the header field.
/// The header field takes precedence, and the last of several ids in the query.
#[test]
fn an_id_in_the_query_recovers() {
    let server = server();
    let mut events = Events::open(&server, "/sse?topic=kept:a&topic=kept:b", None);
    let [_, of_both] = [(); 2].map(|()| events.next().expect("an event").id);
    let of_one = Position::now(&server, "kept:a").to_string();
    Client::of(&server).publish("kept:a", json!(1));
    for (query, field) in [
        (format!("topic=kept:a&lastEventId={of_one}"), None),
        (format!("lastEventID={}&topic=kept:a", of_one.replace('-', "%2D")), None),
        (format!("topic=kept:a&lastEventId=1-1&lastEventId={of_one}"), None),
        ("topic=kept:a&lastEventId=1-1".to_owned(), Some(&*of_one)),
        (format!("topic=kept:b&topic=kept:a&lastEventId={}", of_both.replace(',', "%2C")), None),
    ] {
        let mut events = Events::open(&server, &format!("/sse?{query}"), field);
        let count = query.matches("topic").count() + 1;
        let heard: Vec<_> = (0..count).map(|_| events.next().expect("an event").data).collect();
        let (subscribed, missed): (Vec<_>, Vec<_>) =
            heard.iter().partition(|data| data["type"] == "subscribed");
        assert!(subscribed.iter().all(|data| data["recovered"] == true), "{query}: {heard:?}");
        assert_eq!((missed.len(), &missed[0]["data"]), (1, &json!(1)), "{query}");
    }
}

/// The id of an event in a stream of several channels has the positions of all channels.
#[test]
fn a_stream_of_several_channels_recovers() {
    let server = server();
    let mut publisher = Client::of(&server);
    let target = "/sse?topic=kept:a&topic=plain&topic=kept:b";
    let mut first = Events::open(&server, target, None);
    (0..3).for_each(|_| assert_eq!(first.next().expect("an event").name, "subscribed"));
    publisher.publish("kept:b", json!(1));
    publisher.publish("plain", json!(2));
    let mut last = String::new();
    for _ in 0..2 {
        last = first.next().expect("an event").id;
    }
    assert_eq!(last.split(',').count(), 3, "{last}");
    drop(first);
    publisher.publish("kept:a", json!(3));
    publisher.publish("kept:b", json!(4));
    let mut back = Events::open(&server, target, Some(&last));
    let events: Vec<Event> = (0..5).map(|_| back.next().expect("an event")).collect();
    let missed: Vec<&Value> = events
        .iter()
        .filter(|event| event.name.is_empty())
        .map(|event| &event.data["data"])
        .collect();
    assert!(missed.len() == 2 && missed.contains(&&json!(3)) && missed.contains(&&json!(4)));
}

/// A client that reconnects to the channels of its stream in another order, or to some of them,
/// receives the missed publications of each, because an id has positions by channel name.
#[test]
fn a_stream_recovers_in_any_order() {
    let server = server();
    let mut publisher = Client::of(&server);
    (0..3).for_each(|number| _ = publisher.publish("kept:a", json!(number)));
    let mut first = Events::open(&server, "/sse?topic=kept:a&topic=kept:b", None);
    (0..2).for_each(|_| assert_eq!(first.next().expect("an event").name, "subscribed"));
    publisher.publish("kept:b", json!("b1"));
    let last = first.next().expect("an event").id;
    drop(first);
    publisher.publish("kept:a", json!("a4"));
    publisher.publish("kept:b", json!("b2"));
    for (target, expected) in [
        ("/sse?topic=kept:b&topic=kept:a", vec!["a4", "b2"]),
        ("/sse?topic=kept:b", vec!["b2"]),
        ("/sse?topic=kept:new&topic=kept:a&topic=plain", vec!["a4"]),
    ] {
        let mut back = Events::open(&server, target, Some(&last));
        let channels = target.matches("topic=").count();
        let mut missed = Vec::new();
        for _ in 0..channels + expected.len() {
            let event = back.next().expect("an event");
            match event.name.as_str() {
                "subscribed" => assert_ne!(event.data["recovered"], false, "{target}"),
                _ => missed.push(event.data["data"].as_str().expect("a text").to_owned()),
            }
        }
        missed.sort();
        assert_eq!(missed, expected, "{target}");
    }
}

/// Polls count as commands of their connection: above the rate they get 429, and after a pause they
/// are served again.
#[test]
fn polls_have_a_rate() {
    let server = Server::start(&[KEPT, "--max-commands-per-second=5"]);
    let mut poller = server.connect();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(statuses.len() < 10_000, "never refused");
        statuses.push(poller.get("/poll?topic=kept:a").status);
    }
    let refused = statuses.pop();
    assert!(statuses.iter().all(|status| *status == 200) && statuses.len() >= 10, "{statuses:?}");
    assert_eq!((refused, server.connect().get("/poll?topic=kept:a").status), (Some(429), 200));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(poller.get("/poll?topic=kept:a").status, 200, "at least five tokens are back");
}

/// A poll without a position returns the current one, and a poll with that position waits for the
/// next publication. One connection serves many polls.
#[test]
fn polls_wait_for_what_is_new() {
    let server = server();
    let mut publisher = Client::of(&server);
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
    // Without a publication, the answer comes after a ping interval and is empty.
    let (_, nothing) = ask(&target(&now["position"]));
    assert_eq!((&nothing["publications"], &nothing["position"]), (&json!([]), &now["position"]));
    // Publications behind the position are returned at once.
    publisher.publish("kept:p", json!("a"));
    publisher.publish("kept:p", json!("b"));
    let (_, missed) = ask(&target(&now["position"]));
    assert_eq!(
        missed["publications"],
        json!([{"offset": 1, "data": "a"}, {"offset": 2, "data": "b"}])
    );
    // A publication during the wait is returned.
    let waiting = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        publisher.publish("kept:p", json!("c"));
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

/// Two polls of one client at one position, as retries make them, get the same answer; a poll whose
/// client has gone takes nothing from the next.
#[test]
fn polls_at_one_position_are_answered_alike() {
    let server = server();
    let position = Position::now(&server, "kept:p");
    let poll = || {
        let mut client = server.connect();
        let target = format!("/poll?topic=kept:p&position={position}");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
        client
    };
    let (gone, mut first, mut second) = (poll(), poll(), poll());
    drop(gone);
    Client::of(&server).publish("kept:p", json!("a"));
    let [first, second, later] =
        [first.answer(), second.answer(), poll().answer()].map(|answer| answer.body);
    assert!(first == second && second == later, "{}", String::from_utf8_lossy(&first));
    assert!(String::from_utf8_lossy(&first).contains("\"data\":\"a\""));
}

/// A stream has one chunk for each event, and a date in its head. A client of HTTP/1.0, which has
/// no chunks, gets the events alone until the connection ends.
#[test]
fn streams_are_framed_as_the_version_has_it() {
    let guarded = Guarded::start(&[OPEN]);
    for targets in ["/sse?topic=a", "/sse?topic=a&topic=b"] {
        let target = format!("{targets}&token={}", expiring(3600));
        let [mut new, mut old] = [(); 2].map(|()| guarded.server.connect());
        new.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
        old.send(format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes());
        let heads = [&mut new, &mut old].map(|client| client.answer_to("HEAD"));
        for (head, framing, connection) in
            [(&heads[0], Some("chunked"), Some("close")), (&heads[1], None, None)]
        {
            assert_eq!(head.status, 200);
            assert_eq!(head.header("transfer-encoding"), framing);
            assert_eq!(head.header("connection"), connection);
            assert_eq!(head.header("content-length"), None);
            assert_eq!(head.header("content-type"), Some("text/event-stream"));
            assert!(head.header("date").is_some_and(|date| date.ends_with(" GMT")));
        }
        let subscriptions = 2 * target.matches("topic").count();
        guarded.server.wait_for_subscriptions(subscriptions);
        let mut publisher = Client::of(&guarded.server);
        publisher.publish("a", json!(1));
        assert_eq!(guarded.post("/api/disconnect", r#"{"user":"ann"}"#).1["disconnected"], 2);
        let mut chunks = Chunks::new(BufReader::new(new.0));
        let mut events = String::new();
        chunks.read_to_string(&mut events).expect("text");
        assert!(chunks.ended, "{events}");
        let unchunked = String::from_utf8(old.rest()).expect("text");
        // The shards of several channels answer in any order.
        let sorted = |events: &str| {
            let mut events: Vec<_> = events.split_inclusive("\n\n").map(str::to_owned).collect();
            events[..subscriptions / 2].sort();
            events
        };
        assert_eq!(sorted(&unchunked), sorted(&events));
        assert!(events.starts_with("event: subscribed\n"), "{events}");
        assert_eq!(events.matches("\n\n").count(), subscriptions / 2 + 2, "{events}");
        assert!(events.contains("\ndata: {\"type\":\"publication\""), "{events}");
    }
}

/// HEAD gets the status that GET would get, at once and without a body, and the connection
/// continues.
#[test]
fn heads_of_streams_and_polls() {
    let guarded = Guarded::start(&[OPEN, KEPT, "--namespace=closed,subscribe=nobody"]);
    let position = Position::now(&guarded.server, "kept:a");
    let mut client = guarded.server.connect();
    for (target, status, content_type) in [
        ("/sse?topic=a", 200, "text/event-stream"),
        ("/sse?topic=a&topic=kept:a", 200, "text/event-stream"),
        ("/sse", 400, "application/json"),
        ("/sse?topic=closed:a", 403, "application/json"),
        ("/poll?topic=kept:a", 200, "application/json"),
        (&format!("/poll?topic=kept:a&position={position}"), 200, "application/json"),
        ("/poll?topic=kept:a&position=x", 400, "application/json"),
        ("/poll?topic=a", 400, "application/json"),
    ] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
        let head = client.answer_to("HEAD");
        assert_eq!((head.status, head.header("content-type")), (status, Some(content_type)));
        assert_eq!(head.header("content-length").is_some(), status != 200, "{head:?}");
        // A proxy that compresses would hold events back.
        let is_stream = content_type == "text/event-stream";
        let cache = if is_stream { "no-store, no-transform" } else { "no-store" };
        assert_eq!(head.header("cache-control"), Some(cache));
        assert_eq!(head.header("connection"), None);
        assert!(head.header("date").is_some());
    }
    let stats = guarded.server.stats();
    assert_eq!(stats["total"]["subscriptions"], 0, "nothing has begun");
    client.send(b"HEAD /sse?topic=a&token=x HTTP/1.1\r\nHost: m\r\n\r\n");
    let refused = client.answer_to("HEAD");
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")));
    assert!(client.rest().is_empty());
}

/// The answer to a poll says whether the connection stays open (RFC 9112 section 9.6): as the
/// client asked, but not if the client has sent other bytes during the wait.
#[test]
fn polls_say_what_becomes_of_the_connection() {
    let server = server();
    let position = Position::now(&server, "kept:a");
    let target = format!("/poll?topic=kept:a&position={position}");
    for (version, fields, then, connection) in [
        ("1.1", "", "", None),
        ("1.1", "Connection: close\r\n", "", Some("close")),
        ("1.1", "", "GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n", Some("close")),
        ("1.0", "", "", None),
        ("1.0", "Connection: keep-alive\r\n", "", Some("keep-alive")),
        ("1.0", "Connection: keep-alive\r\n", "GET", None),
    ] {
        let what = format!("HTTP/{version} {fields:?} {then:?}");
        let mut client = server.connect();
        client.send(
            format!("GET {target} HTTP/{version}\r\nHost: m\r\n{fields}\r\n{then}").as_bytes(),
        );
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, connection), "{what}");
        assert!(answer.header("date").is_some(), "{what}");
        if connection == Some("close") || version == "1.0" && connection.is_none() {
            assert!(client.rest().is_empty(), "{what}");
        } else {
            assert_eq!(client.get("/healthz").status, 200, "{what}");
        }
    }
}

/// A poll waits for a whole ping interval, even if the server checks its connection earlier.
#[test]
fn polls_wait_for_a_whole_interval() {
    let server = Server::start(&["--ping-interval=2", "--slow-timeout=0.3", KEPT]);
    let position = Position::now(&server, "kept:a");
    // The time of the first check differs between slots.
    let mut polls: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let begun = Instant::now();
    for poll in &mut polls {
        let target = format!("/poll?topic=kept:a&position={position}");
        poll.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    }
    for poll in &mut polls {
        assert_eq!(poll.answer().status, 200);
        // The server counts in milliseconds.
        assert!(begun.elapsed() >= Duration::from_millis(1999), "{:?}", begun.elapsed());
    }
}

/// A request for the most channels of a stream, with the longest names and every byte escaped, fits
/// the default limits.
#[test]
fn the_largest_stream_fits() {
    let server = server();
    let channel = |number: usize| format!("{number:02}{}", "\u{e9}".repeat(126)) + "x";
    let names: Vec<String> = (0..32).map(channel).collect();
    assert!(names.iter().all(|name| name.len() == 255));
    let escaped = |name: &String| name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: Vec<String> = names.iter().map(escaped).collect();
    let mut events =
        Events::open(&server, &format!("/sse?channel={}", escaped.join("&channel=")), None);
    // The owners of the channels, on several shards, answer in any order.
    let mut subscribed: Vec<_> = (0..names.len())
        .map(|_| events.next().expect("an event").data["identifier"].to_string())
        .collect();
    subscribed.sort();
    assert!(subscribed.into_iter().eq(names.iter().map(|name| json!(name).to_string())));
}
