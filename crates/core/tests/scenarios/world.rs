//! A shard with its peers, on the simulated ring or on the kernel.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_core::host::{self, Descriptors, Io, Wanted};
use murre_core::ring::Ring;
use murre_core::ring::sim::{Faults, SimConfig, SimNet, SimRing};
use murre_core::ring::uring::{Uring, UringConfig};
use murre_core::{Counters, Held, Listener, Mailbox, Outbox, Protocol, Shard, ShardConfig};

pub use murre_core::ring::sim::{Peer, Read};

use crate::tcp::TcpNet;
use crate::watched::{Watched, WatchedMail};

/// What a scenario wants of its world.
#[derive(Clone)]
pub struct Setup {
    pub shard: ShardConfig,
    pub buffers: u16,
    pub buffer_bytes: u32,
    /// Simulated: bytes under way in each direction.
    pub socket_bytes: usize,
    /// Simulated: what goes wrong. Every fourth seed has none of it.
    pub faults: Faults,
    pub listening: bool,
    /// Simulated: how many seeds.
    pub seeds: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            shard: ShardConfig { conns_max: 256, ..ShardConfig::default() },
            buffers: 16,
            buffer_bytes: 2048,
            socket_bytes: 16 * 1024,
            faults: Faults::bad_day(),
            listening: true,
            seeds: 60,
        }
    }
}

/// The shard, whatever its ring.
pub trait AnyShard<P: Protocol> {
    fn turn(&mut self);
    fn stopped(&self) -> bool;
    fn protocol(&self) -> &Watched<P>;
    fn outbox(&self) -> &Outbox;
    fn counters(&self) -> Arc<Counters>;
    fn mailbox(&self) -> Arc<Mailbox<WatchedMail<P::Mail>>>;
    fn held(&self) -> Held;
}

impl<R: Ring, P: Protocol> AnyShard<P> for Shard<R, Watched<P>> {
    fn turn(&mut self) {
        self.turn().expect("the ring works");
    }

    fn stopped(&self) -> bool {
        self.stopped()
    }

    fn protocol(&self) -> &Watched<P> {
        self.protocol()
    }

    fn outbox(&self) -> &Outbox {
        self.outbox()
    }

    fn counters(&self) -> Arc<Counters> {
        self.counters()
    }

    fn mailbox(&self) -> Arc<Mailbox<WatchedMail<P::Mail>>> {
        self.mailbox()
    }

    fn held(&self) -> Held {
        self.held()
    }
}

/// The peers' side, in memory or over loopback.
pub trait Network {
    fn connect(&mut self) -> Option<Peer>;
    /// Where the shard can connect to.
    fn listen(&mut self) -> SocketAddr;
    /// A peer that the shard has connected to.
    fn accept(&mut self) -> Option<Peer>;
    /// How much of `bytes` went at once.
    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize;
    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read;
    fn half_close(&mut self, peer: Peer);
    fn close(&mut self, peer: Peer);
    fn reset(&mut self, peer: Peer);
    fn close_all(&mut self);
    /// Says nothing and hears nothing any more.
    fn vanish(&mut self, peer: Peer);
    /// Begins to let time pass; `passed` says when it is over.
    fn pass(&mut self, span: Duration);
    fn passed(&self) -> bool;
    /// The whole machine stops for this long.
    fn stand_still(&mut self, span: Duration);
    fn now(&self) -> Instant;
    fn is_simulated(&self) -> bool;
    /// Panics unless all the shard's sockets and buffers came back.
    fn check_empty(&self);
    /// Whether every peer that is still there has been told that its connection is over.
    fn all_ended(&mut self) -> bool;
}

impl Network for SimNet {
    fn connect(&mut self) -> Option<Peer> {
        SimNet::connect(self)
    }

    fn listen(&mut self) -> SocketAddr {
        let address = "192.0.2.1:80".parse().expect("valid");
        SimNet::listen(self, address);
        address
    }

    fn accept(&mut self) -> Option<Peer> {
        SimNet::accept(self, "192.0.2.1:80".parse().expect("valid"))
    }

    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize {
        SimNet::write(self, peer, bytes)
    }

    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read {
        SimNet::read(self, peer, bytes_max)
    }

    fn half_close(&mut self, peer: Peer) {
        SimNet::half_close(self, peer);
    }

    fn close(&mut self, peer: Peer) {
        SimNet::close(self, peer);
    }

    fn reset(&mut self, peer: Peer) {
        SimNet::reset(self, peer);
    }

    fn close_all(&mut self) {
        self.close_all_peers();
    }

    fn vanish(&mut self, peer: Peer) {
        SimNet::vanish(self, peer);
    }

    fn pass(&mut self, span: Duration) {
        SimNet::pass(self, span);
    }

    fn passed(&self) -> bool {
        SimNet::passed(self)
    }

    fn stand_still(&mut self, span: Duration) {
        SimNet::stand_still(self, span);
    }

    fn now(&self) -> Instant {
        SimNet::now(self)
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn check_empty(&self) {
        assert_eq!(self.sockets_open(), 0, "sockets left open");
        assert_eq!(self.leases_out(), 0, "receive buffers not given back");
    }

    fn all_ended(&mut self) -> bool {
        SimNet::all_ended(self)
    }
}

pub struct World<P: Protocol> {
    // First, so that it ends before its peers do.
    pub shard: Box<dyn AnyShard<P>>,
    pub net: Box<dyn Network>,
    pub rng: Rng,
}

/// More turns than any scenario needs; it is stuck if it has not come to its end by then.
const TURNS_MAX: usize = 100_000;

impl<P: Protocol + 'static> World<P> {
    fn simulated(setup: &Setup, seed: u64, protocol: P) -> Self {
        let faults = if seed % 4 == 0 { Faults::none() } else { setup.faults };
        let ring = SimRing::new(&SimConfig {
            seed,
            faults,
            listening: setup.listening,
            buffers: setup.buffers,
            buffer_bytes: setup.buffer_bytes,
            socket_bytes: setup.socket_bytes,
        })
        .expect("a waker");
        let net = ring.net();
        World {
            shard: Box::new(Shard::new(ring, Watched::new(protocol, false), &setup.shard)),
            net: Box::new(net),
            rng: Rng::with_seed(seed ^ 0x5EED),
        }
    }

