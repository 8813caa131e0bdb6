//! Timers of sessions.

use std::time::Duration;

use murre_codec::CloseCode;
use murre_core::ring::sim::Faults;
use murre_core::{CloseReason, ShardConfig};

use crate::app::{Server, TICK, close, handshake, serve, serve_patiently, setup, text};
use crate::client::{Client, until};
use crate::watched::EXPIRED_MAX;
use crate::world::{Setup, World, everywhere, simulated};

fn open(world: &mut World<Server>) -> Client {
    let mut client = Client::new(world);
    client.send_bytes(&handshake("/ws"));
    until(world, &mut client, "the handshake", |heard| !heard.responses.is_empty());
    client
}

fn send(world: &mut World<Server>, client: &mut Client, message: &str) {
    let before = world.protocol().inner.handler().messages;
    client.send_bytes(&text(message));
    world.until("it is heard", |world| {
        client.step(world);
        world.protocol().inner.handler().messages > before
    });
}

/// A session's timer expires once, not early, and the session can write then.
#[test]
fn a_timer_runs_out_once() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut clients: Vec<Client> = (0..5).map(|_| open(world)).collect();
        for client in &mut clients {
            let span = world.rng.u32(0..60);
            send(world, client, &format!("timer={span}"));
        }
        for client in &mut clients {
            until(world, client, "time is up", |heard| !heard.messages.is_empty());
        }
        let timers = &world.protocol().inner.handler().timers;
        assert_eq!(timers.len(), 5);
        for &(set, span, at) in timers {
            assert!(at - set >= span, "{span:?} took {:?}", at - set);
        }
    });
}

/// The timer set last counts; a cleared timer, or one of an ended session, does not expire. The
/// shard wakes for a timer in time although nothing else happens.
#[test]
fn timers_are_replaced_and_cleared() {
    let quiet = Setup { faults: Faults::none(), seeds: 20, ..setup() };
    simulated(&quiet, serve, |world| {
        let mut replaced = open(world);
        send(world, &mut replaced, "timer=2000");
        send(world, &mut replaced, "timer=500");
        let mut cleared = open(world);
        send(world, &mut cleared, "timer=300");
        send(world, &mut cleared, "timer=");
        let mut endless = open(world);
        send(world, &mut endless, &format!("timer={}", u64::MAX));
        let mut gone = open(world);
        send(world, &mut gone, "timer=300");
        gone.send_bytes(&close(CloseCode::Normal));
        world.until("it is gone", |world| {
            gone.step(world);
            world.protocol().closed_for(CloseReason::Finished) == 1
        });
        world.pass(Duration::from_millis(600));
        let [(set, span, at)] = world.protocol().inner.handler().timers[..] else {
            panic!("{:?}", world.protocol().inner.handler().timers)
        };
        assert_eq!(span, Duration::from_millis(500));
        assert!(at - set < span + TICK, "it took {:?}", at - set);
        world.pass(Duration::from_secs(5));
        assert_eq!(world.protocol().inner.handler().timers.len(), 1);
    });
}

/// However many timers expire at one moment, a turn handles a bounded number, and none is lost.
#[test]
fn many_timers_at_one_time() {
    let count = EXPIRED_MAX + 50;
    let shard = ShardConfig { max_conns: count as u32 + 10, ..setup().shard };
    let many = Setup { faults: Faults::none(), seeds: 1, shard, ..setup() };
    simulated(&many, serve_patiently, |world| {
        let mut clients: Vec<Client> = (0..count).map(|_| open(world)).collect();
        for client in &mut clients {
            send(world, client, "timer=1000");
        }
        world.pass(Duration::from_secs(2));
        assert_eq!(world.protocol().inner.handler().timers.len(), count);
    });
}
