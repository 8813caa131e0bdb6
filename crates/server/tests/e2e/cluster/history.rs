//! History and recovery over nodes, while nodes, NATS and streams fail.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::nats::Nats;
use super::{command, node, spawn};
use crate::client::Client;
use crate::reader::Position;
use crate::server::PATIENCE;

/// Publishes a number, and again while it is refused. Its position is that of the stream.
pub(super) fn publish(client: &mut Client, channel: &str, number: u64) {
    client.publish_patiently(channel, json!({"number": number}));
}

/// Hears publications until this number, and checks that each is there once, in order: those between `next` and the
/// number. A publication may be there twice if its publisher was told `overloaded` and has repeated it.
pub(super) fn hear(client: &mut Client, mut next: u64, last: u64) -> u64 {
    let mut offset = 0;
    while next <= last {
        let heard = client.receive();
        assert_eq!(heard["type"], "publication", "{heard}");
        let number = heard["data"]["number"].as_u64().expect("a number");
        assert!(number == next || number + 1 == next, "{next} is missing: {heard}");
        let at = heard["offset"].as_u64().expect("an offset");
        assert!(at > offset, "{heard} after {offset}");
        offset = at;
        next = next.max(number + 1);
    }
    offset
}

/// A position has the same meaning on every node: a client recovers on another node after its own was killed, in order
/// and without a gap, and what was published before anybody subscribed is there, too.
#[test]
fn a_client_recovers_on_another_node() {
    let nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let mut publisher = Client::of(&second);
    for number in 0..5 {
        publish(&mut publisher, "kept:x", number);
        // Another channel of the same stream.
        publish(&mut publisher, "kept:y", number);
    }
    let mut client = Client::of(&first);
    let at = Position::of(&client.subscribe("kept:x"));
    publish(&mut publisher, "kept:x", 5);
    let offset = hear(&mut client, 5, 5);
    drop(first);
    for number in 6..300 {
        publish(&mut publisher, "kept:x", number);
    }
    let mut again = Client::of(&second);
    assert!(again.recover("kept:x", Position { offset, ..at }));
    hear(&mut again, 6, 299);
    let third = node(&nats, "c");
    let mut elsewhere = Client::of(&third);
    assert!(elsewhere.recover("kept:x", Position { offset, ..at }));
    hear(&mut elsewhere, 6, 299);
    publish(&mut publisher, "kept:x", 300);
    for client in [&mut again, &mut elsewhere] {
        hear(client, 300, 300);
        client.silent();
    }
    let page = elsewhere.ask(json!({"action": "history", "identifier": "kept:x", "limit": 3}));
    let numbers: Vec<_> = page["publications"]
        .as_array()
        .expect("a page")
        .iter()
        .map(|one| &one["data"]["number"])
        .collect();
    assert_eq!(numbers, [298, 299, 300]);
}

/// While NATS is away publications with history and recoveries are refused, and nobody is disconnected. When it is back,
/// all that was answered `published` is heard by everyone, in order.
#[test]
fn nats_is_killed_and_comes_back() {
    let mut nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let mut publisher = Client::of(&first);
    let mut subscribers = [Client::of(&first), Client::of(&second)];
    for subscriber in &mut subscribers {
        subscriber.subscribe("kept:x");
    }
    for number in 0..50 {
        publish(&mut publisher, "kept:x", number);
    }
    nats.kill();
    let refused = json!({"action": "publish", "identifier": "kept:x", "data": {"number": 49}});
    assert_eq!(publisher.error(refused), "overloaded");
    let mut late = Client::of(&second);
    let join = json!({"action": "subscribe", "identifier": "kept:late", "position": {"epoch": 1, "offset": 1}});
    assert_eq!(late.error(join.clone()), "overloaded");
    nats.restart();
    for number in 50..100 {
        publish(&mut publisher, "kept:x", number);
    }
    for subscriber in &mut subscribers {
        hear(subscriber, 0, 99);
        subscriber.silent();
    }
    let start = Instant::now();
    while late.ask(join.clone())["type"] != "subscribed" {
        assert!(start.elapsed() < PATIENCE, "joins are refused for ever");
    }
}

