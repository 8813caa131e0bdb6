//! `Serve` with peers that send anything.

use std::time::Duration;

use bytes::Bytes;
use murre_codec::{CloseCode, Control};
use murre_core::ring::sim::Faults;
use murre_core::{ServeMail, ShardConfig};

use crate::app::{
    Server, close, control, fragmented, get, handshake, post, serve, serve_patiently, setup, text,
};
use crate::client::Client;
use crate::world::{Setup, World, everywhere, simulated};

/// A random input of a client: complete or not, valid or not.
fn something(world: &mut World<Server>) -> Vec<u8> {
    let length = world.rng.usize(0..4000);
    let payload: Vec<u8> = (0..length).map(|_| world.rng.u8(..)).collect();
    let mut bytes = match world.rng.u8(0..12) {
        0 => payload,
        1 => close(CloseCode::Normal),
        2 => text("close"),
        3 => control(Control::Ping, b"ping"),
        4 => get(length * 20),
        5 => post(&payload),
        6 => fragmented(&[&payload, b"", b"the end"]),
        7..9 => handshake("/ws"),
        _ => text(&"text ".repeat(length / 5)),
    };
    if world.rng.u8(0..8) == 0 {
        bytes.truncate(world.rng.usize(0..=bytes.len()));
    }
    bytes
}

fn step(world: &mut World<Server>, clients: &mut Vec<Client>) {
    if clients.len() < 12 && world.rng.u8(0..4) == 0 {
        let mut client = Client::new(world);
        if world.rng.bool() {
            client.send_bytes(&handshake("/ws"));
        }
        clients.push(client);
    }
    if world.rng.u8(0..30) == 0 {
        world.post(ServeMail::App(Bytes::from_static(&[b'm'; 3000])));
    }
    if clients.is_empty() {
        return;
    }
    let at = world.rng.usize(0..clients.len());
    match world.rng.u8(0..30) {
        0 => world.net.half_close(clients[at].peer),
        1 => world.net.reset(clients.swap_remove(at).peer),
        2 => world.net.close(clients.swap_remove(at).peer),
        3 => world.net.vanish(clients.swap_remove(at).peer),
        4..10 => {
            let bytes = something(world);
            clients[at].send_bytes(&bytes);
        }
        10..18 => clients[at].read(world),
        _ => clients[at].write(world),
    }
}

/// Panics unless every opened session was closed, and no part of a message is kept.
fn check(world: &mut World<Server>) {
    world.finish();
    let served = &world.protocol().inner;
    assert!(served.handler().open.is_empty());
    let opened = served.counters().websockets.get();
    assert_eq!(served.handler().closed.len() as u64, opened);
    assert_eq!(served.counters().websockets_open.get(), 0);
    assert_eq!(served.messages_arriving(), 0, "halves of messages are kept");
}

fn chaotic() -> Setup {
    let shard = ShardConfig { max_conns: 10, max_send_bytes: 100_000, ..setup().shard };
    let faults = Faults { broken: 1, shutdown: 20, ..Faults::hidden() };
    Setup { shard, faults, buffers: 3, buffer_bytes: 700, seeds: 50, ..setup() }
}

/// Valid and invalid bytes, closes of all kinds and mail, in any order, leave nothing behind.
#[test]
fn anything_at_any_time() {
    everywhere(&chaotic(), serve_patiently, |world| {
        let mut clients = Vec::new();
        for _ in 0..400 {
            step(world, &mut clients);
            world.turn();
            world.check_balance();
        }
        check(world);
    });
}

/// The same while timers expire, and with a drain in the middle.
#[test]
fn anything_while_time_passes_and_in_a_drain() {
    simulated(&chaotic(), serve, |world| {
        let mut clients = Vec::new();
        for _ in 0..200 {
            step(world, &mut clients);
            let span = Duration::from_millis(world.rng.u64(0..500));
            world.pass(span);
            world.check_balance();
        }
        world.post(ServeMail::Drain(Duration::from_secs(1)));
        while !world.shard.stopped() {
            for client in &mut clients {
                client.step(world);
            }
            world.pass(Duration::from_millis(20));
        }
        world.check_balance();
        world.until("nothing is in flight", |world| world.shard.outbox().live() == 0);
        check(world);
    });
}
