//! Closes of all kinds, at any moment.

use std::time::Duration;

use bytes::Bytes;
use murre_core::ring::sim::Faults;
use murre_core::{CloseReason, ConnId, ShardConfig};

use crate::client::{Client, until_answered, until_ended};
use crate::echo::{Ask, Echo, Mail, frame, large, some_echo};
use crate::world::{Read, Setup, World, everywhere, everywhere_plain, simulated};

/// All bytes queued before a close arrive, although the peer keeps sending.
#[test]
fn a_close_sends_what_is_queued_first() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut client = Client::new(world);
        client.send(&large(world.rng.u32(0..150_000)));
        client.send(&frame(Ask::Close, b""));
        client.send_bytes(&some_echo(&mut world.rng, 2000));
        world.until("the end", |world| {
            client.step(world);
            client.end.is_some()
        });
        assert_eq!(client.heard.len(), client.expected.len());
        client.check();
        assert_eq!(client.end, Some(Read::End));
        world.net.close(client.peer);
        world
            .until("it is closed", |world| world.protocol().closed_for(CloseReason::Finished) == 1);
    });
}

/// A close by another caller, at any moment, loses no bytes of a peer that has closed its side and
/// waits for its responses.
#[test]
fn a_close_while_the_peer_half_closes_loses_nothing() {
    everywhere_plain(&Setup { seeds: 200, ..Setup::default() }, Echo::default, |world| {
        let mut client = Client::new(world);
        client.send(&large(world.rng.u32(20_000..60_000)));
        world.until("it is said", |world| {
            client.write(world);
            client.has_spoken()
        });
        world.until("it is answered", |world| world.shard.held().bytes > 0);
        let id = *world.protocol().open.iter().next().expect("it is open");
        world.net.half_close(client.peer);
        for _ in 0..world.rng.usize(0..5) {
            world.turn();
        }
        world.post(Mail::Close(id));
        world.until("the end", |world| {
            client.read(world);
            client.end.is_some()
        });
        assert!(
            client.is_answered(),
            "{} bytes are lost",
            client.expected.len() - client.heard.len()
        );
    });
}

/// A peer that neither reads our last bytes nor closes its side is closed after the linger time.
#[test]
fn a_peer_that_does_not_close_is_given_up() {
    let tick = Duration::from_millis(20);
    let linger = Duration::from_millis(200);
    let shard = ShardConfig { max_conns: 16, tick, linger, ..ShardConfig::default() };
    everywhere(&Setup { shard, ..Setup::default() }, Echo::default, |world| {
        let mut deaf = Client::new(world);
        let mut idle = Client::new(world);
        deaf.send(&large(60_000));
        for client in [&mut deaf, &mut idle] {
            client.send(&frame(Ask::Close, b""));
        }
        world.until("both are asked for", |world| {
            deaf.write(world);
            idle.write(world);
            deaf.has_spoken() && idle.has_spoken()
        });
        world.until("both are given up", |world| {
            world.protocol().closed_for(CloseReason::Finished) == 2
        });
    });
}

/// While the machine stands still no peer can read our last bytes: the peer still gets its time to
/// read them afterwards. (Seed 515 of the simulation found this.)
#[test]
fn last_bytes_outlast_a_standstill() {
    let tick = Duration::from_millis(100);
    let shard = ShardConfig { max_conns: 16, tick, ..ShardConfig::default() };
    let linger = shard.linger;
    simulated(&Setup { shard, socket_bytes: 1000, ..Setup::default() }, Echo::default, |world| {
        let mut client = [Client::new(world)];
        client[0].send(&large(20_000));
        client[0].send(&frame(Ask::Close, b""));
        world.until("it is closing", |world| {
            client[0].write(world);
            client[0].has_spoken() && world.shard.counters().bytes_out.get() > 0
        });
        for _ in 0..world.rng.usize(0..10) {
            world.turn();
        }
        world.net.suspend(linger * 2);
        until_ended(world, &mut client);
        assert!(client[0].is_answered(), "{} of 20000 bytes came", client[0].heard.len());
    });
}

/// An abort ends the connection at once, whatever is queued, and the peer loses the bytes that it
/// has not read.
#[test]
fn an_abort_is_now() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut clients: Vec<Client> = (0..4).map(|_| Client::new(world)).collect();
        for client in &mut clients {
            client.send(&large(100_000));
            client.send(&frame(Ask::Abort, b""));
        }
        until_ended(world, &mut clients);
        clients.iter().for_each(Client::check);
        world.until("all are closed", |world| {
            world.protocol().closed_for(CloseReason::BadFrame) == 4
        });
    });
}

/// A reset ends the peer's own connection only.
#[test]
fn a_reset_ends_one_connection() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut good = [Client::new(world), Client::new(world)];
        let mut bad = Client::new(world);
        bad.send(&large(300_000));
        good.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 500)));
        for _ in 0..world.rng.usize(0..20) {
            bad.step(world);
            good.iter_mut().for_each(|client| client.step(world));
            world.turn();
        }
        world.net.reset(bad.peer);
        until_answered(world, &mut good);
        good.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 500)));
        until_answered(world, &mut good);
        world.until("it is noticed", |world| !world.protocol().closed.is_empty());
        let closed: Vec<CloseReason> = world.protocol().closed.values().copied().collect();
        assert_eq!(closed, [CloseReason::PeerReset]);
    });
}

/// The shard notices a peer that closes, whatever the connection was doing.
#[test]
fn a_peer_that_leaves_is_noticed() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let clients: Vec<Client> = (0..10).map(|_| Client::new(world)).collect();
        for _ in 0..world.rng.usize(0..10) {
            world.turn();
        }
        clients.iter().for_each(|client| world.net.close(client.peer));
        world.until("all are closed", |world| {
            world.protocol().closed_for(CloseReason::PeerClosed) == 10
        });
    });
}

