//! Timers on the simulated clock; on the kernel the tests check only that they expire, and not
//! early.

use std::time::Duration;

use murre_core::ShardConfig;
use murre_core::ring::sim::Faults;

use crate::client::{Client, until_answered};
use crate::echo::{Echo, timer};
use crate::watched::EXPIRED_MAX;
use crate::world::{Setup, everywhere, simulated};

const TICK: Duration = Duration::from_millis(100);

fn setup() -> Setup {
    let shard = ShardConfig { max_conns: 512, tick: TICK, ..ShardConfig::default() };
    Setup { shard, ..Setup::default() }
}

/// A timer expires once, never early.
#[test]
fn a_timer_runs_out_and_not_early() {
    let shard = ShardConfig { tick: Duration::from_millis(5), ..setup().shard };
    everywhere(&Setup { shard, ..setup() }, Echo::default, |world| {
        let mut clients: Vec<Client> = (0..20).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&timer(world.rng.u16(1..20))));
        until_answered(world, &mut clients);
        let expired = &world.protocol().inner.expired;
        assert_eq!(expired.len(), 20);
        for &(set, ticks, at) in expired {
            let (span, took) = (Duration::from_millis(5) * u32::from(ticks), at - set);
            assert!(took >= span, "{ticks} ticks took {took:?}");
        }
    });
}

/// Connections arrive one by one, and set timers at any time: no timer expires early, and none
/// later than a tick and a slice after its time, although the shard turns only when it asks to.
#[test]
fn timers_are_on_time() {
    simulated(&Setup { faults: Faults::none(), seeds: 20, ..setup() }, Echo::default, |world| {
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..100 {
            let mut client = Client::new(world);
            client.send(&timer(world.rng.u16(1..12)));
            while !client.has_spoken() {
                client.write(world);
            }
            clients.push(client);
            let span = Duration::from_micros(world.rng.u64(0..150_000));
            world.pass(span);
        }
        world.pass(TICK * 20);
        let expired = &world.protocol().inner.expired;
        assert_eq!(expired.len(), 100);
        for &(set, ticks, at) in expired {
            let (span, took) = (TICK * u32::from(ticks), at - set);
            assert!(took >= span, "{ticks} ticks took {took:?}");
            assert!(took <= span + TICK + TICK / 8, "{ticks} ticks took {took:?}");
        }
    });
}

/// A connection to a shard that was idle for long gets its whole time limit.
#[test]
fn the_first_after_a_long_silence_has_its_whole_time() {
    simulated(&setup(), Echo::default, |world| {
        for _ in 0..3 {
            let span = Duration::from_secs(world.rng.u64(1..4000));
            world.pass(span);
            let mut client = [Client::new(world)];
            client[0].send(&timer(10));
            until_answered(world, &mut client);
            world.net.close(client[0].peer);
            world.until("it is empty", |world| world.shard.counters().open.get() == 0);
        }
        for &(set, ticks, at) in &world.protocol().inner.expired {
            let (span, took) = (TICK * u32::from(ticks), at - set);
            assert!(took >= span, "{ticks} ticks took {took:?}");
        }
    });
}

/// After the whole machine has stood still, the next connection gets its whole time limit.
#[test]
fn time_that_was_lost_is_not_taken_from_new_timers() {
    let setup = Setup { faults: Faults::none(), ..setup() };
    let greeting = || Echo::greeting(10);
    simulated(&setup, greeting, |world| {
        let _first = Client::new(world);
        world.until("it is there", |world| world.shard.counters().open.get() == 1);
        // This connection arrives while the machine stands still; the first turn after that accepts
        // it.
        let _second = Client::new(world);
        world.net.suspend(Duration::from_secs(5));
        world.until("both have run out", |world| world.protocol().inner.expired.len() == 2);
        for &(set, ticks, at) in &world.protocol().inner.expired {
            let (span, took) = (TICK * u32::from(ticks), at - set);
            assert!(took >= span, "{ticks} ticks took {took:?}");
        }
    });
}

/// However many timers expire together because the machine stood still, a turn handles a bounded
/// number, and the next turns handle the rest.
#[test]
fn a_burst_of_timers_is_spread_over_turns() {
    let greeting = || Echo::greeting(10);
    simulated(&Setup { faults: Faults::none(), seeds: 4, ..setup() }, greeting, |world| {
        let _clients: Vec<Client> = (0..400).map(|_| Client::new(world)).collect();
        world.until("all are there", |world| world.shard.counters().open.get() == 400);
        world.net.suspend(Duration::from_secs(5));
        world.until("all have run out", |world| world.protocol().inner.expired.len() == 400);
        assert_eq!(world.protocol().most_expired, EXPIRED_MAX);
    });
}
