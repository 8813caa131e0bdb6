//! Peers that do not read.

use murre_core::{CloseReason, ShardConfig};

use crate::client::{Client, until_answered};
use crate::echo::{Ask, Echo, frame, large, some_echo};
use crate::world::{Setup, everywhere};

/// The shard stops reading a peer that sends requests and reads no responses: the bytes queued for
/// it stay within a bound. When it reads, all responses arrive.
#[test]
fn a_peer_that_does_not_read_is_not_read() {
    everywhere(&Setup { seeds: 4, ..Setup::default() }, Echo::default, |world| {
        let mut client = Client::new(world);
        let mut other = Client::new(world);
        (0..150).for_each(|_| client.send(&large(60_000)));
        let mut most = 0;
        world.until("it is paused", |world| {
            client.write(world);
            most = most.max(world.shard.held().bytes);
            world.shard.counters().paused.get() > 0
        });
        other.send(&some_echo(&mut world.rng, 500));
        until_answered(world, std::slice::from_mut(&mut other));
        for _ in 0..100 {
            client.write(world);
            world.turn();
            most = most.max(world.shard.held().bytes);
        }
        assert!(most <= 64 * 1024 + 60_000, "{most} bytes were queued");
        until_answered(world, std::slice::from_mut(&mut client));
        assert!(world.protocol().closed.is_empty());
    });
}

/// Pushes to a peer that does not read are bounded: it is closed as a slow consumer, and all other
/// peers get everything.
#[test]
fn a_slow_consumer_is_closed_and_others_are_not() {
    let shard = ShardConfig { max_conns: 16, max_send_bytes: 50_000, ..ShardConfig::default() };
    everywhere(&Setup { shard, seeds: 20, ..Setup::default() }, Echo::default, |world| {
        let mut speaker = Client::new(world);
        let mut hearers = [Client::new(world), Client::new(world)];
        let deaf = Client::new(world);
        world.until("all are there", |world| world.shard.counters().open.get() == 4);
        let piece = vec![b'.'; 8000];
        let mut pushed = 0;
        world.until("it is closed", |world| {
            // The next push follows when all readers have received the last.
            if hearers.iter().all(|hearer| hearer.heard.len() == pushed) && speaker.has_spoken() {
                speaker.send(&frame(Ask::Push, &piece));
                pushed += piece.len();
            }
            speaker.write(world);
            hearers.iter_mut().for_each(|hearer| hearer.read(world));
            world.protocol().closed_for(CloseReason::SlowConsumer) == 1
        });
        world.until("all is heard", |world| {
            speaker.write(world);
            hearers.iter_mut().for_each(|hearer| hearer.read(world));
            hearers.iter().all(|hearer| hearer.heard.len() == pushed)
        });
        assert!(hearers.iter().all(|hearer| hearer.heard.iter().all(|&byte| byte == b'.')));
        assert_eq!(world.protocol().closed.len(), 1);
        assert_eq!(world.protocol().inner.slow, 1, "it was told once");
        drop(deaf);
    });
}

/// A vanished peer with queued responses delays no other peer, and no drain.
#[test]
fn a_vanished_peer_holds_up_nobody() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut gone = Client::new(world);
        let mut here = Client::new(world);
        gone.send(&large(60_000));
        gone.write(world);
        for _ in 0..world.rng.usize(0..6) {
            world.turn();
        }
        world.net.vanish(gone.peer);
        here.send(&some_echo(&mut world.rng, 2000));
        until_answered(world, std::slice::from_mut(&mut here));
    });
}
