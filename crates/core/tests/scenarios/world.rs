//! A shard with its peers, on the simulated ring or on the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_core::host::{self, Descriptors, Io, Wanted};
use murre_core::ring::sim::{Faults, SimConfig, SimNet, SimRing};
use murre_core::ring::{KernelRing, Ring, RingConfig, SharedWait};
use murre_core::{
    ByteStage, Counters, Grouped, Held, Listener, Mailbox, Outbox, Protocol, Shard, ShardConfig,
};

pub(crate) use murre_core::ring::sim::{Peer, Read};

use crate::network::Network;
use crate::records::{Recorded, Records};
use crate::tcp::TcpNet;
use crate::watched::{Drained, Watched};

/// The time limit for operations of the kernel, which may be an emulated one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The settings of a scenario's world.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) shard: ShardConfig,
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: u32,
    /// Simulated: the largest number of bytes under way in each direction.
    pub(crate) socket_bytes: usize,
    /// Simulated: the faults. Every fourth seed has none.
    pub(crate) faults: Faults,
    pub(crate) listening: bool,
    /// On the kernel: the address at which the shard listens.
    pub(crate) address: IpAddr,
    /// On the kernel: how long peers may acknowledge nothing, if not for TCP's default time.
    pub(crate) give_up: Option<Duration>,
    /// Simulated: the number of seeds.
    pub(crate) seeds: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            shard: ShardConfig { max_conns: 256, ..ShardConfig::default() },
            buffers: 16,
            buffer_bytes: 2048,
            socket_bytes: 16 * 1024,
            faults: Faults::hidden(),
            listening: true,
            address: Ipv4Addr::LOCALHOST.into(),
            give_up: None,
            seeds: 40,
        }
    }
}

impl Setup {
    fn simulation(&self, seed: u64) -> SimConfig {
        SimConfig {
            seed,
            faults: if seed.is_multiple_of(4) { Faults::none() } else { self.faults },
            listening: self.listening,
            buffers: self.buffers,
            buffer_bytes: self.buffer_bytes,
            socket_bytes: self.socket_bytes,
            ..SimConfig::default()
        }
    }
}

/// A shard on any ring.
pub(crate) trait AnyShard<P: Protocol> {
    fn turn(&mut self);
    fn stopped(&self) -> bool;
    fn protocol(&self) -> &Watched<P>;
    fn outbox(&self) -> &Outbox;
    fn counters(&self) -> Arc<Counters>;
    fn mailbox(&self) -> Arc<Mailbox<P::Mail>>;
    fn held(&self) -> Held;
}

impl<R: Ring, P: Protocol, B: ByteStage> AnyShard<P> for Shard<R, Watched<P>, B> {
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

    fn mailbox(&self) -> Arc<Mailbox<P::Mail>> {
        self.mailbox()
    }

    fn held(&self) -> Held {
        self.held()
    }
}

/// A shard that takes turns with others on its thread; there are none here.
struct Together<P: Protocol> {
    shard: Shard<KernelRing, Watched<P>>,
    wait: SharedWait,
    has_work: bool,
}

impl<P: Protocol> AnyShard<P> for Together<P> {
    fn turn(&mut self) {
        if !self.has_work {
            while !self.shard.has_work() {
                self.wait.wait().expect("an event");
            }
        }
        self.has_work = self.shard.turn_without_wait(u32::MAX).expect("the ring works");
    }

    fn stopped(&self) -> bool {
        self.shard.stopped()
    }

    fn protocol(&self) -> &Watched<P> {
        self.shard.protocol()
    }

    fn outbox(&self) -> &Outbox {
        self.shard.outbox()
    }

    fn counters(&self) -> Arc<Counters> {
        self.shard.counters()
    }

    fn mailbox(&self) -> Arc<Mailbox<P::Mail>> {
        self.shard.mailbox()
    }

    fn held(&self) -> Held {
        self.shard.held()
    }
}

pub(crate) struct World<P: Protocol> {
    // The first field, so that the shard is dropped before its peers.
    pub(crate) shard: Box<dyn AnyShard<P>>,
    pub(crate) net: Box<dyn Network>,
    /// The same network, if it is simulated.
    pub(crate) sim: Option<SimNet>,
    pub(crate) rng: Rng,
    /// How much time passes in a turn in which nothing happens.
    idle: Duration,
}

