//! Tests of readers that come back with a position.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::client::Client;
use crate::matrix::{SERVERS, SHARDS, SLOW, TRANSPORTS, Transport};
use crate::reader::{Events, Heard, Position, Reader};
use crate::server::Server;

/// A namespace for each rule `slow`, which keeps 1000 publications.
pub(crate) fn kept_by_slow() -> String {
    let rules = SLOW.map(|slow| format!("{slow},publish=anyone,history-size=1000,slow={slow}"));
    format!("--namespace={}", rules.join(";"))
}

/// A flag that allows far more commands per second than tests send.
pub(crate) const FAST: &str = "--max-commands-per-second=1000000";

/// The data of publication `number` of a test, with a filling of `bytes` bytes.
pub(crate) fn numbered(number: u64, bytes: usize) -> Value {
    json!([number, "x".repeat(bytes)])
}

/// A reader that missed 2.4 MB receives all of it in order and once, and then live publications,
/// even with the smallest logs.
#[test]
fn a_recovery_of_any_size_is_complete() {
    const MISSED: u64 = 300;
    over!(server in SERVERS, logs in ["--max-log-bytes=8388608", "--max-log-bytes=1024"] => {
        let server = Server::start(&[server[0], server[1], logs, FAST, &kept_by_slow()]);
        let mut publisher = Client::of(&server);
        over!(slow in SLOW => {
            let channel = format!("{slow}:a");
            let start = Position::now(&server, &channel);
            let missed = (1..=MISSED).map(|number| numbered(number, 8_000));
            publisher.publish_all(&channel, missed);
            over!(transport in TRANSPORTS => {
                let mut reader = Reader::begin(&server, transport, &channel, Some(start));
                for number in 1..=MISSED {
                    let Heard::Publication { offset, data } = reader.next() else {
                        panic!("publication {number} is missing");
                    };
                    assert_eq!((offset, &data[0]), (Some(number), &json!(number)));
                }
                assert_eq!(reader.recovered, Some(true));
            });
        });
    });
}

/// If one batch or one stream recovers many channels, the answer for each channel comes before its
/// missed publications, and none of these is left out.
#[test]
fn many_channels_are_recovered_at_once() {
    const CHANNELS: u64 = 20;
    const MISSED: u64 = 30;
    let kept = "--namespace=default,publish=anyone,history-size=1000";
    over!(server in SERVERS, bytes in [1, 8_000] => {
        let server = Server::start(&[&server[..], &[FAST, kept]].concat());
        let names: Vec<String> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
        let starts: Vec<_> = names.iter().map(|name| Position::now(&server, name)).collect();
        let mut publisher = Client::of(&server);
        for name in &names {
            publisher.publish_all(name, (1..=MISSED).map(|number| numbered(number, bytes)));
        }
        let mut client = Client::of(&server);
        let subscribe = |(name, start): (&String, &Position)| {
            json!({"action": "subscribe", "identifier": name, "position": start.json()})
        };
        client.send(Value::from(names.iter().zip(&starts).map(subscribe).collect::<Vec<_>>()));
        all_in_order(|| client.receive());
        let topics: Vec<_> = names.iter().map(|name| format!("topic={name}")).collect();
        let parts = names.iter().zip(&starts).map(|(name, start)| start.of_several(name));
        let last: Vec<_> = parts.collect();
        let target = format!("/sse?{}", topics.join("&"));
        let mut events = Events::open(&server, &target, Some(&last.join(",")));
        all_in_order(|| events.next().expect("an event").data);
    });

    fn all_in_order(mut hear: impl FnMut() -> Value) {
        let mut next = HashMap::new();
        for _ in 0..CHANNELS * (1 + MISSED) {
            let message = hear();
            let next = next.entry(message["identifier"].to_string()).or_insert(0);
            match *next {
                0 => assert_eq!(message["recovered"], true, "{message:.200}"),
                number => assert_eq!(message["data"][0], number, "{message:.200}"),
            }
            *next += 1;
        }
        assert!(next.values().all(|next| *next == 1 + MISSED), "{next:?}");
    }
}

