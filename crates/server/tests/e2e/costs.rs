//! Tests of the cost of clients that do not read, send bad tokens, or use many channels: memory and
//! turns are bounded, and other clients are served.

use std::thread;

use serde_json::{Value, json};

use crate::client::Client;
use crate::guarded::{Guarded, expiring};
use crate::matrix::{SERVERS, Transport};
use crate::reader::{Position, Reader};
use crate::recovery::{FAST, numbered};
use crate::server::Server;

/// A public key of ES256, whose signature checks take long.
pub(crate) const KEY: &str = concat!(
    "--jwt-public-key-file=",
    env!("CARGO_MANIFEST_DIR"),
    "/src/hub/auth/keys/ec.public.pem"
);

/// A token with an invalid signature.
pub(crate) fn bad_token(number: usize) -> String {
    // {"alg":"ES256"} and {"sub":"ann"}.
    format!("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.{number:0>86}")
}

/// The sum of the totals with these names.
fn total(server: &Server, names: &[&str]) -> u64 {
    let total = server.stats()["total"].take();
    names.iter().map(|name| total[name].as_u64().unwrap_or_else(|| panic!("{name}"))).sum()
}

/// More checks of ES256 than the budget of a turn allows.
const CHECKS_OF_A_TURN: u64 = 5;

/// Many bad tokens, over few connections or many, take at most a few checks of each turn, and
/// another client is answered.
#[test]
fn bad_tokens() {
    const COUNT: usize = 300;
    over!(server in SERVERS, connections in [1, 50] => {
        let server = Server::start(&[&server[..], &[FAST, KEY]].concat());
        let mut bystander = Client::of(&server);
        bystander.silent();
        let turns = total(&server, &["turns"]);
        let mut clients: Vec<Client> = (0..connections).map(|_| Client::of(&server)).collect();
        for number in 0..COUNT {
            let auth = json!({"action": "auth", "token": bad_token(number), "id": number});
            clients[number % connections].send(auth);
        }
        bystander.silent();
        for number in 0..COUNT {
            let answer = clients[number % connections].receive();
            assert_eq!((&answer["id"], &answer["code"]), (&json!(number), &json!("bad_token")));
            if number % 50 == 0 {
                bystander.silent();
            }
        }
        server.wait_until("all checked", |stats| stats["total"]["signature_checks"] == COUNT);
        let turns = total(&server, &["turns"]) - turns;
        assert!(COUNT as u64 / CHECKS_OF_A_TURN <= turns, "{turns} turns");
    });
}

