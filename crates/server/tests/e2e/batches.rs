//! Tests of batches that pause and continue: answers come from other shards, are not read, or come
//! between many publications.

use std::collections::HashSet;
use std::thread;

use serde_json::{Value, json};

use crate::client::Client;
use crate::matrix::SERVERS;
use crate::recovery::FAST;
use crate::server::Server;

const OPEN: &str = "--namespace=default,publish=anyone,slow=drop_oldest";
const KEPT: &str = "--namespace=kept,publish=anyone,history-size=100";

/// Sends a batch of commands with ids from 0, and returns the answer to each. Other messages may
/// come between them, and answers may come in any order.
fn answered(client: &mut Client, commands: Vec<Value>) -> Vec<Value> {
    let mut due: HashSet<u64> = (0..commands.len() as u64).collect();
    let with_id = |(id, mut command): (usize, Value)| {
        command["id"] = json!(id);
        command
    };
    client.send(commands.into_iter().enumerate().map(with_id).collect());
    let mut answers = Vec::new();
    while !due.is_empty() {
        let heard = client.receive();
        if let Some(id) = heard["id"].as_u64() {
            assert!(due.remove(&id), "twice: {heard}");
            answers.push(heard);
        }
    }
    answers
}

/// Pages of history of this shard and of others in one batch are all answered, and no later answer
/// overtakes a page.
#[test]
fn pages_of_history_from_several_shards() {
    over!(server in SERVERS => {
        let server = Server::start(&[&server[..], &[FAST, KEPT]].concat());
        let mut client = Client::of(&server);
        for number in 0..20 {
            let data = "x".repeat(1000);
            let command = json!({"action": "publish", "identifier": format!("kept:{number}"), "data": data});
            assert_eq!(client.ask(command)["type"], "published");
        }
        for _ in 0..5 {
            let page = |number| json!({"action": "history", "identifier": format!("kept:{}", number % 20)});
            let commands = (0..99).map(page).chain([json!({"action": "ping"})]).collect();
            let answers = answered(&mut client, commands);
            let ids: Vec<u64> = answers.iter().filter_map(|answer| answer["id"].as_u64()).collect();
            assert!(ids.is_sorted(), "a page is waited for: {ids:?}");
            assert!(answers[..99].iter().all(|answer| answer["type"] == "history"));
        }
    });
}

/// The answers to a batch do not end the connection of a client that reads, even with the smallest
/// send limit and with answers from other shards.
#[test]
fn answers_end_no_connection() {
    over!(server in SERVERS => {
        let server = Server::start(&[&server[..], &[FAST, OPEN, KEPT, "--max-send-bytes=1024"]].concat());
        let mut client = Client::of(&server);
        for action in ["publish", "subscribe", "history"] {
            let command = |number: usize| {
                json!({"action": action, "identifier": format!("kept:{number}"), "data": number})
            };
            let answers = answered(&mut client, (0..100).map(command).collect());
            assert!(answers.iter().all(|answer| answer["type"] != "error"), "{answers:?}");
        }
        client.silent_at_last();
    });
}

/// Commands of a connection that is behind in a busy channel are still answered, because its input
/// takes precedence over the waiting publications.
#[test]
fn a_reader_that_is_behind_is_obeyed() {
    over!(server in SERVERS => {
        let server = Server::start(&[&server[..], &[FAST, OPEN, KEPT, "--max-send-bytes=4096"]].concat());
        let mut reader = Client::of(&server);
        reader.subscribe("busy");
        let mut publisher = Client::of(&server);
        assert_eq!(publisher.ask(json!({"action": "publish", "identifier": "kept:a", "data": 1}))["type"], "published");
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let data = "x".repeat(2000);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    publisher.ask(json!({"action": "publish", "identifier": "busy", "data": data}));
                }
            });
            for _ in 0..5 {
                let page = json!({"action": "history", "identifier": "kept:a"});
                let commands = vec![page.clone(), page, json!({"action": "ping"})];
                answered(&mut reader, commands);
            }
            answered(&mut reader, vec![json!({"action": "unsubscribe", "identifier": "busy"})]);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        reader.silent();
    });
}

/// A client that connects before the shards are connected to each other is answered.
#[test]
fn the_first_client_is_answered() {
    for _ in 0..5 {
        let server = Server::start(&["--shards=3", OPEN]);
        let mut client = Client::of(&server);
        let publish =
            |number| json!({"action": "publish", "identifier": format!("c{number}"), "data": 1});
        answered(&mut client, (0..6).map(publish).collect());
    }
}