/// A node that stands still for some seconds goes on where it was: its subscribers miss nothing.
#[test]
fn a_node_stands_still() {
    let nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let (mut publisher, mut subscriber) = (Client::of(&first), Client::of(&second));
    subscriber.subscribe("kept:x");
    second.signal(Signal::SIGSTOP);
    for number in 0..200 {
        publish(&mut publisher, "kept:x", number);
    }
    // Longer than a node waits for a server, which must not look dead to it.
    thread::sleep(Duration::from_secs(7));
    second.signal(Signal::SIGCONT);
    hear(&mut subscriber, 0, 199);
    publish(&mut publisher, "kept:x", 200);
    hear(&mut subscriber, 200, 200);
    subscriber.silent();
}

/// NATS that does not answer is noticed, and what it does later is not lost.
#[test]
fn nats_stands_still() {
    let nats = Nats::start();
    let server = node(&nats, "a");
    let (mut publisher, mut subscriber) = (Client::of(&server), Client::of(&server));
    subscriber.subscribe("kept:x");
    publish(&mut publisher, "kept:x", 0);
    nats.signal(Signal::SIGSTOP);
    server.wait_until("noticed", |stats| stats["nats"]["nats_up"] == 0);
    nats.signal(Signal::SIGCONT);
    for number in 1..20 {
        publish(&mut publisher, "kept:x", number);
    }
    hear(&mut subscriber, 0, 19);
    subscriber.silent_at_last();
}

/// A stream that is deleted is made anew. Its channels have another epoch, so who recovers from before is told that
/// publications are lost, and who is there hears what comes.
#[test]
fn a_stream_is_deleted() {
    let nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let (mut publisher, mut subscriber) = (Client::of(&first), Client::of(&second));
    subscriber.subscribe("kept:x");
    publish(&mut publisher, "kept:x", 0);
    hear(&mut subscriber, 0, 0);
    let before = Position::now(&second, "kept:x");
    for name in nats.streams() {
        let delete = format!("SUB answer 1\r\nPUB $JS.API.STREAM.DELETE.{name} answer 0\r\n\r\n");
        nats.raw(&delete, "\"success\":true}\r\n");
    }
    publish(&mut publisher, "kept:x", 1);
    assert_eq!(nats.streams().len(), 1);
    let mut late = Client::of(&first);
    assert!(!late.recover("kept:x", before));
    // One who is there is told, too, and then hears on.
    let mut heard = subscriber.receive();
    while heard["type"] != "publication" {
        assert_ne!(heard["type"], "error", "{heard}");
        heard = subscriber.receive();
    }
    for number in 2..5 {
        publish(&mut publisher, "kept:x", number);
    }
    let position = Position::now(&second, "kept:x");
    assert_ne!(position.epoch, before.epoch);
}

/// A stream that counts offsets again, because NATS was started with an older copy of its files, is set aside: who
/// recovers from a lost offset is told, and who is there hears on.
#[test]
fn a_stream_has_lost_publications() {
    let mut nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let (mut publisher, mut subscriber) = (Client::of(&first), Client::of(&second));
    subscriber.subscribe("kept:x");
    publish(&mut publisher, "kept:x", 0);
    nats.kill();
    nats.save();
    nats.restart();
    for number in 1..5 {
        publish(&mut publisher, "kept:x", number);
    }
    hear(&mut subscriber, 0, 4);
    let lost = Position::now(&second, "kept:x");
    nats.kill();
    nats.load();
    nats.restart();
    let start = Instant::now();
    while nats.streams().len() < 2 {
        assert!(start.elapsed() < PATIENCE, "it is not set aside");
        thread::sleep(Duration::from_millis(20));
    }
    for number in 5..8 {
        publish(&mut publisher, "kept:x", number);
    }
    let mut late = Client::of(&first);
    assert!(!late.recover("kept:x", lost));
    let mut next = 5;
    while next < 8 {
        let heard = subscriber.receive();
        assert_ne!(heard["type"], "error", "{heard}");
        if heard["type"] == "publication" {
            let number = heard["data"]["number"].as_u64().expect("a number");
            assert!(number == next || number + 1 == next, "{heard}");
            next = number + 1;
        }
    }
}

