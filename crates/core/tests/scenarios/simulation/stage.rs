//! Plays a plan, and checks the result.
//!
//! These rules hold whatever goes wrong:
//!
//! - the shard delivers every byte that it accepted, in order, or it closes the connection for a
//!   counted reason that had a cause;
//! - every connection is counted once at its start and once at its end, and the counts of bytes
//!   equal those of the network;
//! - no slot, socket, buffer or queued piece is left when all peers are gone;
//! - a silent peer is closed within the time of the timers, not earlier;
//! - no turn exceeds its bound (`Watched`), and the shard does not spin.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_core::ring::Ring;
use murre_core::ring::sim::{Faults, Keep, SimConfig, SimNet, SimRing};
use murre_core::{AddressLimits, Addresses, Admission, CloseReason, Gate, Held, ShardConfig};
use murre_testing::catch_panic;

use super::actor::{Actor, Ending, Script};
use super::plan::{CLIENTS, Plan, Step};
use crate::watched::{Drained, Watched};
use crate::world::{PATIENCE, Peer, Read, World};

/// The subject of a simulation: a protocol, and clients that speak it.
pub(crate) trait Subject {
    type Protocol: Drained + 'static;
    type Script: Script;

    /// The time within which the protocol closes every silent peer, if it has timeouts.
    const SILENCE: Option<Duration>;
    /// The shortest silence after which a connection may be closed as idle.
    const IDLE: Duration;
    /// The shortest age at which a connection may be closed without a complete request.
    const HANDSHAKE: Duration;

    fn protocol(&self) -> Self::Protocol;

    /// Mail to all connections, with its number and its length in bytes.
    fn mail(&self, number: u64, length: usize) -> <Self::Protocol as murre_core::Protocol>::Mail;

    /// Mail that lets the shard connect, if the protocol can.
    fn dial(&self, to: SocketAddr) -> Option<<Self::Protocol as murre_core::Protocol>::Mail>;

    /// Panics if the protocol keeps any state after all connections have closed.
    fn check_left(&self, protocol: &Self::Protocol);
}

struct Stage<'s, S: Subject> {
    subject: &'s S,
    world: &'s mut World<S::Protocol>,
    slots: usize,
    linger: Duration,
    gate: Arc<Gate>,
    /// The gate was not open all the time.
    gated: bool,
    /// The address of the clients has limits.
    limited: bool,
    clients: [Option<Actor<S::Script>>; CLIENTS],
    past: Vec<Actor<S::Script>>,
    mails: u64,
    /// The time of the last mail.
    mailed_at: Option<Instant>,
    drained: bool,
    /// The number of turns in a row that did nothing while no time passed.
    spins: usize,
}

/// The largest number of turns in a row that may do nothing: the ring may wake the shard, and the
/// shard may have to catch up with the clock.
const SPINS_MAX: usize = 30;
/// Longer than the shard pauses its accepts, and than a peer needs for its last bytes.
const CALM: Duration = Duration::from_millis(300);
/// The longest time of a turn while clients act.
const MOMENT: Duration = Duration::from_millis(1);
/// The shard takes a turn at least this often while connections are open.
const SLICE: Duration = Duration::from_millis(50);
/// The same during a drain.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The number of connections that ended, by [`CloseReason`].
    pub(crate) closed: [u64; CloseReason::ALL.len()],
    /// The number of accepted and of outgoing connections.
    pub(crate) came: [u64; 2],
}

