//! Channels with history that are offered more than NATS takes, and gaps that are larger than one answer of NATS.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::nats::Nats;
use super::node_with;
use crate::client::Client;
use crate::server::{PATIENCE, Server};

const CHANNEL: &str = "busy:x";
/// History for all publications of a test.
const BUSY: &str = "--namespace=busy,publish=anyone,history-size=1000000,history-ttl=600";
/// Publications of one publisher without an answer.
const IN_FLIGHT: usize = 4000;
/// Publications that a node has on their way to one stream at most.
const OF_STREAM_MAX: u64 = 8192;
/// Settings of a NATS server that is slower than nodes in a build for tests: each publication is synced to disk, and few
/// may wait.
const SLOW: &str = "jetstream { sync_interval: always, max_buffered_msgs: 1000 }";

/// The answers to one publisher.
#[derive(Default)]
struct Answers {
    /// The offsets of what was published.
    published: Vec<u64>,
    overloaded: u64,
}

/// Publishes as fast as the node takes it, until `is_over`.
fn flood(mut client: Client, publisher: u64, is_over: &AtomicBool) -> Answers {
    let mut answers = Answers::default();
    let (mut sent, mut answered) = (0, 0);
    let padding = "x".repeat(100);
    while !is_over.load(Relaxed) || answered < sent {
        while sent - answered < IN_FLIGHT && !is_over.load(Relaxed) {
            let data = json!({"publisher": publisher, "number": sent, "padding": padding});
            let publish =
                json!({"action": "publish", "identifier": CHANNEL, "data": data, "id": sent});
            let publish = publish.to_string();
            client.0.write(tungstenite::Message::text(publish)).expect("written");
            sent += 1;
        }
        client.0.flush().expect("sent");
        let answer = client.receive();
        answered += 1;
        match answer["type"].as_str() {
            Some("published") => {
                answers.published.push(answer["position"]["offset"].as_u64().expect("an offset"));
            }
            _ => {
                assert_eq!(answer["code"], "overloaded", "{answer}");
                answers.overloaded += 1;
            }
        }
    }
    answers
}

/// Hears a channel up to a publication without a publisher. Returns the offsets, by publisher and number, and whether
/// it was told of a loss.
fn hear_all(mut client: Client) -> (HashMap<u64, (u64, u64)>, bool) {
    let mut heard = HashMap::new();
    let (mut last, mut is_told) = (0, false);
    loop {
        let message = client.receive();
        if message["type"] != "publication" {
            assert_eq!(message["type"], "dropped", "{message}");
            is_told = true;
            continue;
        }
        let offset = message["offset"].as_u64().expect("an offset");
        assert!(offset > last, "in order, once: {offset} after {last}");
        last = offset;
        let number = |name: &str| message["data"][name].as_u64();
        let Some(publisher) = number("publisher") else { return (heard, is_told) };
        heard.insert(offset, (publisher, number("number").expect("a number")));
    }
}

/// Three nodes are offered as much as they take for some seconds, while `disturb` does something to NATS. Whatever was
/// answered `published` is heard by all subscribers, or they are told. What is refused is `overloaded`. NATS gets a
/// publication again only if it may have lost it. Returns how many were refused.
fn is_whole_under_overload(nats: &Nats, repeated_max: u64, disturb: impl FnOnce(&Nats)) -> u64 {
    let nodes = ["a", "b", "c"].map(|name| node_with(nats, name, &[BUSY]));
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        let subscribers = nodes.each_ref().map(|node| {
            let mut client = Client::of(node);
            client.subscribe(CHANNEL);
            threads.spawn(move || hear_all(client))
        });
        let publishers: Vec<_> = (0..6)
            .map(|publisher| {
                let (client, is_over) = (Client::of(&nodes[publisher % 3]), &is_over);
                threads.spawn(move || flood(client, publisher as u64, is_over))
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        disturb(nats);
        thread::sleep(Duration::from_secs(1));
        is_over.store(true, Relaxed);
        let answers = publishers.into_iter().map(|publisher| publisher.join().expect("answered"));
        let answers: Vec<Answers> = answers.collect();
        Client::of(&nodes[0]).publish_patiently(CHANNEL, json!({"end": true}));
        let published: u64 = answers.iter().map(|answers| answers.published.len() as u64).sum();
        let overloaded: u64 = answers.iter().map(|answers| answers.overloaded).sum();
        let repeated = nodes.each_ref().map(|node| count(node, "nats_repeated"));
        println!("{published} published, {overloaded} overloaded, {repeated:?} repeated");
        assert!(published > 100, "{published}");
        for subscriber in subscribers {
            let (heard, is_told) = subscriber.join().expect("it hears");
            let mut missing = answers.iter().flat_map(|answers| &answers.published);
            let missing = missing.find(|offset| !heard.contains_key(offset));
            assert!(missing.is_none() || is_told, "{missing:?} is missing");
        }
        for (node, repeated) in nodes.iter().zip(repeated) {
            // A new connection gets what the one before may have lost.
            let repeated_max = repeated_max + OF_STREAM_MAX * count(node, "nats_reconnects");
            assert!(repeated <= repeated_max, "{repeated} of {published}");
        }
        overloaded
    })
}

/// A number in the statistics of NATS.
fn count(server: &Server, name: &str) -> u64 {
    server.stats()["nats"][name].as_u64().expect("a number")
}

/// NATS refuses what it has no room for, and gets nothing again.
#[test]
fn more_is_offered_than_nats_takes() {
    let config = format!("murre-nats-{}.conf", std::process::id());
    let config = std::env::temp_dir().join(config);
    fs::write(&config, SLOW).expect("written");
    let nats = Nats::spawn("nats-server", &["--config", config.to_str().expect("text")]);
    fs::remove_file(config).expect("it is there");
    let overloaded = is_whole_under_overload(&nats, 100, |_| ());
    assert!(overloaded > 0, "NATS takes all");
}

/// NATS stands still in the middle: what it has taken is not sent again, a few excepted that show that it is back.
#[test]
fn nats_stands_still_under_overload() {
    is_whole_under_overload(&Nats::start(), 100, |nats| {
        nats.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_secs(2));
        nats.signal(Signal::SIGCONT);
    });
}

/// A node stands still while more is published than one answer of NATS may have, and than NATS keeps for its connection.
/// All of it arrives.
#[test]
fn a_gap_is_larger_than_one_answer() {
    const COUNT: u64 = 1400;
    let nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node_with(&nats, name, &[BUSY]));
    let mut subscriber = Client::of(&second);
    subscriber.subscribe(CHANNEL);
    second.signal(Signal::SIGSTOP);
    let mut publisher = Client::of(&first);
    let padding = "x".repeat(60_000);
    for number in 0..COUNT {
        let data = json!({"publisher": 0, "number": number, "padding": padding});
        publisher.publish_patiently(CHANNEL, data);
    }
    second.signal(Signal::SIGCONT);
    publisher.publish_patiently(CHANNEL, json!({"end": true}));
    let start = Instant::now();
    let (heard, is_told) = hear_all(subscriber);
    assert!(start.elapsed() < PATIENCE);
    let mut numbers: Vec<u64> = heard.values().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert!(!is_told && numbers.into_iter().eq(0..COUNT), "{} heard", heard.len());
}
