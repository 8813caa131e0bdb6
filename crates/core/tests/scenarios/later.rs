//! Deferred responses, and streams.

use std::time::Duration;

use bytes::Bytes;
use murre_core::{CloseReason, Serve, ServeLimits, ServeMail};

use crate::app::{App, Server, body, get, limits, serve, serve_patiently, setup, understand};
use crate::client::{Client, until_ended};
use crate::world::{Read, Setup, World, everywhere, everywhere_plain, simulated};

/// A client whose request for `path` the shard has received.
fn ask(world: &mut World<Server>, path: &str) -> Client {
    let before = world.protocol().inner.handler().later.len();
    let mut client = Client::new(world);
    client.send_bytes(format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    world.until("it is heard", |world| {
        client.step(world);
        world.protocol().inner.handler().later.len() > before
    });
    client
}

fn bodies(client: &Client) -> Vec<Vec<u8>> {
    understand(&client.heard).responses.into_iter().map(|(_, body)| body).collect()
}

fn receive(world: &mut World<Server>, client: &mut Client, expected: &[&[u8]]) {
    world.until("it is answered", |world| {
        client.step(world);
        bodies(client).len() >= expected.len()
    });
    assert_eq!(bodies(client), expected);
}

/// A deferred response arrives whole, whatever its length, and the connection is used again.
#[test]
fn the_answer_comes_later() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut client = ask(world, "/later");
        let late = body(world.rng.usize(0..50_000));
        for _ in 0..10 {
            world.turn();
            client.step(world);
        }
        assert!(client.heard.is_empty(), "nobody has answered");
        world.post(ServeMail::App(late.clone()));
        receive(world, &mut client, &[&late]);
        client.send_bytes(&get(10));
        receive(world, &mut client, &[&late, &body(10)]);
        assert!(world.protocol().closed.is_empty(), "it is kept alive");
        assert_eq!(world.protocol().inner.handler().closed, [CloseReason::Finished]);
    });
}

/// A client that sends another request before its response is complete gets this one response and
/// the end.
#[test]
fn asking_before_the_answer_ends_the_connection() {
    everywhere_plain(&setup(), serve_patiently, |world| {
        let mut client = ask(world, "/later");
        let received = world.shard.counters().bytes_in.get();
        client.send_bytes(&get(10));
        world.until("it is heard", |world| {
            client.step(world);
            world.shard.counters().bytes_in.get() == received + get(10).len() as u64
        });
        world.post(ServeMail::App(Bytes::from_static(b"late")));
        world.until("it is over", |world| {
            client.step(world);
            client.end.is_some()
        });
        assert_eq!((bodies(&client), client.end), (vec![b"late".to_vec()], Some(Read::End)));
    });
}

/// A stream continues over many pieces. The application learns when each piece has been sent, and
/// when the client closes.
#[test]
fn a_stream_goes_on_until_the_client_goes() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut client = ask(world, "/never");
        for count in 1..=5 {
            world.post(ServeMail::App(Bytes::from_static(b"piece")));
            receive(world, &mut client, &vec![b"piece".as_slice(); count]);
            world.until("it is told", |world| world.protocol().inner.handler().drained >= count);
        }
        world.net.close(client.peer);
        world.until("it is over", |world| world.protocol().closed.len() == 1);
        assert_eq!(world.protocol().inner.handler().closed, [CloseReason::PeerClosed]);
    });
}

/// A waiting request is neither idle nor late: the server calls `waited` at every ping interval,
/// and after the response the usual idle time begins.
#[test]
fn waiting_is_not_being_idle() {
    simulated(&setup(), serve, |world| {
        let mut client = ask(world, "/later");
        let patient = limits().ping_interval * 5;
        assert!(patient > limits().http_idle_timeout && patient > limits().handshake_timeout);
        world.pass(patient);
        let waited = world.protocol().inner.handler().waited;
        assert!((4..=6).contains(&waited), "asked {waited} times");
        assert!(world.protocol().closed.is_empty());
        world.post(ServeMail::App(Bytes::from_static(b"late")));
        receive(world, &mut client, &[b"late"]);
        world.pass(limits().http_idle_timeout + Duration::from_secs(2));
        assert_eq!(world.protocol().closed_for(CloseReason::IdleTimeout), 1);
    });
}

