//! Channels over several nodes.

use serde_json::json;

use super::nats::Nats;
use super::{node, node_with, until_heard};
use crate::client::Client;

/// What is published on one node is heard by the subscribers of every node, once and in the order of the
/// publisher, also by those of the publisher's own node.
#[test]
fn all_nodes_hear_a_publication() {
    let nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let mut publisher = Client::of(&first);
    let mut subscribers = [Client::of(&first), Client::of(&second)];
    for subscriber in &mut subscribers {
        subscriber.subscribe("news");
        until_heard(&mut publisher, "news", subscriber);
    }
    publisher.publish_all("news", (0..500).map(|number| json!({"number": number})));
    for subscriber in &mut subscribers {
        let mut next = 0;
        while next < 500 {
            let heard = subscriber.receive();
            if heard["data"]["probe"].is_null() {
                assert_eq!(heard["data"]["number"], next, "{heard}");
                next += 1;
            }
        }
        subscriber.silent();
    }
}

/// After a restart of NATS the nodes hear each other again, also in channels without history.
#[test]
fn nodes_hear_each_other_after_a_restart_of_nats() {
    let mut nats = Nats::start();
    let [first, second] = ["a", "b"].map(|name| node(&nats, name));
    let (mut publisher, mut subscriber) = (Client::of(&first), Client::of(&second));
    subscriber.subscribe("news");
    until_heard(&mut publisher, "news", &mut subscriber);
    nats.kill();
    nats.restart();
    for server in [&first, &second] {
        server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    }
    until_heard(&mut publisher, "news", &mut subscriber);
}

/// What others than nodes publish to the subject of a channel is counted and ignored.
#[test]
fn messages_from_outside_are_ignored() {
    let nats = Nats::start();
    let server = node(&nats, "a");
    let (mut publisher, mut subscriber) = (Client::of(&server), Client::of(&server));
    subscriber.subscribe("news");
    until_heard(&mut publisher, "news", &mut subscriber);
    // `news` in base64.
    let subject = "murre.murre.p.default.bmV3cw";
    let mut operations = String::new();
    for wrong in ["", "hello", "\u{1}\0\0\0\0\0{", "\u{1}\0\u{7f}\0\0\0{}", "\u{2}\0\0\0\0\0{}"] {
        operations += &format!("PUB {subject} {}\r\n{wrong}\r\n", wrong.len());
    }
    nats.raw(&operations, "PONG\r\n");
    server.wait_until("counted", |stats| stats["nats"]["nats_malformed"] == 5);
    publisher.publish("news", json!("real"));
    assert_eq!(subscriber.receive()["data"], "real");
}

/// Clusters of different names share a NATS server, and hear nothing of each other: channels have other subjects, and
/// other streams.
#[test]
fn clusters_are_apart() {
    let nats = Nats::start();
    let [first, second] = ["one", "two"]
        .map(|cluster| node_with(&nats, "a", &[&format!("--cluster-name={cluster}")]));
    let mut subscribers = [&first, &second].map(Client::of);
    let mut publisher = Client::of(&first);
    let [here, there] = &mut subscribers;
    for channel in ["news", "kept:x"] {
        here.subscribe(channel);
        there.subscribe(channel);
        until_heard(&mut publisher, channel, here);
    }
    there.silent();
    assert_eq!(nats.streams().len(), 2);
    assert_eq!(second.stats()["nodes"]["nodes"], 0);
}
