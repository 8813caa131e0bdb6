//! Echoes: all bytes come back, in order, on every connection.

use std::time::Duration;

use murre_core::ShardConfig;
use murre_core::ring::sim::Faults;

use crate::client::{Client, until_answered, until_ended};
use crate::echo::{Ask, Echo, frame, large, some_echo};
use crate::world::{Read, Setup, everywhere, simulated};

/// Every byte comes back in order, however streams are cut, even if frames overlap receive buffers
/// and responses exceed the size of the socket's buffer.
#[test]
fn every_byte_comes_back_in_order() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let count = world.rng.usize(1..6);
        let mut clients: Vec<Client> = (0..count).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            for _ in 0..world.rng.usize(1..20) {
                let frame = match world.rng.u8(0..8) {
                    0 => large(world.rng.u32(0..100_000)),
                    1 => some_echo(&mut world.rng, 5000),
                    _ => some_echo(&mut world.rng, 100),
                };
                client.send(&frame);
            }
        }
        until_answered(world, &mut clients);
    });
}

/// Each of two hundred simultaneous connections gets its own responses.
#[test]
fn many_connections_at_once() {
    let setup = Setup { seeds: 8, ..Setup::default() };
    everywhere(&setup, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..200).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            client.send(&some_echo(&mut world.rng, 300));
            client.send(&some_echo(&mut world.rng, 300));
        }
        until_answered(world, &mut clients);
        assert_eq!(world.shard.counters().open.get(), 200);
    });
}

/// More connections than slots: the waiting connections are served when others close, and none is
/// dropped.
#[test]
fn more_connections_than_slots() {
    let shard = ShardConfig { max_conns: 8, ..ShardConfig::default() };
    everywhere(&Setup { shard, ..Setup::default() }, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..50).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            client.send(&some_echo(&mut world.rng, 200));
        }
        world.until("everybody was served", |world| {
            for client in &mut clients {
                client.step(world);
                if client.end.is_none() && client.is_answered() {
                    world.net.close(client.peer);
                    client.end = Some(Read::Nothing);
                }
                assert!(client.is_answered() || client.end.is_none(), "dropped: {:?}", client.end);
            }
            assert!(world.shard.outbox().live() <= 8);
            clients.iter().all(|client| client.end.is_some())
        });
        world.until("all are counted", |world| world.shard.counters().accepted.get() == 50);
    });
}

/// One or two receive buffers serve all connections in the end, however many need one.
#[test]
fn few_buffers_serve_many() {
    let setup = Setup { buffers: 2, buffer_bytes: 64, seeds: 15, ..Setup::default() };
    everywhere(&setup, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..40).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            client.send(&some_echo(&mut world.rng, 1000));
        }
        until_answered(world, &mut clients);
    });
    simulated(&Setup { buffers: 1, ..setup }, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..20).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 500)));
        until_answered(world, &mut clients);
        assert!(world.shard.counters().starved.get() > 0, "nobody had to wait");
    });
}

/// With one buffer, and busy connections that always have input, a waiting connection is served.
#[test]
fn waiting_for_a_buffer_is_first_come_first_served() {
    let setup = Setup { buffers: 1, faults: Faults::none(), ..Setup::default() };
    simulated(&setup, Echo::default, |world| {
        let mut talkers: Vec<Client> = (0..8).map(|_| Client::new(world)).collect();
        let mut quiet = Client::new(world);
        world.until("all are open", |world| world.shard.counters().open.get() == 9);
        quiet.send(&frame(Ask::Echo, b"me too"));
        for turn in 0.. {
            for talker in &mut talkers {
                talker.send(&frame(Ask::Echo, b"more"));
                talker.step(world);
            }
            quiet.step(world);
            if quiet.is_answered() {
                break;
            }
            assert!(turn < 100, "not served in {turn} turns");
            world.turn();
        }
    });
}

/// An accept that fails because no descriptor is free succeeds later.
#[test]
fn failed_accepts_are_tried_again() {
    let faults = Faults { accept: 70, ..Faults::hidden() };
    simulated(&Setup { faults, ..Setup::default() }, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..5).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 50)));
        until_answered(world, &mut clients);
    });
}

/// While no descriptor is free for accepts, the shard pauses accepts for a tenth of a second after
/// each failure: it does not try in every turn.
#[test]
fn failed_accepts_are_not_tried_again_at_once() {
    let faults = Faults { accept: 100, ..Faults::none() };
    simulated(&Setup { faults: Faults::none(), ..Setup::default() }, Echo::default, |world| {
        let sim = world.sim.clone().expect("simulated");
        let mut here = [Client::new(world)];
        here[0].send(&some_echo(&mut world.rng, 50));
        until_answered(world, &mut here);
        sim.set_faults(faults);
        let mut waits = [Client::new(world)];
        let (started, failed) = (world.net.now(), world.shard.counters().accept_failed.get());
        // The shard takes turns all the time.
        while world.net.now() - started < Duration::from_secs(2) {
            here[0].send(&some_echo(&mut world.rng, 50));
            until_answered(world, &mut here);
            world.turn();
        }
        let failed = world.shard.counters().accept_failed.get() - failed;
        // The armed accepts fail together.
        assert!((10..=21 * ACCEPTS_MAX).contains(&failed), "{failed} accepts failed in 2 s");
        sim.set_faults(Faults::none());
        waits[0].send(&some_echo(&mut world.rng, 50));
        until_answered(world, &mut waits);
    });
}

/// The largest number of armed accepts.
const ACCEPTS_MAX: u64 = 8;

/// A connection lost before its accept does not delay those after it: they are accepted at once,
/// because the accept had all it needed.
#[test]
fn lost_connections_hold_nobody_up() {
    let faults = Faults { aborted: 50, ..Faults::hidden() };
    let setup = Setup { faults: Faults { accept: 0, ..faults }, ..Setup::default() };
    simulated(&setup, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..10).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 50)));
        world.until("everybody is answered or lost", |world| {
            clients.iter_mut().for_each(|client| client.step(world));
            clients.iter().all(|client| client.end.is_some() || client.is_answered())
        });
        let served = clients.iter().filter(|client| client.end.is_none()).count() as u64;
        assert_eq!(world.shard.counters().accepted.get(), served);
        assert_eq!(world.shard.counters().accept_failed.get(), 0);
    });
}

/// A peer that sends everything and closes its side receives all of the responses, then the end.
#[test]
fn answers_outlive_a_half_close() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            client.send(&large(world.rng.u32(0..200_000)));
            client.send(&some_echo(&mut world.rng, 3000));
        }
        world.until("everything is said", |world| {
            clients.iter_mut().for_each(|client| client.write(world));
            clients.iter().all(Client::has_spoken)
        });
        clients.iter().for_each(|client| world.net.half_close(client.peer));
        until_ended(world, &mut clients);
        for client in &clients {
            assert!(
                client.is_answered(),
                "{} bytes of {}",
                client.heard.len(),
                client.expected.len()
            );
            assert_eq!(client.end, Some(Read::End));
        }
    });
}
