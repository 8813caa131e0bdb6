//! Admission of new connections, and its rate.

use std::sync::Arc;
use std::time::Duration;

use murre_core::ring::sim::Faults;
use murre_core::{Admission, CloseReason, Gate, ShardConfig};

use crate::app::{Server, body, get, handshake, serve_patiently, setup, understand};
use crate::client::{Client, until_ended};
use crate::world::{Read, Setup, World, everywhere, simulated};

/// A setup with a gate that the scenario controls.
fn gated() -> (Setup, Arc<Gate>) {
    let setup = setup();
    let gate = Arc::clone(&setup.shard.gate);
    (setup, gate)
}

/// Sends a request, and waits for the response.
fn is_served(world: &mut World<Server>, client: &mut Client, length: usize) {
    let before = understand(&client.heard).responses.len();
    client.send_bytes(&get(length));
    world.until("it is answered", |world| {
        client.step(world);
        understand(&client.heard).responses.len() > before
    });
    let last = understand(&client.heard).responses.pop();
    assert_eq!(last, Some((200, body(length).to_vec())));
}

/// While the gate refuses, a new connection gets a 503 with `Retry-After` for any request, and open
/// connections continue. Later the gate admits all connections again.
#[test]
fn who_is_refused_is_told_when_to_come_back() {
    let (setup, gate) = gated();
    everywhere(&setup, serve_patiently, |world| {
        gate.set(Admission::Open);
        let mut there = Client::new(world);
        is_served(world, &mut there, 10);
        gate.set(Admission::Refuse);
        let mut refused: Vec<Client> = (0..3).map(|_| Client::new(world)).collect();
        refused[0].send_bytes(&get(7));
        refused[1].send_bytes(&handshake("/ws"));
        refused[2].send_bytes(b"HEAD /n?length=7 HTTP/1.1\r\nHost: m\r\n\r\n");
        until_ended(world, &mut refused);
        for client in &refused {
            let head = String::from_utf8_lossy(&client.heard);
            assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
            assert!(head.contains("\r\nRetry-After: "), "{head}");
            assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
            assert_eq!(client.end, Some(Read::End));
            world.net.close(client.peer);
        }
        assert!(refused[2].heard.ends_with(b"\r\n\r\n"), "an answer to HEAD has no body");
        is_served(world, &mut there, 20);
        world.until("they are gone", |world| world.protocol().closed.len() == 3);
        assert_eq!(world.protocol().closed_for(CloseReason::Overloaded), 3);
        gate.set(Admission::Open);
        let mut late = Client::new(world);
        is_served(world, &mut late, 30);
    });
}

/// While the gate refuses, no request on a kept connection starts a session: the client gets a 503
/// with `Retry-After`. Other requests on the connection are answered.
#[test]
fn kept_connections_begin_no_sessions() {
    let (setup, gate) = gated();
    everywhere(&setup, serve_patiently, |world| {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n").into_bytes();
        for said in [handshake("/ws"), get("/later"), get("/never")] {
            gate.set(Admission::Open);
            let mut there = [Client::new(world)];
            is_served(world, &mut there[0], 10);
            gate.set(Admission::Refuse);
            is_served(world, &mut there[0], 20);
            there[0].send_bytes(&said);
            until_ended(world, &mut there);
            let (status, _) = understand(&there[0].heard).responses.pop().expect("an answer");
            let head = String::from_utf8_lossy(&there[0].heard);
            assert_eq!(status, 503);
            assert!(
                head.contains("\r\nRetry-After: ") && head.contains("\r\nConnection: close\r\n")
            );
            world.net.close(there[0].peer);
            world.until("it is gone", |world| world.protocol().open.is_empty());
        }
        assert_eq!(world.protocol().closed_for(CloseReason::Overloaded), 3);
        assert_eq!(world.protocol().inner.handler().opened, 0);
    });
}

/// While the gate refuses, a request of a session that has begun is answered on a new connection, too,
/// which ends with the answer. With an upgrade it would begin something new.
#[test]
fn sessions_that_have_begun_continue() {
    let (setup, gate) = gated();
    everywhere(&setup, serve_patiently, |world| {
        gate.set(Admission::Refuse);
        let mut new: Vec<Client> = (0..2).map(|_| Client::new(world)).collect();
        new[0].send_bytes(b"GET /continues HTTP/1.1\r\nHost: m\r\n\r\n");
        new[1].send_bytes(&handshake("/continues"));
        until_ended(world, &mut new);
        for (client, status) in new.iter().zip([200, 503]) {
            let head = String::from_utf8_lossy(&client.heard);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
            world.net.close(client.peer);
        }
        world.until("they are gone", |world| world.protocol().closed.len() == 2);
    });
}

/// While the gate lets connections wait, the shard accepts none beyond the armed accepts, and open
/// connections continue. Later the gate admits all of them, and none is lost.
#[test]
fn who_waits_is_let_in_later() {
    let (setup, gate) = gated();
    everywhere(&setup, serve_patiently, |world| {
        gate.set(Admission::Open);
        let mut there = Client::new(world);
        is_served(world, &mut there, 10);
        gate.set(Admission::Wait);
        let mut waiting: Vec<Client> = (0..30).map(|_| Client::new(world)).collect();
        for _ in 0..50 {
            world.turn();
        }
        let accepted = world.shard.counters().accepted.get();
        assert!(accepted <= 1 + ARMED_MAX, "{accepted} were accepted");
        is_served(world, &mut there, 20);
        assert_eq!(world.shard.counters().accepted.get(), accepted, "somebody was let in");
        gate.set(Admission::Open);
        for client in &mut waiting {
            is_served(world, client, 5);
        }
        assert_eq!(world.shard.counters().accepted.get(), 31);
    });
}

/// The largest number of accepts that a shard arms.
const ARMED_MAX: u64 = 8;

/// Many connections at once are accepted at the configured rate, after a burst of a tenth of a
/// second, and none is lost.
#[test]
fn a_crowd_is_paced() {
    let accept_interval = Duration::from_millis(20);
    let shard = ShardConfig { max_conns: 256, accept_interval, ..ShardConfig::default() };
    let setup = Setup { shard, faults: Faults::none(), seeds: 8, ..setup() };
    simulated(&setup, serve_patiently, |world| {
        let mut crowd: Vec<Client> = (0..100).map(|_| Client::new(world)).collect();
        let started = world.net.now();
        let mut paced = 0;
        while world.shard.counters().accepted.get() < 100 {
            world.pass(Duration::from_millis(10));
            let passed = (world.net.now() - started).as_secs_f64();
            let accepted = world.shard.counters().accepted.get() as f64;
            let most = (passed + 0.1) / accept_interval.as_secs_f64();
            assert!(accepted <= most + 1.0, "{accepted} in {passed} s");
            // Each pause of 5 ms may end late by its own length and that of a check.
            assert!(accepted >= most - 3.0 || accepted == 100.0, "{accepted} in {passed} s");
            paced = world.shard.counters().accepts_paced.get();
        }
        assert!(paced > 0, "it was not counted");
        is_served(world, &mut crowd[99], 10);
    });
}