/// More turns than any scenario needs; a scenario that takes more is stuck.
const TURNS_MAX: usize = 100_000;

impl<P: Drained + 'static> World<P> {
    pub(crate) fn simulated(setup: &Setup, seed: u64, protocol: P) -> Self {
        let ring = SimRing::new(&setup.simulation(seed)).expect("a waker");
        let watched = Watched::new(protocol, false, setup.buffers);
        World::on(ring.net(), ring, watched, &setup.shard, seed)
    }

    /// A world on a ring, with `net` as its network.
    pub(crate) fn on(
        net: SimNet,
        ring: impl Ring + 'static,
        watched: Watched<P>,
        shard: &ShardConfig,
        seed: u64,
    ) -> Self {
        // The shard's own random decisions follow the seed too.
        fastrand::seed(seed);
        World {
            shard: Box::new(Shard::new(ring, watched, shard)),
            net: Box::new(net.clone()),
            sim: Some(net),
            rng: Rng::with_seed(seed ^ 0x5EED),
            idle: Duration::from_millis(1),
        }
    }

    /// The same behind a record layer.
    fn recorded(setup: &Setup, seed: u64, protocol: P) -> Self {
        let ring = SimRing::new(&setup.simulation(seed)).expect("a waker");
        let watched = Watched::new(protocol, false, setup.buffers);
        let net = ring.net();
        fastrand::seed(seed);
        World {
            shard: Box::new(Shard::with_byte_stage(
                ring,
                Records::default(),
                watched,
                &setup.shard,
            )),
            net: Box::new(Recorded::new(Box::new(net.clone()))),
            sim: Some(net),
            rng: Rng::with_seed(seed ^ 0x5EED),
            idle: Duration::from_millis(1),
        }
    }

    /// With `wait` the shard takes turns with others.
    fn real(
        setup: &Setup,
        io: Io,
        descriptors: Descriptors,
        wait: Option<SharedWait>,
        protocol: P,
    ) -> Self {
        let listener = Listener::bind((setup.address, 0).into()).expect("a port");
        if let Some(span) = setup.give_up {
            listener.give_up_after(span).expect("a socket");
        }
        let net = TcpNet::new(listener.address().expect("bound"));
        let ring = KernelRing::new(RingConfig {
            io,
            descriptors,
            max_conns: setup.shard.max_conns,
            listeners: setup.listening.then_some(listener).into_iter().collect(),
            buffers: setup.buffers,
            buffer_bytes: setup.buffer_bytes,
            shared_wait: wait.clone(),
            ..RingConfig::default()
        })
        .expect("a ring");
        let watched = Watched::new(protocol, true, setup.buffers);
        let shard = Shard::new(ring, watched, &setup.shard);
        World {
            shard: match wait {
                Some(wait) => Box::new(Together { shard, wait, has_work: true }),
                None => Box::new(shard),
            },
            net: Box::new(net),
            sim: None,
            rng: Rng::with_seed(7),
            idle: Duration::from_millis(1),
        }
    }

    pub(crate) fn protocol(&self) -> &Watched<P> {
        self.shard.protocol()
    }

    /// Adds a line to the log, if there is one.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(sim) = &self.sim {
            sim.annotate(what);
        }
    }

    /// One turn of the shard; time passes if nothing happens.
    pub(crate) fn turn(&mut self) {
        self.net.pass(self.idle);
        self.shard.turn();
    }

    /// Turns until `done`.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        for turn in 0.. {
            if done(self) {
                return;
            }
            self.turn();
            let simulated = self.net.is_simulated();
            let patient = started.elapsed() < PATIENCE;
            assert!(turn < TURNS_MAX && simulated || !simulated && patient, "never: {what}");
        }
    }

    /// Lets time pass, with the turns that the shard itself asks for.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.net.pass(span);
        while !self.net.passed() {
            self.shard.turn();
        }
        self.shard.turn();
    }

    pub(crate) fn post(&mut self, mail: P::Mail) {
        assert!(self.shard.mailbox().post(mail).is_ok(), "the mailbox has room");
    }

    pub(crate) fn connect(&mut self) -> Peer {
        self.net.connect().expect("somebody listens")
    }

    /// Drains the shard, and checks that nothing is left.
    pub(crate) fn finish(&mut self) {
        // On the kernel lingering peers would take real time.
        if !self.net.is_simulated() || self.rng.bool() {
            self.net.close_all();
        }
        self.idle = Duration::from_millis(50);
        self.post(P::drain(Duration::ZERO));
        self.until("the drain is over", |world| world.shard.stopped());
        self.until("nothing is in flight", |world| world.shard.outbox().live() == 0);
        self.check_balance();
        let watched = self.protocol();
        assert!(watched.open.is_empty(), "{:?} were never closed", watched.open);
        assert_eq!(self.shard.held(), Held::default(), "something is left");
        self.net.check_empty();
    }

    /// Every connection is counted once at its start and once at its end.
    pub(crate) fn check_balance(&self) {
        let counters = self.shard.counters();
        let closed: u64 = counters.closed.iter().map(|counter| counter.get()).sum();
        let came = counters.accepted.get() + counters.connected.get();
        assert_eq!(came, closed + counters.open.get(), "came = went + open");
        let watched = self.protocol();
        assert_eq!(came, watched.opened);
        assert_eq!(counters.open.get(), watched.open.len() as u64);
    }
}

