//! Event streams and long polls: what is particular to them.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::reader::{Event, Events};
use crate::server::Server;

const OPEN: &str = "--namespace=default,publish=anyone";
const KEPT: &str = "--namespace=kept,publish=anyone,history-size=5";

fn server() -> Server {
    Server::start(&["--shards=3", "--ping-interval=1", OPEN, KEPT])
}

/// A stream says that it is subscribed, then each publication; signs of life go between. Cut off
/// and back with its last id it has missed nothing.
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

/// The id of a stream of several channels holds the positions of all of them.
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

/// A poll without a position tells the current one; with it, it waits for what follows; the
/// connection is used again and again.
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
    // Nothing comes: the answer says so after a ping interval.
    let (_, nothing) = ask(&target(&now["position"]));
    assert_eq!((&nothing["publications"], &nothing["position"]), (&json!([]), &now["position"]));
    // Something is there already.
    publisher.publish("kept:p", json!("a"));
    publisher.publish("kept:p", json!("b"));
    let (_, missed) = ask(&target(&now["position"]));
    assert_eq!(
        missed["publications"],
        json!([{"offset": 1, "data": "a"}, {"offset": 2, "data": "b"}])
    );
    // Something comes while it waits.
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