/// Plays `plan` on a simulated ring that `wrap` may wrap; panics if a rule is broken. Calls `known`
/// with the network before the first step.
pub(crate) fn play<S: Subject, R: Ring + 'static>(
    subject: &S,
    plan: &Plan,
    keep: Keep,
    wrap: impl FnOnce(SimRing) -> R,
    known: impl FnOnce(SimNet),
) -> Seen {
    let ring = SimRing::new(&SimConfig { keep, ..plan.ring }).expect("a waker");
    let net = ring.net();
    known(net.clone());
    if let Some(faults_allowed) = &plan.faults_allowed {
        net.allow_faults(faults_allowed);
    }
    let watched = Watched::new(subject.protocol(), false, plan.ring.buffers).telling(net.clone());
    let addresses = Arc::new(Addresses::new(plan.limits));
    let shard = ShardConfig { addresses, ..plan.shard.clone() };
    let mut world = World::on(net, wrap(ring), watched, &shard, plan.seed);
    let seen = play_in(&mut world, subject, plan);
    let World { shard, mut net, .. } = world;
    drop(shard);
    assert!(net.all_ended(), "a peer was not told that the shard is gone");
    seen
}

/// Plays `plan` in the given world.
pub(crate) fn play_in<S: Subject>(
    world: &mut World<S::Protocol>,
    subject: &S,
    plan: &Plan,
) -> Seen {
    let mut stage = Stage::new(subject, world, plan);
    plan.steps.iter().for_each(|&step| stage.step(step));
    stage.calm();
    stage.silence();
    stage.finish();
    let counters = world.shard.counters();
    Seen {
        closed: std::array::from_fn(|reason| counters.closed[reason].get()),
        came: [counters.accepted.get(), counters.connected.get()],
    }
}

/// Connects from the one address of all clients, if the network allows the choice.
fn connect<P: Drained + 'static>(world: &mut World<P>) -> Option<Peer> {
    match world.net.is_simulated() {
        true => world.net.connect_from(SocketAddr::new(ADDRESS, 40_000)),
        false => world.net.connect(),
    }
}

/// An address reserved for documentation (RFC 5737).
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

impl<'s, S: Subject> Stage<'s, S> {
    fn new(subject: &'s S, world: &'s mut World<S::Protocol>, plan: &Plan) -> Self {
        Stage {
            subject,
            world,
            slots: plan.shard.max_conns as usize,
            linger: plan.shard.linger,
            gate: Arc::clone(&plan.shard.gate),
            gated: false,
            limited: plan.limits != AddressLimits::default(),
            clients: std::array::from_fn(|_| None),
            past: Vec::new(),
            mails: 0,
            mailed_at: None,
            drained: false,
            spins: 0,
        }
    }

    fn sim(&self) -> &SimNet {
        self.world.sim.as_ref().expect("simulated")
    }

    fn step(&mut self, step: Step) {
        if !matches!(step, Step::Turns(_) | Step::Write(..) | Step::Read(..)) {
            self.world.tell(|| format!("{step:?}"));
        }
        if let Some(number) = step.client() {
            return self.client_step(number, step);
        }
        match step {
            Step::Dial => self.dial(),
            Step::Mail(length) => self.mail(length),
            Step::Gate(admission) => {
                self.gated |= admission != Admission::Open;
                self.gate.set(admission);
            }
            Step::Drain(ms) => {
                self.drained = true;
                self.world.post(S::Protocol::drain(Duration::from_millis(ms)));
            }
            Step::Turns(turns) => (0..turns).for_each(|_| self.turn()),
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Step::StandStill(ms) if self.world.net.is_simulated() => {
                self.world.net.suspend(Duration::from_millis(ms));
            }
            // On the kernel the step would take real time.
            Step::StandStill(_) => {}
            _ => unreachable!("a client's"),
        }
    }