/// Runs a scenario on the simulated ring, seed after seed, without and with a record layer, and then on
/// every ring of this kernel.
pub(crate) fn everywhere<P: Drained + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    recorded(setup, &protocol, &scenario);
    everywhere_plain(setup, &protocol, &scenario);
}

/// [`everywhere`] without a record layer, for a scenario that counts the bytes of the sockets.
pub(crate) fn everywhere_plain<P: Drained + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    simulated(setup, &protocol, &scenario);
    real(setup, &protocol, &scenario);
}

/// Runs a scenario on the simulated ring, with the seeds that the environment asks for.
pub(crate) fn simulated<P: Drained + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    for seed in murre_testing::seeds(setup.seeds) {
        named(&format!("simulated, SEED={seed}"), || {
            run(World::simulated(setup, seed, protocol()), &scenario);
        });
    }
}

/// Runs a scenario on the simulated ring behind a record layer, which neither side notices.
pub(crate) fn recorded<P: Drained + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    for seed in murre_testing::seeds(setup.seeds) {
        named(&format!("behind a record layer, SEED={seed}"), || {
            run(World::recorded(setup, seed, protocol()), &scenario);
        });
    }
}

/// Runs a scenario on every ring of this kernel.
pub(crate) fn real<P: Drained + 'static>(
    setup: &Setup,
    protocol: impl Fn() -> P,
    scenario: impl Fn(&mut World<P>),
) {
    let rings = [
        (Io::Uring, Descriptors::Normal, false),
        (Io::UringPlain, Descriptors::Normal, false),
        (Io::Uring, Descriptors::Direct, false),
        (Io::Epoll, Descriptors::Normal, false),
        (Io::UringPlain, Descriptors::Normal, true),
        (Io::Uring, Descriptors::Direct, true),
    ];
    for (io, descriptors, together) in rings {
        let wanted = Wanted {
            max_conns: Some(setup.shard.max_conns),
            descriptors: Some(descriptors),
            io: Some(io),
            ..Wanted::default()
        };
        let kind = if together { ", together" } else { "" };
        let name = format!("{}, {} descriptors{kind}", io.name(), descriptors.name());
        match host::plan(&wanted) {
            Ok(_) => named(&name, || {
                let wait = together.then(|| SharedWait::new().expect("an event"));
                run(World::real(setup, io, descriptors, wait, protocol()), &scenario);
            }),
            Err(error) => eprintln!("not here: {name}: {error}"),
        }
    }
}

fn run<P: Drained + 'static>(mut world: World<P>, scenario: &impl Fn(&mut World<P>)) {
    scenario(&mut world);
    if !world.shard.stopped() {
        world.finish();
    }
    let World { shard, mut net, .. } = world;
    drop(shard);
    let patience = Instant::now() + PATIENCE;
    while !net.all_ended() {
        assert!(Instant::now() < patience, "a peer was not told that the shard is gone");
    }
}

/// Runs `run`, and prints its name if it fails.
fn named(name: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("failed on: {name}");
        resume_unwind(panic);
    }
}