/// Readers that come back while others publish receive every publication once and in order.
#[test]
fn a_recovery_goes_over_into_what_is_live() {
    const MISSED: u64 = 200;
    const LIVE: u64 = 200;
    over!(server in SERVERS => {
        let server = Server::start(&[server[0], server[1], FAST, &kept_by_slow()]);
        let mut publisher = Client::of(&server);
        over!(slow in SLOW, transport in TRANSPORTS => {
            let channel = format!("{slow}:{transport:?}");
            let start = Position::now(&server, &channel);
            publisher.publish_all(&channel, (1..=MISSED).map(|number| numbered(number, 2_000)));
            let mut reader = Reader::begin(&server, transport, &channel, Some(start));
            let live = (MISSED + 1..=MISSED + LIVE).map(|number| numbered(number, 2_000));
            std::thread::scope(|scope| {
                scope.spawn(|| publisher.publish_all(&channel, live));
                for number in 1..=MISSED + LIVE {
                    assert_eq!(reader.data()[0], number);
                }
            });
            assert_eq!(reader.recovered, Some(true));
        });
    });
}

/// A reader that comes back with its position receives the missed and then the live publications,
/// without gaps and repetitions. A reader that was away for too long is told so.
#[test]
fn a_position_recovers_what_was_missed() {
    let kept = "--namespace=kept,publish=anyone,history-size=5,history-ttl=300";
    let server = Server::start(&[SHARDS[0], SHARDS[1], kept]);
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
    // The history keeps five publications: 3 to 7.
    for (offset, recovered) in [(7, true), (4, true), (2, true), (1, false), (0, false), (8, false)]
    {
        let mut back = Client::of(&server);
        let answer = back.ask(subscribe(json!({"epoch": epoch, "offset": offset})));
        assert_eq!(answer["recovered"], recovered, "from {offset}");
        assert_eq!(answer["position"]["offset"], 7);
        for number in if recovered { offset + 1 } else { 8 }..=7 {
            let publication = back.receive();
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
    assert_eq!(stranger.receive()["offset"], live["position"]["offset"]);
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

/// Readers that come back during publications lose none and receive none twice.
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
            publisher.send(json!({"action": "publish", "identifier": "kept:a", "data": data}));
        }
        while seen < (round * 50 + 20) {
            let publication = reader.receive();
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
        assert_eq!(reader.receive()["data"], seen);
    }
}

/// Over every transport, a reader with a position that is too old or of another epoch is told so,
/// and live publications follow.
#[test]
fn what_cannot_be_recovered_is_told() {
    let kept = "--namespace=kept,publish=anyone,history-size=5";
    over!(server in SERVERS => {
        let server = Server::start(&[server[0], server[1], kept]);
        let mut publisher = Client::of(&server);
        over!(transport in TRANSPORTS => {
            let channel = format!("kept:{transport:?}");
            let start = Position::now(&server, &channel);
            publisher.publish_all(&channel, (1..=7).map(|number| json!(number)));
            let other = Position { epoch: start.epoch ^ 1, offset: 7 };
            let ahead = Position { offset: 8, ..start };
            for (live, lost) in [(8, start), (9, other), (10, Position { offset: 100, ..ahead })] {
                let mut reader = Reader::begin(&server, transport, &channel, Some(lost));
                reader.poll();
                publisher.publish(&channel, json!(live));
                assert_eq!(reader.data(), live, "{lost}");
                assert_eq!(reader.recovered, Some(false), "{lost}");
            }
        });
    });
}

/// After a history has expired, its positions cannot be recovered, and the next history has another
/// epoch.
#[test]
fn history_that_has_expired_is_not_recovered() {
    let kept = "--namespace=kept,publish=anyone,history-size=5,history-ttl=0.1";
    let server = Server::start(&[SHARDS[0], SHARDS[1], kept]);
    let start = Position::now(&server, "kept:a");
    Client::of(&server).publish("kept:a", json!(1));
    server.wait_until("expired", |stats| stats["total"]["history_publications"] == 0);
    over!(transport in [Transport::WebSocket, Transport::Stream, Transport::StreamOfTwo] => {
        let reader = Reader::begin(&server, transport, "kept:a", Some(start));
        assert_eq!(reader.recovered, Some(false));
    });
    let target = format!("/poll?topic=kept:a&position={start}");
    let answer = server.connect().get(&target);
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer["recovered"], false);
}