/// What others than nodes have put into a stream is skipped, and makes no gap.
#[test]
fn messages_from_outside_in_a_stream() {
    let nats = Nats::start();
    let server = node(&nats, "a");
    let (mut publisher, mut subscriber) = (Client::of(&server), Client::of(&server));
    let before = Position::of(&subscriber.subscribe("kept:x"));
    publish(&mut publisher, "kept:x", 0);
    // `kept:x` in base64.
    let wrong =
        "PUB murre.murre.h.kept.a2VwdDp4 5\r\nhello\r\nPUB murre.murre.r.kept.a2VwdDp4 2\r\n{}\r\n";
    nats.raw(wrong, "PONG\r\n");
    server.wait_until("counted", |stats| stats["nats"]["nats_malformed"] == 2);
    publish(&mut publisher, "kept:x", 1);
    hear(&mut subscriber, 0, 1);
    subscriber.silent();
    let other = node(&nats, "b");
    let mut elsewhere = Client::of(&other);
    assert!(elsewhere.recover("kept:x", before));
    hear(&mut elsewhere, 0, 1);
    elsewhere.silent();
}

/// After a restart of NATS all channels are opened again, also when their newest publications are more than one answer
/// of NATS has room for.
#[test]
fn many_channels_are_opened_again() {
    const CHANNELS: u64 = 95;
    let mut nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let (mut publisher, mut subscriber) = (Client::of(&first), Client::of(&second));
    let channels: Vec<_> = (0..CHANNELS).map(|channel| format!("kept:{channel}")).collect();
    for channel in &channels {
        subscriber.subscribe(channel);
    }
    let large = "x".repeat(50_000);
    for channel in &channels {
        publisher.publish_patiently(channel, json!(large));
        let heard = subscriber.receive();
        assert_eq!(
            (heard["identifier"].as_str(), heard["data"].as_str()),
            (Some(&**channel), Some(&*large))
        );
    }
    nats.kill();
    nats.restart();
    for channel in &channels {
        publisher.publish_patiently(channel, json!("small"));
    }
    let mut heard: Vec<_> = (0..CHANNELS)
        .map(|_| subscriber.receive())
        .map(|heard| {
            assert_eq!(heard["data"], "small");
            heard["identifier"].as_str().expect("a channel").to_owned()
        })
        .collect();
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard.len(), channels.len());
}

/// The ages of publications are by the clock of NATS: a node whose own clock is an hour ahead, which is longer than
/// publications are kept, recovers all the same.
#[test]
fn a_clock_is_an_hour_ahead() {
    let folder = std::env::temp_dir().join(format!("murre-clock-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let [source, library] = ["ahead.c", "ahead.so"].map(|name| folder.join(name));
    let ahead = "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
                 int clock_gettime(clockid_t clock, struct timespec *time) {\n\
                 int result = syscall(SYS_clock_gettime, clock, time);\n\
                 if (clock == CLOCK_REALTIME) time->tv_sec += 3600;\n\
                 return result;\n}\n";
    fs::write(&source, ahead).expect("there is room for a file");
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(gcc.status().expect("gcc is on this machine").success());
    let nats = Nats::start();
    let first = node(&nats, "a");
    let mut publisher = Client::of(&first);
    let before = Position::of(&Client::of(&first).subscribe("kept:x"));
    for number in 0..5 {
        publish(&mut publisher, "kept:x", number);
    }
    let second = spawn(command(&nats, "b", &[]).env("LD_PRELOAD", &library));
    let lines = first.log_until("another node is there");
    let line: Value = serde_json::from_str(lines.last().expect("a line")).expect("JSON");
    let time = |line: &Value| line["timestamp"].as_str().expect("a time").to_owned();
    assert!(time(&second.start) > time(&line), "its clock is ahead");
    let mut late = Client::of(&second);
    assert!(late.recover("kept:x", before));
    hear(&mut late, 0, 4);
    fs::remove_dir_all(&folder).expect("it was there");
}
