//! Drains of a shard.

use std::time::Duration;

use bytes::Bytes;
use murre_core::{CloseReason, ShardConfig};

use crate::client::{Client, until_answered, until_ended};
use crate::echo::{Echo, Mail, large, some_echo};
use crate::world::{Read, Setup, everywhere, everywhere_plain, simulated};

/// A drained shard sends all peers the rest of their responses, then the end; then it stops.
#[test]
fn everybody_leaves_with_all_answers() {
    everywhere_plain(&Setup::default(), Echo::default, |world| {
        let mut clients: Vec<Client> = (0..20).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            client.send(&some_echo(&mut world.rng, 100));
            client.send(&large(world.rng.u32(0..20_000)));
        }
        world.until("everything is answered", |world| {
            clients.iter_mut().for_each(|client| client.write(world));
            let counters = world.shard.counters();
            let asked: usize = clients.iter().map(|client| client.expected.len()).sum();
            counters.bytes_out.get() + world.shard.held().bytes == asked as u64
        });
        world.post(Mail::Drain(Duration::from_millis(50)));
        until_ended(world, &mut clients);
        for client in &clients {
            assert!(client.is_answered());
            assert_eq!(client.end, Some(Read::End));
            world.net.close(client.peer);
        }
        world.until("it stops", |world| world.shard.stopped());
        let reasons = &world.protocol().closed;
        assert_eq!(world.protocol().closed_for(CloseReason::Draining), 20, "{reasons:?}");
        assert_eq!(world.shard.counters().open.get(), 0);
    });
}

/// A connection that arrives during the drain is refused, or closes like the others.
#[test]
fn nobody_stays_who_came_late() {
    let setup = Setup { seeds: 200, ..Setup::default() };
    everywhere(&setup, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 10)));
        until_answered(world, &mut clients);
        // These connections wait for their accept, or are being accepted.
        clients.extend((0..3).map(|_| Client::new(world)));
        for _ in 0..world.rng.usize(0..3) {
            world.turn();
        }
        world.post(Mail::Drain(Duration::ZERO));
        world.until("nobody is left", |world| {
            for client in &mut clients {
                client.read(world);
                if client.end.is_some() {
                    world.net.close(client.peer);
                }
            }
            clients.iter().all(|client| client.end.is_some()) && world.shard.stopped()
        });
        assert!(world.net.connect().is_none(), "it listens still");
        assert_eq!(world.shard.counters().open.get(), 0, "somebody was left behind");
    });
}

/// The closes are spread over the time of the drain, whenever the connections arrived, and peers
/// that do not react delay the end by no more than the linger time.
#[test]
fn a_drain_takes_its_time_and_no_more() {
    let over = Duration::from_secs(2);
    let linger = Duration::from_secs(1);
    let tick = Duration::from_millis(100);
    let shard = ShardConfig { max_conns: 128, linger, tick, ..ShardConfig::default() };
    simulated(&Setup { shard, ..Setup::default() }, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..100).map(|_| Client::new(world)).collect();
        world.until("all are there", |world| world.shard.counters().open.get() == 100);
        let started = world.net.now();
        world.post(Mail::Drain(over));
        let mut halfway = None;
        while !world.shard.stopped() {
            world.pass(Duration::from_millis(20));
            clients.iter_mut().for_each(|client| client.read(world));
            let passed = world.net.now() - started;
            if halfway.is_none() && passed > over / 2 {
                let gone = |clients: &[Client]| {
                    clients.iter().filter(|client| client.end.is_some()).count()
                };
                halfway = Some((gone(&clients[..50]), gone(&clients[50..])));
            }
            assert!(passed < over + linger + Duration::from_millis(200), "it goes on");
        }
        let (early, late) = halfway.expect("it took at least half of its time");
        let gone = early + late;
        assert!((25..=75).contains(&gone), "{gone} of 100 had left after half of the time");
        // In the order of arrival all early closes would be of early connections. The standard
        // deviation is 2.5.
        assert!(early.abs_diff(late) <= 25, "{early} had come early and {late} late");
    });
}

/// A stopped shard closes its open connections when it is dropped; every scenario ends with a check
/// that the peers see this.
#[test]
fn a_stop_closes_everything() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut clients: Vec<Client> = (0..10).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 100)));
        until_answered(world, &mut clients);
        world.post(Mail::Push(Bytes::from_static(b"bye")));
        world.post(Mail::Stop);
        world.until("it stops", |world| world.shard.stopped());
    });
}