    fn client_step(&mut self, number: usize, step: Step) {
        let Stage { world, clients, past, .. } = self;
        let place = &mut clients[number];
        if let Step::Connect(_) = step {
            // A connected client stays, unless the shard has ended its stream.
            if place.as_ref().is_none_or(|actor| actor.gone || actor.end.is_some())
                && let Some(peer) = connect(world)
            {
                past.extend(place.replace(Actor::new(number, peer)));
            }
            return;
        }
        let Some(actor) = place else { return };
        let peer = actor.peer;
        match step {
            Step::Say(_, say) => actor.send(say),
            Step::Write(_, bytes) => actor.write(world, bytes),
            Step::Read(_, bytes) => drop(actor.read(world, bytes)),
            Step::HalfClose(_) if !actor.left => {
                actor.left = true;
                world.net.half_close(peer);
            }
            Step::Close(_) => {
                (actor.left, actor.gone) = (true, true);
                world.net.close(peer);
            }
            Step::Reset(_) => {
                (actor.left, actor.gone) = (true, true);
                world.net.reset(peer);
            }
            Step::Vanish(_) => {
                (actor.lost, actor.troubled) = (true, true);
                world.net.vanish(peer);
            }
            Step::ComeBack(_) => {
                actor.lost = false;
                world.net.come_back(peer);
            }
            Step::Break(_) => {
                actor.troubled = true;
                world.net.break_off(peer);
            }
            _ => {}
        }
    }

    fn dial(&mut self) {
        let to = self.world.net.listen();
        if let Some(mail) = self.subject.dial(to) {
            self.world.post(mail);
        }
        self.greet();
    }

    /// Clients to which the shard has connected take the free places.
    fn greet(&mut self) {
        for (number, place) in self.clients.iter_mut().enumerate() {
            if place.as_ref().is_none_or(|actor| actor.gone || actor.end.is_some())
                && let Some(peer) = self.world.net.accept()
            {
                self.past.extend(place.replace(Actor::new(number, peer)));
            }
        }
    }

    fn mail(&mut self, length: usize) {
        self.mails += 1;
        self.mailed_at = Some(self.world.net.now());
        let mail = self.subject.mail(self.mails, length);
        self.world.post(mail);
    }

    /// One turn, which takes `MOMENT` if nothing happens.
    fn turn(&mut self) {
        self.turn_within(MOMENT);
    }

    /// One turn, which takes up to `span` if nothing happens.
    fn turn_within(&mut self, span: Duration) {
        let done = |stage: &Self| {
            let counters = stage.world.shard.counters();
            (counters.completions.get(), stage.world.net.now(), stage.world.shard.outbox().live())
        };
        let before = done(self);
        self.world.net.pass(span);
        self.world.shard.turn();
        self.spins = if done(self) == before { self.spins + 1 } else { 0 };
        assert!(
            self.spins <= SPINS_MAX || !self.world.net.is_simulated(),
            "livelock: {} turns did nothing and took no time",
            self.spins
        );
        self.world.check_balance();
    }

    fn pass(&mut self, span: Duration) {
        if self.world.net.is_simulated() {
            let until = self.world.net.now() + span;
            while self.world.net.now() < until {
                self.turn_within(until - self.world.net.now());
            }
        }
    }

    /// Ends all faults, and lets the clients send and receive the rest: each must get everything.
    fn calm(&mut self) {
        self.world.tell(|| "-- calm: nothing goes wrong any more".to_owned());
        if let Some(sim) = &self.world.sim {
            sim.set_faults(Faults::none());
        }
        self.gate.set(Admission::Open);
        // The pauses after failed accepts are over then.
        self.settle();
        let mailed_at = self.world.net.now();
        self.mail(10);
        self.settle();
        // The kernel takes its own time.
        let patience = Instant::now() + PATIENCE;
        while self.world.sim.is_none() && Instant::now() < patience {
            if catch_panic(|| self.judge_all(mailed_at)).is_ok() {
                break;
            }
            self.settle();
        }
        self.judge_all(mailed_at);
    }

    fn judge_all(&self, mailed_at: Instant) {
        for actor in self.clients.iter().flatten() {
            self.judge_living(actor, mailed_at);
        }
    }

    /// Turns until nothing has moved for a while.
    fn settle(&mut self) {
        let calm = if self.world.net.is_simulated() { CALM } else { MOMENT * 20 };
        let mut moved_at = self.world.net.now();
        loop {
            self.greet();
            let before = self.world.shard.counters().completions.get();
            let mut moved = false;
            for actor in self.clients.iter_mut().flatten() {
                let spoken = actor.has_spoken();
                actor.write(self.world, usize::MAX);
                moved |= actor.read(self.world, 1 << 20) || spoken != actor.has_spoken();
            }
            self.turn_within(CALM / 10);
            let now = self.world.net.now();
            if moved || self.world.shard.counters().completions.get() != before {
                moved_at = now;
            } else if now - moved_at > calm {
                return;
            }
        }
    }

