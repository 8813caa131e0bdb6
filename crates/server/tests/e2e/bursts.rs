//! Tests of bursts: clients that read get more bytes at once than the server queues for one
//! connection.

use std::thread;

use serde_json::{Value, json};

use crate::client::Client;
use crate::matrix::{LIVE, SERVERS, SLOW, TRANSPORTS};
use crate::reader::Reader;
use crate::recovery::{FAST, kept_by_slow, numbered};
use crate::server::Server;

/// The bytes of the filling of a publication. With the rest of the data it is just below the
/// default limit.
const BYTES: usize = 65_000;
const EACH: u64 = 15;
const OPEN: &str = "--namespace=default,publish=anyone,serve=anyone";

/// A responder that reads gets all requests that eight clients send at once, and each request is
/// answered.
#[test]
fn requests_to_one_responder() {
    const ASKERS: u64 = 8;
    over!(server in SERVERS => {
        let server = Server::start(&[&server[..], &[FAST, OPEN]].concat());
        let mut responder = Client::of(&server);
        responder.ask(json!({"action": "serve", "service": "echo"}));
        let mut askers: Vec<Client> = (0..ASKERS).map(|_| Client::of(&server)).collect();
        thread::scope(|scope| {
            for asker in &mut askers {
                scope.spawn(|| for id in 0..EACH {
                    let data = numbered(id, BYTES);
                    asker.send(json!({"action": "request", "service": "echo", "data": data, "id": id}));
                });
            }
            for _ in 0..ASKERS * EACH {
                let request = responder.receive();
                assert_eq!(request["data"][1].as_str().map(str::len), Some(BYTES));
                let (id, data) = (&request["request"], &request["data"][0]);
                responder.send(json!({"action": "reply", "request": id, "data": data}));
            }
        });
        for asker in &mut askers {
            let mut answered: Vec<Value> = (0..EACH).map(|_| {
                let answer = asker.receive();
                assert_eq!((&answer["type"], &answer["id"]), (&json!("response"), &answer["data"]));
                answer["id"].clone()
            }).collect();
            answered.sort_by_key(Value::as_u64);
            assert_eq!(answered, (0..EACH).map(Value::from).collect::<Vec<_>>());
        }
        responder.silent();
    });
}

/// A client that reads gets all publications of four publishers' bursts, each publisher's in order.
#[test]
fn publications_of_four_publishers() {
    const PUBLISHERS: u64 = 4;
    over!(case in SERVERS.into_iter().zip(SLOW) => {
        let (server, slow) = case;
        let server = Server::start(&[&server[..], &[FAST, &kept_by_slow()]].concat());
        over!(transport in TRANSPORTS => {
            let channel = format!("{slow}:{transport:?}");
            let mut reader = Reader::begin(&server, transport, &channel, None);
            let mut publishers: Vec<_> = (0..PUBLISHERS).map(|_| Client::of(&server)).collect();
            let mut next = [0; PUBLISHERS as usize];
            thread::scope(|scope| {
                for (publisher, client) in publishers.iter_mut().enumerate() {
                    let channel = &channel;
                    let data = (0..EACH).map(move |n| json!([publisher, n, "x".repeat(BYTES)]));
                    scope.spawn(move || client.publish_all(channel, data));
                }
                for _ in 0..PUBLISHERS * EACH {
                    let data = reader.data();
                    let publisher = data[0].as_u64().expect("a number") as usize;
                    assert_eq!(data[1], next[publisher], "of publisher {publisher}");
                    next[publisher] += 1;
                }
            });
        });
    });
}

/// A batch is answered in full and in order, even if its answers are far longer than the send
/// limit.
#[test]
fn a_batch_of_long_answers() {
    const COMMANDS: u64 = 100;
    over!(server in SERVERS => {
        let server = Server::start(&[&server[..], &[FAST, &kept_by_slow()]].concat());
        let mut client = Client::of(&server);
        client.publish("disconnect:a", numbered(1, 19_000));
        let history = |id| json!({"action": "history", "identifier": "disconnect:a", "id": id});
        client.send(Value::from((0..COMMANDS).map(history).collect::<Vec<_>>()));
        // A command after the batch is answered after the batch.
        client.send(json!({"action": "ping", "id": COMMANDS}));
        for id in 0..COMMANDS {
            let answer = client.receive();
            assert_eq!((&answer["type"], &answer["id"]), (&json!("history"), &json!(id)));
            assert_eq!(answer["publications"].as_array().map(Vec::len), Some(1));
        }
        assert_eq!(client.receive()["id"], COMMANDS);
    });
}

/// A burst larger than the log makes publishers wait. A reader within its grace time loses nothing;
/// here it does not read for a while, and the grace time is an hour.
#[test]
fn a_burst_larger_than_the_log_waits() {
    const COUNT: u64 = 300;
    let (grace, log) = ("--slow-grace=3600", "--max-log-bytes=100000");
    over!(server in SERVERS => {
        let open = "--namespace=default,publish=anyone,slow=drop_oldest";
        let server = Server::start(&[&server[..], &[FAST, grace, log, open]].concat());
        over!(transport in LIVE => {
            let channel = format!("{transport:?}");
            let mut reader = Reader::begin(&server, transport, &channel, None).takes_little();
            let mut publisher = Client::of(&server);
            let mut taken = 0;
            let mut publish = || {
                let data = numbered(taken + 1, 20_000);
                let publish = json!({"action": "publish", "identifier": channel, "data": data});
                let mut answer = publisher.ask(publish);
                taken += u64::from(answer["type"] == "published");
                (taken, answer["code"].take())
            };
            // Publish until the server refuses, while the client does not read.
            while publish().1.is_null() {}
            thread::scope(|scope| {
                scope.spawn(|| while publish().0 < COUNT {});
                for number in 1..=COUNT {
                    assert_eq!(reader.data()[0], number);
                }
            });
        });
    });
}

/// If the owner of a channel refuses a publication without an id, the client gets an error without
/// an id, from this shard or another.
#[test]
fn a_refused_publication_without_id_is_told() {
    let (grace, log) = ("--slow-grace=3600", "--max-log-bytes=1024");
    let server = Server::start(&["--shards=3", FAST, grace, log, OPEN]);
    // The publisher's shard owns some of these channels, and the other shards own most.
    for number in 0..8 {
        let channel = format!("c{number}");
        let mut reader = Client::of(&server);
        reader.subscribe(&channel);
        let mut publisher = Client::of(&server);
        let publish =
            json!({"action": "publish", "identifier": channel, "data": "x".repeat(60_000)});
        let heard = loop {
            publisher.send(publish.clone());
            publisher.send(json!({"action": "ping"}));
            let heard = publisher.receive();
            if heard["type"] != "pong" {
                break heard;
            }
        };
        let [code, about] = ["code", "identifier"].map(|name| heard[name].as_str());
        assert_eq!((code, about), (Some("overloaded"), Some(&*channel)), "{heard}");
        assert!(heard.get("id").is_none(), "{heard}");
    }
}
