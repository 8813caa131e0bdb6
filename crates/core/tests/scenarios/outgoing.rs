//! Connections that a shard opens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use murre_core::ring::sim::{Faults, SimConfig, SimRing};
use murre_core::{Shard, ShardConfig};

use crate::client::{Client, until_answered};
use crate::echo::{Echo, Mail, some_echo};
use crate::watched::Watched;
use crate::world::{Setup, World, everywhere, simulated};

const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn outgoing() -> Setup {
    Setup { listening: false, ..Setup::default() }
}

/// An outgoing connection opens like an accepted one, and is served.
#[test]
fn a_connection_is_made_and_serves() {
    everywhere(&outgoing(), Echo::default, |world| {
        let to = world.net.listen();
        (0..5).for_each(|_| world.post(Mail::Connect(to)));
        let mut clients = Vec::new();
        world.until("all are made", |world| {
            clients.extend(world.net.accept().map(Client::of));
            clients.len() == 5 && world.shard.counters().connected.get() == 5
        });
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 1000)));
        until_answered(world, &mut clients);
    });
}

/// A connect without a listener is refused once, and its slot is used again.
#[test]
fn a_refusal_gives_the_slot_back() {
    let shard = ShardConfig { max_conns: 4, ..ShardConfig::default() };
    everywhere(&Setup { shard, ..outgoing() }, Echo::default, |world| {
        for round in 1..=5 {
            // One connect more than there are slots.
            (0..5).for_each(|_| world.post(Mail::Connect(NOBODY)));
            world.until("all are refused", |world| world.protocol().refused.len() == 4 * round);
            world.until("the slots are free", |world| world.shard.outbox().live() == 0);
        }
        let asked = &world.protocol().inner.asked;
        assert_eq!(asked.iter().filter(|id| id.is_none()).count(), 5, "no fifth slot");
        assert_eq!(world.protocol().opened, 0);
    });
}

/// A protocol that connects again after each refusal gets its connections, although no descriptor
/// is free at first and nothing else wakes the shard.
#[test]
fn trying_again_in_the_refusal_works() {
    let faults = Faults { connect: 60, ..Faults::hidden() };
    let setup = Setup { faults, ..outgoing() };
    simulated(
        &setup,
        || Echo::stubborn(1000),
        |world| {
            let to = world.net.listen();
            (0..5).for_each(|_| world.post(Mail::Connect(to)));
            let made = |world: &World<Echo>| world.shard.counters().connected.get();
            world.until("all are made", |world| made(world) == 5);
        },
    );
}

/// A shard does not sleep while a refusal waits to be handled.
#[test]
fn a_connect_in_a_refusal_is_not_slept_over() {
    let faults = Faults { connect: 100, ..Faults::none() };
    let config = SimConfig { faults, listening: false, ..SimConfig::default() };
    let ring = SimRing::new(&config).expect("a waker");
    let net = ring.net();
    let echo = Echo::stubborn(3);
    let mut shard = Shard::new(
        ring,
        Watched::new(echo, false, SimConfig::default().buffers),
        &ShardConfig::default(),
    );
    assert!(shard.mailbox().post(Mail::Connect(NOBODY)).is_ok());
    let started = net.now();
    net.pass(Duration::from_secs(10));
    while !net.passed() {
        shard.turn().expect("the ring works");
        if shard.protocol().refused.len() == 4 {
            let took = net.now() - started;
            assert!(took < Duration::from_millis(10), "it slept in between: {took:?}");
            return;
        }
    }
    panic!("refused {} times", shard.protocol().refused.len());
}
