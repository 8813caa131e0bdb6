//! Tests of delivery: batches that fail are repeated, and what is dropped is told.

use std::net::TcpListener;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::receiver::{Manner, Receiver, Request};
use super::{SMALL, user};
use crate::client::Client;
use crate::guarded::Guarded;
use crate::knowledge::Application;
use crate::server::Server;

/// A batch that is refused, ignored or cut off is sent again, the same to the byte, before any other, until it
/// is taken: nothing is lost, and nothing is applied twice.
#[test]
fn failures_are_repeated() {
    let receiver = Receiver::start(Manner::Take);
    let guarded =
        Guarded::start(&[&SMALL[..], &[&receiver.flag(), "--webhook-timeout=2"]].concat());
    let first = receiver.until("told of the start", |state| state.requests.first().cloned());
    assert_eq!((&first.body["sequence"], &first.body["events"]), (&json!(1), &json!([])));
    let bad = [
        Manner::Refuse(500),
        Manner::Close,
        Manner::Refuse(404),
        Manner::Ignore,
        Manner::Refuse(301),
    ];
    receiver.set(Manner::Take, &bad);
    let mut clients: Vec<_> = (0..20).map(|_| user(&guarded.server, "ann")).collect();
    clients.iter_mut().for_each(|client| _ = client.subscribe("a"));
    receiver.until("told of all", |state| {
        let knows = &state.knows;
        (knows.connections.len() == 20 && knows.occupied.len() == 1).then_some(())
    });
    let requests = receiver.requests();
    let tried = &requests[1..];
    let manners: Vec<Manner> = tried.iter().take(6).map(|request| request.manner).collect();
    assert_eq!(manners, [&bad[..], &[Manner::Take]].concat());
    assert!(tried.iter().take(6).all(|request| request.text == tried[0].text));
    assert!(tried[6..].iter().all(|request| request.manner == Manner::Take));
    let sequence = requests.last().expect("some").body["sequence"].as_u64();
    // A kept connection that is closed without a byte is replaced at once, which is no failure.
    let failures = bad.len() as u64 - 1;
    guarded.server.wait_until("counted", |stats| {
        let total = &stats["webhooks"][0];
        assert!(total["webhook_requests_failed"].as_u64() >= Some(failures), "{total}");
        total["webhook_batches"].as_u64() == sequence
    });
}

/// While the application is away, its queue takes so many bytes and no more, and it is tried for so long and
/// no longer. When it is back, it learns how many events it has missed, of those that were dropped first and
/// last.
#[test]
fn what_is_dropped_is_told() {
    let receiver = Receiver::start(Manner::Take);
    let flags =
        [&receiver.flag(), "--webhook-retry=0.1", "--webhook-queue-bytes=65536", "--shards=2"];
    let server = Server::start(
        &[&flags[..], &["--webhook-batch=100", "--max-commands-per-second=1000000"]].concat(),
    );
    receiver.until("told of the start", |state| state.requests.first().map(drop));
    receiver.set(Manner::Refuse(503), &[]);
    let mut client = Client::of(&server);
    let name = |number: u32| format!("{number} {}", "x".repeat(200));
    for number in 0..1000 {
        client.subscribe(&name(number));
        client.ask(json!({"action": "unsubscribe", "identifier": name(number)}));
    }
    server.wait_until("dropped both ways", |stats| {
        let total = &stats["webhooks"][0];
        assert!(total["webhook_queue_bytes"].as_u64() <= Some(65_536), "{total}");
        // The queue has no room for most of them, and each failure drops a hundred.
        total["webhook_events_missed"].as_u64() >= Some(1000)
    });
    receiver.set(Manner::Take, &[]);
    // 1 connection, 1000 channels twice.
    let told = receiver.until("told of all", |state| {
        let events = |request: &Request| match request.manner {
            Manner::Take => request.body["events"].as_array().expect("a list").len() as u64,
            _ => 0,
        };
        let told: u64 = state.requests.iter().map(events).sum();
        (told + state.missed == 2001).then_some(told)
    });
    server.wait_until("counted", |stats| {
        let total = &stats["webhooks"][0];
        total["webhook_events"] == told && total["webhook_events_missed"] == 2001 - told
    });
    // From here on nothing is missed.
    let missed = receiver.until("told", |state| Some(state.missed));
    client.subscribe("the last");
    let is_last = |event: &Value| event["channel"] == "the last";
    receiver.until("told of the last", |state| {
        let last = state.requests.last()?.body["events"].as_array()?.last()?;
        is_last(last).then(|| assert_eq!(state.missed, missed))
    });
}