    /// A connected client that has broken no rule must have received everything.
    fn judge_living(&self, actor: &Actor<S::Script>, mailed_at: Instant) {
        let ending = Ending { unavailable: self.drained || self.gated, ..Ending::default() };
        if actor.end.is_some() || actor.left || actor.lost || actor.gone {
            return;
        }
        if self.drained || self.world.sim.as_ref().is_some_and(|sim| sim.stats(actor.peer).broken) {
            return;
        }
        let number = actor.number;
        // A client accepted before the last mail must have received all of its bytes.
        let mut hears = true;
        if let Some(sim) = &self.world.sim {
            // If every slot is taken, some clients wait for their accept.
            if sim.stats(actor.peer).id.is_none() {
                let full = sim.sockets_open() >= self.slots;
                assert!(full, "client {number} is not accepted");
                return;
            }
            let id = sim.stats(actor.peer).id.expect("it is accepted");
            if !self.world.shard.outbox().is_open(id) {
                // The connection is closing: `judge_end` checks that there is a cause.
                return;
            }
            assert_eq!(sim.stats(actor.peer).unread, 0, "client {number} is not read");
            hears = sim.stats(actor.peer).since.is_some_and(|since| since < mailed_at);
        }
        assert!(actor.has_spoken(), "client {number} cannot speak");
        actor.script.check(&actor.heard, hears, ending);
        if let Some(last) = actor.script.last_mail(&actor.heard).filter(|_| hears) {
            assert_eq!(last, self.mails, "client {number} has not heard the last mail");
        }
    }

    /// All clients become silent, and some vanish: the shard must become empty by itself.
    fn silence(&mut self) {
        let Some(patience) = S::SILENCE.filter(|_| self.world.net.is_simulated()) else { return };
        self.world.tell(|| "-- silence".to_owned());
        for actor in self.clients.iter().flatten() {
            if actor.number % 2 == 0 || actor.script.hears_without_end() {
                self.world.net.vanish(actor.peer);
            }
        }
        let (started, turns) = (self.world.net.now(), self.world.shard.counters().turns.get());
        let completions = self.world.shard.counters().completions.get();
        let until = started + patience;
        self.world.net.pass(patience);
        while self.world.net.now() < until {
            self.world.shard.turn();
            for actor in self.clients.iter_mut().flatten() {
                actor.read(self.world, 1 << 20);
            }
        }
        let counters = self.world.shard.counters();
        assert_eq!(counters.open.get(), 0, "somebody silent is never given up");
        // One turn for each slice of time, or step of a drain, and for each completion.
        let slice = if self.drained { DRAIN_STEP } else { SLICE };
        let slices = (patience.as_millis() / slice.as_millis()) as u64;
        let needed = 2 * slices + counters.completions.get() - completions + SPINS_MAX as u64;
        let taken = counters.turns.get() - turns;
        assert!(taken <= needed, "livelock: {taken} turns in silence, {needed} would do");
    }

    /// Drains the shard, and checks that nothing is left and that every end had a cause.
    fn finish(mut self) {
        self.world.tell(|| "-- the end".to_owned());
        if !self.world.net.is_simulated() {
            // On the kernel lingering peers would take real time.
            self.world.net.close_all();
        }
        if !self.world.shard.stopped() {
            self.drained = true;
            self.world.post(S::Protocol::drain(Duration::ZERO));
        }
        self.until("the drain is over", |world| world.shard.stopped());
        self.until("nothing is in flight", |world| world.shard.outbox().live() == 0);
        self.check_left();
        let actors: Vec<Actor<S::Script>> =
            self.past.drain(..).chain(self.clients.iter_mut().filter_map(Option::take)).collect();
        for mut actor in actors {
            while actor.read(self.world, 1 << 20) {}
            if self.world.sim.is_some() {
                self.judge_end(&actor);
            } else {
                let ending =
                    Ending { unavailable: self.drained || self.gated, ..Ending::default() };
                actor.script.check(&actor.heard, false, ending);
            }
        }
    }