/// While many peers close at one moment, a peer that stays and sends last is answered first.
#[test]
fn who_stays_is_heard_while_a_crowd_leaves() {
    let shard = ShardConfig { max_conns: 1010, ..ShardConfig::default() };
    let setup = Setup { shard, faults: Faults::none(), seeds: 10, ..Setup::default() };
    simulated(&setup, Echo::default, |world| {
        let crowd: Vec<Client> = (0..1000).map(|_| Client::new(world)).collect();
        let mut stays = Client::new(world);
        world.until("all are open", |world| world.shard.counters().open.get() == 1001);
        for (place, client) in crowd.iter().enumerate() {
            match place % 2 {
                0 => world.net.reset(client.peer),
                _ => world.net.close(client.peer),
            }
        }
        stays.send(&frame(Ask::Echo, b"still here"));
        while !stays.is_answered() {
            stays.step(world);
            world.turn();
        }
        let open = world.shard.counters().open.get();
        assert!(open > 500, "{open} were left");
        world.until("they are gone", |world| world.shard.counters().open.get() == 1);
    });
}

/// One step of clients that do anything.
fn anything(world: &mut World<Echo>, clients: &mut Vec<Client>, seen: &mut Vec<ConnId>) {
    seen.extend(world.protocol().open.iter());
    if clients.len() < 20 && world.rng.u8(0..4) == 0 {
        clients.push(Client::new(world));
    }
    let whom = seen.get(world.rng.usize(0..seen.len().max(1))).copied();
    let len = world.rng.usize(1..5000);
    match (world.rng.u8(0..40), whom) {
        (0, _) => world.post(Mail::Push(Bytes::from(vec![b'x'; len]))),
        (1, Some(id)) => world.post(Mail::Close(id)),
        (2, Some(id)) => world.post(Mail::Abort(id)),
        _ => {}
    }
    if clients.is_empty() {
        return;
    }
    let at = world.rng.usize(0..clients.len());
    let client = &mut clients[at];
    match world.rng.u8(0..40) {
        0 => client.send_bytes(&frame(Ask::Close, b"")),
        1 => client.send_bytes(&frame(Ask::Abort, b"")),
        2 => client.send_bytes(&large(world.rng.u32(0..300_000))),
        3 => client.send_bytes(&frame(Ask::Push, &[b'y'; 3000])),
        4..12 => client.send_bytes(&some_echo(&mut world.rng, 3000)),
        12 => world.net.half_close(client.peer),
        13 => world.net.vanish(client.peer),
        14 => {
            world.net.reset(client.peer);
            clients.swap_remove(at);
        }
        15 => {
            world.net.close(client.peer);
            clients.swap_remove(at);
        }
        16..25 => client.read(world),
        _ => client.write(world),
    }
}

/// Closes, aborts, resets, stale ids, pushes and half-closes in any order leave nothing behind.
#[test]
fn anything_at_any_time() {
    let shard = ShardConfig { max_conns: 12, max_send_bytes: 100_000, ..ShardConfig::default() };
    let faults = Faults { broken: 1, shutdown: 20, ..Faults::hidden() };
    let setup =
        Setup { shard, faults, buffers: 3, buffer_bytes: 500, seeds: 60, ..Setup::default() };
    everywhere(&setup, Echo::default, |world| {
        let (mut clients, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            anything(world, &mut clients, &mut seen);
            world.turn();
            world.check_balance();
        }
    });
}

/// Connections that the kernel breaks end, each with a reason that says so.
#[test]
fn broken_connections_end() {
    let faults = Faults { broken: 5, ..Faults::hidden() };
    simulated(&Setup { faults, ..Setup::default() }, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..10).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 3000)));
        world.until("everybody is answered or gone", |world| {
            clients.iter_mut().for_each(|client| client.step(world));
            clients.iter().all(|client| client.end.is_some() || client.is_answered())
        });
        world.until("the gone are closed", |world| {
            let ended = clients.iter().filter(|client| client.end.is_some()).count();
            world.protocol().closed.len() >= ended
        });
        let expected = [CloseReason::PeerReset, CloseReason::Failed];
        assert!(world.protocol().closed.values().all(|reason| expected.contains(reason)));
    });
}

/// While the machine cannot shut down sockets the shard tries again once a tick, not in every turn,
/// and the connections end when it can.
#[test]
fn failed_shutdowns_are_tried_again_later() {
    let tick = Duration::from_millis(100);
    let shard = ShardConfig { max_conns: 16, tick, ..ShardConfig::default() };
    let faults = Faults { slow_shutdown: 100, shutdown: 100, ..Faults::none() };
    simulated(
        &Setup { shard, faults: Faults::none(), ..Setup::default() },
        Echo::default,
        |world| {
            let mut clients: Vec<Client> = (0..8).map(|_| Client::new(world)).collect();
            clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 10)));
            until_answered(world, &mut clients);
            world.sim.as_ref().expect("simulated").set_faults(faults);
            let open: Vec<ConnId> = world.protocol().open.iter().copied().collect();
            open.into_iter().for_each(|id| world.post(Mail::Abort(id)));
            let completions = world.shard.counters().completions.get();
            world.pass(Duration::from_secs(2));
            let tried = world.shard.counters().completions.get() - completions;
            // Once a tick for each client, and once at first.
            assert!((8..=8 * 21).contains(&tried), "tried {tried} times");
            assert!(world.protocol().closed.is_empty(), "the kernel waits for input still");
            world.sim.as_ref().expect("simulated").set_faults(Faults::none());
            world.until("all are closed", |world| world.protocol().closed.len() == 8);
        },
    );
}
