//! Mail from other threads.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use murre_core::host::{self, Io, Wanted};
use murre_core::ring::sim::{SimConfig, SimRing};
use murre_core::ring::{KernelRing, RingConfig, SharedWait};
use murre_core::{Counters, Mailbox, Shard, ShardConfig, run_together};

use crate::client::{Client, until_answered};
use crate::echo::{Echo, Mail, some_echo};
use crate::watched::Watched;
use crate::world::{PATIENCE, Setup, everywhere};

/// Mail is pushed to all open connections, in the order in which it was posted.
#[test]
fn mail_arrives_in_order() {
    everywhere(&Setup::default(), Echo::default, |world| {
        let mut clients: Vec<Client> = (0..5).map(|_| Client::new(world)).collect();
        clients.iter_mut().for_each(|client| client.send(&some_echo(&mut world.rng, 10)));
        until_answered(world, &mut clients);
        for number in 0..100 {
            let push = Bytes::from(vec![number; world.rng.usize(1..300)]);
            clients.iter_mut().for_each(|client| client.expected.extend(&push));
            world.post(Mail::Push(push));
            if world.rng.u8(0..10) == 0 {
                world.turn();
            }
        }
        until_answered(world, &mut clients);
        assert_eq!(world.protocol().inner.pushed, 500);
    });
}

/// A full mailbox returns the mail, and has room again after the shard's next turn.
#[test]
fn a_full_mailbox_gives_the_mail_back() {
    let ring = SimRing::new(&SimConfig::default()).expect("a waker");
    let config = ShardConfig { mails_max: 10, ..ShardConfig::default() };
    let mut shard = Shard::new(
        ring,
        Watched::new(Echo::default(), false, SimConfig::default().buffers),
        &config,
    );
    let mailbox = shard.mailbox();
    for round in 1..=3 {
        for _ in 0..10 {
            assert!(mailbox.post(Mail::Nothing).is_ok());
        }
        let refused = mailbox.post(Mail::Stop);
        assert!(matches!(refused, Err(Mail::Stop)));
        shard.turn().expect("the ring works");
        assert_eq!(shard.protocol().inner.mails, 10 * round);
    }
}

/// Each mail wakes a shard that sleeps in the kernel without a timer. The mails are posted one at a
/// time: after a lost wake the shard would sleep for ever.
#[test]
fn mail_wakes_a_sleeping_shard() {
    for io in [Io::Uring, Io::UringPlain, Io::Epoll] {
        match host::plan(&Wanted { io: Some(io), ..Wanted::default() }) {
            Ok(_) => wakes_for_every_mail(io),
            Err(error) => eprintln!("not here: {}: {error}", io.name()),
        }
    }
}

fn wakes_for_every_mail(io: Io) {
    let (started, mailbox) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let shard = thread::spawn(move || {
        let config = RingConfig { io, ..RingConfig::default() };
        let watched = Watched::new(Echo::default(), false, config.buffers);
        let ring = KernelRing::new(config).expect("a ring");
        let mut shard = Shard::new(ring, watched, &ShardConfig::default());
        started.send((shard.mailbox(), shard.counters())).expect("the test waits");
        shard.run().expect("the ring works");
        ended.send(shard.protocol().inner.mails).expect("the test waits");
    });
    let (mailbox, counters) = mailbox.recv().expect("a shard");
    let patience = Instant::now() + PATIENCE;
    for number in 0..200u64 {
        let turns = counters.turns.get();
        assert!(mailbox.post(Mail::Nothing).is_ok());
        while counters.turns.get() == turns {
            assert!(Instant::now() < patience, "mail {number} woke nobody on {io:?}");
            thread::yield_now();
        }
        // Now and then long enough for the shard to sleep again.
        if number % 10 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(mailbox.post(Mail::Stop).is_ok());
    assert_eq!(end.recv_timeout(PATIENCE), Ok(201));
    shard.join().expect("it ended well");
}

/// Shards that share a thread are each woken by each of their mails, also when others have stopped, and the
/// thread ends when all have.
#[test]
fn mail_wakes_each_shard_of_a_thread() {
    for io in [Io::Uring, Io::UringPlain] {
        match host::plan(&Wanted { io: Some(io), ..Wanted::default() }) {
            Ok(_) => wakes_each_of_several(io),
            Err(error) => eprintln!("not here: {}: {error}", io.name()),
        }
    }
}

fn wakes_each_of_several(io: Io) {
    const SHARDS: usize = 5;
    let (started, handles) = mpsc::channel();
    let (stopped, stops) = mpsc::channel();
    let thread = thread::spawn(move || {
        run_some(SHARDS, io, &started, |shard| {
            stopped.send(shard.protocol().inner.mails).expect("the test waits");
        });
    });
    let handles: Vec<_> = handles.recv().expect("shards");
    let mut posted = [0; SHARDS];
    let patience = Instant::now() + PATIENCE;
    for left in (1..=SHARDS).rev() {
        for number in 0..40 {
            let (mailbox, counters) = &handles[number % left];
            let turns = counters.turns.get();
            assert!(mailbox.post(Mail::Nothing).is_ok());
            posted[number % left] += 1;
            while counters.turns.get() == turns {
                assert!(Instant::now() < patience, "mail {number} woke nobody on {io:?}");
                thread::yield_now();
            }
            if number % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(handles[left - 1].0.post(Mail::Stop).is_ok());
        posted[left - 1] += 1;
        assert_eq!(stops.recv_timeout(PATIENCE), Ok(posted[left - 1]));
    }
    thread.join().expect("it ended well");
}

type Handle = (Arc<Mailbox<Mail>>, Arc<Counters>);

/// Makes shards on the calling thread, sends their handles, and runs them.
fn run_some(
    count: usize,
    io: Io,
    started: &Sender<Vec<Handle>>,
    stopped: impl FnMut(Shard<KernelRing, Watched<Echo>>),
) {
    let wait = SharedWait::new().expect("an event");
    let shard = |_| {
        let config = RingConfig { io, shared_wait: Some(wait.clone()), ..RingConfig::default() };
        let watched = Watched::new(Echo::default(), false, config.buffers);
        let ring = KernelRing::new(config).expect("a ring");
        Shard::new(ring, watched, &ShardConfig::default())
    };
    let shards: Vec<_> = (0..count).map(shard).collect();
    let handles = shards.iter().map(|shard| (shard.mailbox(), shard.counters())).collect();
    started.send(handles).expect("the test waits");
    run_together(shards, &wait, stopped).expect("the rings work");
}