    /// Turns until `done`, which comes soon: peers linger for a second.
    fn until(&mut self, what: &str, done: impl Fn(&World<S::Protocol>) -> bool) {
        let started = self.world.net.now();
        while !done(self.world) {
            self.turn_within(SLICE);
            let patient = self.world.net.now() - started < PATIENCE;
            assert!(patient, "never: {what}");
        }
    }

    fn check_left(&self) {
        let shard = &self.world.shard;
        if let Some(sim) = &self.world.sim {
            let counters = shard.counters();
            let (received, sent, accepted) = sim.totals();
            assert_eq!(counters.accepted.get(), accepted, "connections accepted");
            assert_eq!(counters.bytes_out.get(), sent, "bytes sent");
            // Bytes that arrive after the end are discarded and not counted.
            assert!(counters.bytes_in.get() <= received, "bytes received");
        }
        assert_eq!(shard.held(), Held::default(), "something is left");
        assert_eq!(shard.outbox().live(), 0, "slots are left");
        self.world.net.check_empty();
        self.subject.check_left(&shard.protocol().inner);
    }

    /// Checks that the reason of each close had a cause, and that a client whose connection closed
    /// in order has received everything before.
    fn judge_end(&self, actor: &Actor<S::Script>) {
        let stats = self.sim().stats(actor.peer);
        let Some(id) = stats.id else { return };
        let watched = self.world.protocol();
        let number = actor.number;
        let Some(&reason) = watched.closed.get(&id) else {
            // The connect succeeded, and the connection broke before the ring reported it.
            assert!(watched.refused.contains_key(&id), "client {number} was never closed");
            return;
        };
        let closed_at = watched.closed_at[&id];
        let since = stats.since.expect("it was accepted");
        let silent = || watched.silent.get(&id).copied().unwrap_or_default();
        let wrong = actor.script.was_wrong();
        let cause = match reason {
            CloseReason::Finished => actor.script.asked_for_end() || wrong,
            // A socket reports an error once, to the first call; after that, the input ends.
            CloseReason::PeerClosed => actor.left || stats.broken,
            CloseReason::PeerReset => actor.left || actor.troubled || stats.broken,
            CloseReason::Failed => stats.broken,
            CloseReason::HandshakeTimeout => closed_at - since >= S::HANDSHAKE,
            CloseReason::IdleTimeout => silent() >= S::IDLE,
            CloseReason::BadRequest | CloseReason::BadFrame => wrong,
            CloseReason::TooManyFragments | CloseReason::TooManyPings => {
                actor.script.is_excessive()
            }
            CloseReason::TooSlow => closed_at - since >= S::HANDSHAKE,
            CloseReason::SlowConsumer => self.mailed_at.is_some_and(|at| at >= since),
            CloseReason::Draining => self.drained,
            CloseReason::Refused => self.limited,
            CloseReason::Overloaded => self.gated,
        };
        assert!(cause, "client {number} was closed without a cause: {}", reason.name());
        let timed_out = matches!(reason, CloseReason::HandshakeTimeout | CloseReason::IdleTimeout);
        let refused = reason == CloseReason::Refused;
        let ending = Ending { timed_out, refused, unavailable: self.drained || self.gated };
        // A client that reads nothing for the linger time has lost the rest.
        let quick = closed_at - stats.received_at.unwrap_or(since) < self.linger;
        let in_order = reason == CloseReason::Finished && actor.end == Some(Read::End) && quick;
        actor.script.check(&actor.heard, in_order && !wrong && !stats.broken, ending);
    }
}