    fn real(setup: &Setup, io: Io, descriptors: Descriptors, protocol: P) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
        let net = TcpNet::new(listener.address().expect("bound"));
        let ring = Uring::new(UringConfig {
            io,
            descriptors,
            conns_max: setup.shard.conns_max,
            listener: setup.listening.then_some(listener),
            buffers: setup.buffers,
            buffer_bytes: setup.buffer_bytes,
            ..UringConfig::default()
        })
        .expect("a ring");
        World {
            shard: Box::new(Shard::new(ring, Watched::new(protocol, true), &setup.shard)),
            net: Box::new(net),
            rng: Rng::with_seed(7),
        }
    }

    pub fn protocol(&self) -> &Watched<P> {
        self.shard.protocol()
    }

    /// One turn of the shard, and up to a millisecond in which nothing happens.
    pub fn turn(&mut self) {
        self.net.pass(Duration::from_millis(1));
        self.shard.turn();
    }

    /// Turns until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        for turn in 0.. {
            if done(self) {
                return;
            }
            self.turn();
            let simulated = self.net.is_simulated();
            let patient = started.elapsed() < Duration::from_secs(20);
            assert!(turn < TURNS_MAX && simulated || !simulated && patient, "never: {what}");
        }
    }

    /// Lets time pass, with the turns that the shard itself asks for.
    pub fn pass(&mut self, span: Duration) {
        self.net.pass(span);
        while !self.net.passed() {
            self.shard.turn();
        }
        self.shard.turn();
    }

    pub fn post(&mut self, mail: P::Mail) {
        let posted = self.shard.mailbox().post(WatchedMail::Inner(mail));
        assert!(posted.is_ok(), "the mailbox has room");
    }

    pub fn connect(&mut self) -> Peer {
        self.net.connect().expect("somebody listens")
    }

    /// Drains the shard and checks that nothing is left of anything.
    pub fn finish(&mut self) {
        // Real time is not spent on peers that linger.
        if !self.net.is_simulated() || self.rng.bool() {
            self.net.close_all();
        }
        let drain = WatchedMail::Drain(Duration::ZERO);
        assert!(self.shard.mailbox().post(drain).is_ok());
        self.until("the drain is over", |world| world.shard.stopped());
        self.until("nothing is in flight", |world| world.shard.outbox().live() == 0);
        self.check_balance();
        let watched = self.protocol();
        assert!(watched.open.is_empty(), "{:?} were never closed", watched.open);
        assert_eq!(self.shard.held(), Held::default(), "something is left");
        self.net.check_empty();
    }

    /// Every connection is counted once in and once out.
    pub fn check_balance(&self) {
        let counters = self.shard.counters();
        let closed: u64 = counters.closed.iter().map(|counter| counter.get()).sum();
        let came = counters.accepted.get() + counters.connected.get();
        assert_eq!(came, closed + counters.open.get(), "came = went + open");
        let watched = self.protocol();
        assert_eq!(came, watched.opened);
        assert_eq!(counters.open.get(), watched.open.len() as u64);
    }
}

/// Runs a scenario on the simulated ring, seed after seed, and then on every ring of this kernel.
pub fn everywhere<P: Protocol + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    simulated(setup, &protocol, &scenario);
    real(setup, &protocol, &scenario);
}

/// Runs a scenario on the simulated ring. `SEED` in the environment runs only that one.
pub fn simulated<P: Protocol + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    let only = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..setup.seeds, |seed| seed..seed + 1);
    for seed in seeds {
        named(&format!("simulated, SEED={seed}"), || {
            run(World::simulated(setup, seed, protocol()), &scenario);
        });
    }
}

/// Runs a scenario on every ring of this kernel.
pub fn real<P: Protocol + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    let rings = [
        (Io::Uring, Descriptors::Normal),
        (Io::UringPlain, Descriptors::Normal),
        (Io::Uring, Descriptors::Direct),
    ];
    for (io, descriptors) in rings {
        let wanted = Wanted {
            conns_max: Some(setup.shard.conns_max),
            descriptors: Some(descriptors),
            io: Some(io),
            ..Wanted::default()
        };
        let name = format!("{}, {} descriptors", io.name(), descriptors.name());
        match host::plan(&wanted) {
            Ok(_) => named(&name, || {
                run(World::real(setup, io, descriptors, protocol()), &scenario);
            }),
            Err(error) => eprintln!("not here: {name}: {error}"),
        }
    }
}

fn run<P: Protocol + 'static>(mut world: World<P>, scenario: &impl Fn(&mut World<P>)) {
    scenario(&mut world);
    if !world.shard.stopped() {
        world.finish();
    }
    let World { shard, mut net, .. } = world;
    drop(shard);
    let patience = Instant::now() + Duration::from_secs(20);
    while !net.all_ended() {
        assert!(Instant::now() < patience, "a peer was not told that the shard is gone");
    }
}

/// Says where it was when something fails.
fn named(name: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("failed on: {name}");
        resume_unwind(panic);
    }
}