/// A request with a bad token gets 401 and ends its connection; the requests behind it are not
/// handled.
#[test]
fn bad_tokens_of_requests() {
    let server = Server::start(&["--shards=1", KEY]);
    for target in ["/sse?topic=a", "/poll?topic=a", "/ws?a=b"] {
        let before = total(&server, &["signature_checks"]);
        let mut client = server.connect();
        let mut requests = String::new();
        for number in 0..100 {
            let token = bad_token(number);
            let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let upgrade = if target.starts_with("/ws") { upgrade } else { "" };
            requests += &format!("GET {target}&token={token} HTTP/1.1\r\nHost: m\r\n{upgrade}\r\n");
        }
        client.send(requests.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")), "{target}");
        let scheme = answer.header("www-authenticate").expect("a scheme");
        assert_eq!(scheme, "Bearer error=\"invalid_token\"", "{target}");
        assert!(client.rest().is_empty(), "{target}");
        server.wait_until("checked", |stats| stats["total"]["signature_checks"] != before);
        assert_eq!(total(&server, &["signature_checks"]) - before, 1, "{target}");
    }
}

/// When all clients with tokens have left, the server stores nothing of them, even if they sent
/// many tokens.
#[test]
fn tokens_leave_nothing() {
    let guarded = Guarded::start(&["--shards=2", FAST, "--namespace=default,history-size=1"]);
    let server = &guarded.server;
    let position = Position::now(server, "a");
    let targets = [
        "/sse?topic=a".into(),
        "/sse?topic=a&topic=b".into(),
        format!("/poll?topic=a&position={position}"),
    ];
    let mut sockets: Vec<Client> = (0..10).map(|_| Client::of(server)).collect();
    for (number, socket) in (0..).zip(&mut sockets) {
        for again in 0..20 {
            let auth = json!({"action": "auth", "token": expiring(3600 + number * 20 + again)});
            assert_eq!(socket.ask(auth)["type"], "authenticated");
        }
    }
    let open: Vec<_> = (0..12)
        .map(|number| {
            let mut client = server.connect();
            let target = &targets[number % 3];
            let token = expiring(3600 + number as i64);
            client
                .send(format!("GET {target}&token={token} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
            client
        })
        .collect();
    server.wait_until("22 users", |stats| stats["total"]["tokens_expiring"] == 22);
    drop((sockets, open));
    server.wait_until("nobody", |stats| {
        let names =
            ["tokens_expiring", "connections_authenticated", "commands_waiting", "subscriptions"];
        names.iter().all(|name| stats["total"][name] == 0)
    });
}

/// Anonymous subscriptions to thousands of names do not remove the history of other channels.
#[test]
fn names_put_out_no_history() {
    const READERS: usize = 20;
    let room = "--max-history-bytes=100000";
    let kept = "--namespace=default,publish=anyone,history-size=100";
    over!(server in SERVERS => {
        let server = Server::start(&[&server[..], &[FAST, room, kept]].concat());
        let mut publisher = Client::of(&server);
        for number in 1..=10 {
            publisher.publish("kept", numbered(number, 1000));
        }
        let _readers: Vec<Client> = (0..READERS).map(|reader| {
            let mut client = Client::of(&server);
            for batch in 0..10 {
                let subscribe = |number| json!({"action": "subscribe", "identifier": format!("{reader}-{batch}-{number}")});
                client.send(Value::from((0..100).map(subscribe).collect::<Vec<_>>()));
            }
            client
        }).collect();
        server.wait_until("subscribed", |stats| stats["total"]["subscriptions"] == READERS * 1000);
        // A request for a history that does not exist creates none.
        for number in 0..1000 {
            let history = json!({"action": "history", "identifier": format!("none-{number}")});
            assert_eq!(publisher.ask(history)["publications"], json!([]));
        }
        let history = publisher.ask(json!({"action": "history", "identifier": "kept"}));
        assert_eq!(history["publications"].as_array().map(Vec::len), Some(10));
        assert_eq!(total(&server, &["history_evicted"]), 0);
    });
}

/// The bytes of the process that do not belong to files.
fn memory(server: &Server) -> u64 {
    server.stats()["memory"]["process"]["anonymous_bytes"].as_u64().expect("a number")
}

const MIB: u64 = 1 << 20;

/// A connection that reads nothing of many channels costs its queue (64 KiB and one message) and
/// the logs (1 MiB), under both rules that keep slow readers.
#[test]
fn a_connection_that_does_not_read() {
    const CHANNELS: usize = 150;
    const ROUNDS: u64 = 4;
    let logs = ["--max-log-bytes=100000", "--max-logs-bytes=1048576", "--slow-grace=0.1"];
    over!(slow in ["drop_oldest", "latest_only"] => {
        let rules = format!("--namespace=default,publish=anyone,slow={slow}");
        let guarded = Guarded::start(&[&["--shards=1", FAST, &rules], &logs[..]].concat());
        let server = &guarded.server;
        let mut lazy = Client::of(server);
        let connection = lazy.name();
        // Fill the kernel's buffers first, because their bytes are not memory of the server.
        let names: Vec<String> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
        names.iter().for_each(|name| _ = lazy.subscribe(name));
        let mut publisher = Client::of(server);
        // Publish until the kernel's buffers are full.
        while server.stats()["total"]["connections_lagging"] == 0 {
            publisher.publish_patiently(&names[0], numbered(0, 60_000));
        }
        let before = memory(server);
        for round in 0..ROUNDS {
            for name in &names {
                publisher.publish_patiently(name, numbered(round, 60_000));
            }
        }
        let (_, info) = guarded.get(&format!("/api/connections/{connection}"));
        let queued = info["queued_bytes"].as_u64().expect("a number");
        assert!(queued <= 64 * 1024 + 2 * 61_000, "{queued} bytes are queued");
        let logs = total(server, &["log_bytes"]);
        // Each channel keeps its newest publication while the shard has room.
        assert!(logs <= 2 * MIB, "{logs} bytes of logs");
        let grown = memory(server).saturating_sub(before);
        assert!(grown < 12 * MIB, "{grown} bytes for {} that were published", 60_000 * CHANNELS * ROUNDS as usize);
    });
}

/// Each poll of a whole history whose client does not read costs one slice.
#[test]
fn a_poll_that_is_not_read() {
    const POLLS: usize = 50;
    let kept = "--namespace=default,publish=anyone,history-size=1000";
    let server = Server::start(&["--shards=1", FAST, kept]);
    let start = Position::now(&server, "a");
    let mut publisher = Client::of(&server);
    publisher.publish_all("a", (1..=200).map(|number| numbered(number, 20_000)));
    let before = memory(&server);
    let poll = format!("GET /poll?topic=a&position={start} HTTP/1.1\r\nHost: m\r\n\r\n");
    // The polls are pipelined, so that their answers fill the kernel's buffers.
    let polls: Vec<_> = (0..POLLS)
        .map(|_| {
            let mut client = server.connect();
            client.send(poll.repeat(100).as_bytes());
            client
        })
        .collect();
    server.wait_until("not read", |stats| {
        stats["total"]["receives_paused"].as_u64() >= Some(POLLS as u64)
    });
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < POLLS as u64 * MIB / 2, "{grown} bytes for {POLLS} polls");
    drop(polls);
    // Another reader is served in full.
    let mut reader = Reader::begin(&server, Transport::Poll, "a", Some(start));
    thread::scope(|_| (1..=200).for_each(|number| assert_eq!(reader.data()[0], number)));
}