/// The server calls `waited` for a deferred response after a whole ping interval, whatever its
/// slot, and for a stream earlier the first time; a check of the client's progress calls it for
/// neither.
#[test]
fn waiting_is_told_by_the_interval() {
    let patient = || {
        Serve::new(App::default(), ServeLimits { slow_timeout: Duration::from_secs(1), ..limits() })
    };
    simulated(&setup(), patient, |world| {
        let others = world.rng.usize(0..20);
        let _others: Vec<_> = (0..others).map(|_| Client::new(world)).collect();
        let _client = ask(world, "/later");
        world.pass(Duration::from_millis(7500));
        assert_eq!(world.protocol().inner.handler().waited, 0);
        world.pass(Duration::from_millis(1000));
        assert_eq!(world.protocol().inner.handler().waited, 1);
        world.pass(Duration::from_millis(7000));
        assert_eq!(world.protocol().inner.handler().waited, 1);
        world.pass(Duration::from_millis(1000));
        assert_eq!(world.protocol().inner.handler().waited, 2);
    });
    simulated(&setup(), patient, |world| {
        let _client = ask(world, "/never");
        world.pass(Duration::from_millis(3500));
        assert_eq!(world.protocol().inner.handler().waited, 0);
        world.pass(Duration::from_millis(5000));
        assert_eq!(world.protocol().inner.handler().waited, 1);
    });
}

/// A client that reads nothing of its stream is closed, and the queued bytes are freed.
#[test]
fn a_stream_that_is_not_read_is_given_up() {
    simulated(&Setup { seeds: 8, ..setup() }, serve, |world| {
        let _client = ask(world, "/never");
        world.post(ServeMail::App(body(100_000)));
        world.pass(limits().ping_interval * 4);
        assert_eq!(world.protocol().closed_for(CloseReason::TooSlow), 1);
    });
}

/// A drain ends waiting requests, with their response if they have one.
#[test]
fn a_drain_ends_what_waits() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut waiting = [ask(world, "/later"), ask(world, "/never")];
        world.post(ServeMail::Drain(Duration::ZERO));
        until_ended(world, &mut waiting);
        assert_eq!(
            waiting.each_ref().map(|client| client.end.clone()),
            [const { Some(Read::End) }; 2]
        );
        assert_eq!(bodies(&waiting[0]), [b"drained"]);
        assert!(waiting[1].heard.is_empty());
        waiting.iter().for_each(|client| world.net.close(client.peer));
        world.until("both are over", |world| world.protocol().closed.len() == waiting.len());
        assert_eq!(world.protocol().inner.handler().closed, [CloseReason::Draining; 2]);
    });
}

/// A request that would wait ends at once if the drain has already passed its slot.
#[test]
fn nothing_waits_in_a_drain() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut told = open_and_idle(world);
        let mut late = Client::new(world);
        world.until("it has come", |world| world.shard.counters().open.get() == 2);
        world.post(ServeMail::Drain(Duration::ZERO));
        until_ended(world, std::slice::from_mut(&mut told));
        late.send_bytes(b"GET /later HTTP/1.1\r\nHost: m\r\n\r\n");
        until_ended(world, std::slice::from_mut(&mut late));
        assert_eq!((bodies(&late), late.end), (vec![b"drained".to_vec()], Some(Read::End)));
    });
}

/// A client that has had a response and is idle.
fn open_and_idle(world: &mut World<Server>) -> Client {
    let mut client = Client::new(world);
    client.send_bytes(&get(10));
    receive(world, &mut client, &[&body(10)]);
    client
}