/// All that happens in the drain is delivered before the process ends, also by an endpoint that fails at first.
/// The next run has another name, and begins with 1.
#[test]
fn a_restart() {
    let receiver = Receiver::start(Manner::Take);
    let flags = [&receiver.flag(), "--webhook-delay=3600", "--drain-timeout=0.5", "--shards=2"];
    let run = || {
        let guarded = Guarded::start(&flags);
        let mut clients: Vec<_> = (0..10).map(|_| user(&guarded.server, "ann")).collect();
        clients.iter_mut().for_each(|client| _ = client.subscribe("a"));
        receiver.until("told of the start", |state| {
            let last = state.requests.last()?;
            (last.body["sequence"] == 1).then_some(())
        });
        receiver.set(Manner::Take, &[Manner::Refuse(500), Manner::Close]);
        guarded.server.signal(Signal::SIGTERM);
        let readers = clients
            .into_iter()
            .map(|mut client| thread::spawn(move || while client.0.read().is_ok() {}));
        let readers = readers.collect::<Vec<_>>();
        let (status, log) = guarded.end();
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        assert_eq!(status.code(), Some(0));
        assert!(log.iter().all(|line| !line.contains("events of a webhook are lost")), "{log:?}");
        receiver.until("told", |state| {
            assert_eq!(state.knows, Application::default(), "{log:?} {:?}", state.requests);
            let last = state.requests.last().expect("some");
            let told: usize = state
                .requests
                .iter()
                .filter(|one| one.manner == Manner::Take && one.body["node"] == last.body["node"])
                .map(|one| one.body["events"].as_array().expect("a list").len())
                .sum();
            assert_eq!(
                (last.manner, told),
                (Manner::Take, 22),
                "10 connections and a channel, twice"
            );
            Some(last.body["node"].clone())
        })
    };
    let first = run();
    assert_ne!(run(), first);
}

/// An endpoint that is dead does not keep the process from ending, and the log says what is lost.
#[test]
fn a_dead_endpoint_at_the_end() {
    let nobody =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let webhook = format!("--webhook=http://{nobody}/");
    let server = Server::start(&[&webhook, "--drain-timeout=0.1"]);
    let _client = Client::of(&server);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("events of a webhook are lost")), "{log:?}");
}

/// The first batch, which says that this is a new run of the server, is sent until it is taken, for however
/// long that is; then come the events that had room.
#[test]
fn the_first_batch_is_not_given_up() {
    let receiver = Receiver::start(Manner::Refuse(503));
    let flags = [&receiver.flag(), "--webhook-retry=0.1", "--webhook-delay=0.1", "--shards=2"];
    let guarded = Guarded::start(&flags);
    let _client = user(&guarded.server, "ann");
    // Each failure but the first is later than `webhook-retry`.
    receiver.until("failed", |state| (state.requests.len() >= 4).then_some(()));
    receiver.set(Manner::Take, &[]);
    receiver.until("told", |state| (state.knows.connections.len() == 1).then_some(()));
    let requests = receiver.requests();
    let taken: Vec<&Request> =
        requests.iter().filter(|request| request.manner == Manner::Take).collect();
    assert_eq!((&taken[0].body["sequence"], &taken[0].body["events"]), (&json!(1), &json!([])));
    assert!(
        requests
            .iter()
            .filter(|one| one.manner != Manner::Take)
            .all(|one| one.text == taken[0].text)
    );
    assert!(taken.iter().all(|request| request.body["missed"] == 0), "{taken:?}");
}
