//! Checks of the simulation itself: it must find the flaw of each flawed ring and application.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use murre_core::ConnId;
use murre_core::ring::sim::{Keep, SimRing};
use murre_core::ring::{
    Completion, Lease, Lent, Op, OpKind, Ring, ShutdownHow, ShutdownStatus, Socket, Token, Waker,
};
use murre_testing::env_number;
use nix::errno::Errno;

use super::attempt;
use super::pipe::Echoing;
use super::plan::Plan;
use super::server::Serving;
use crate::app::Mistake;

/// A flaw of a ring. To the checks it looks like a fault of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// A partial send is reported as complete.
    LosesSentBytes,
    /// The last byte received is cut off, now and then.
    LosesReceivedBytes,
    /// A readiness is not reported, now and then.
    ForgetsReadiness,
    /// The completion of a close is not reported, now and then.
    ForgetsCloses,
    /// A socket is not closed, now and then.
    KeepsSockets,
    /// A returned buffer is not free again, now and then.
    KeepsBuffers,
    /// A connection is accepted, but an error is reported.
    RefusesWhomItAccepts,
    /// A receive fails without a cause, now and then.
    BreaksConnections,
    /// Time does not pass for the shard.
    StopsTheClock,
    /// Time passes four times as fast for the shard.
    RushesTheClock,
    /// A turn handles completions of operations that it has started itself.
    WorksOn,
}

/// "Now and then" means once in this many times.
const NOW_AND_THEN: u64 = 5;

struct Flawed {
    ring: SimRing,
    flaw: Flaw,
    count: u64,
    started: Instant,
    /// Completions reported for operations that did not happen.
    untrue: VecDeque<Completion>,
    has_worked_on: bool,
}

impl Flawed {
    fn new(ring: SimRing, flaw: Flaw) -> Self {
        let started = ring.now();
        let untrue = VecDeque::new();
        Flawed { ring, flaw, count: 0, started, untrue, has_worked_on: false }
    }

    fn is(&mut self, flaw: Flaw) -> bool {
        if self.flaw != flaw {
            return false;
        }
        self.count += 1;
        self.count.is_multiple_of(NOW_AND_THEN)
    }

    /// The completion that the ring reports, or `None` to drop it.
    fn told(&mut self, mut completion: Completion) -> Option<Completion> {
        let kind = completion.token.kind;
        match (kind, completion.result, &completion.lent) {
            (OpKind::Send, Ok(_), Lent::Data(data, at)) if self.flaw == Flaw::LosesSentBytes => {
                completion.result = Ok(data.len() - at);
            }
            (OpKind::Recv, Ok(len), _) if len > 1 && self.is(Flaw::LosesReceivedBytes) => {
                completion.result = Ok(len - 1);
            }
            (OpKind::Recv, Ok(_), _) if self.is(Flaw::BreaksConnections) => {
                completion.result = Err(Errno::ECONNRESET as i32);
            }
            (OpKind::Accept, Ok(_), _) if self.is(Flaw::RefusesWhomItAccepts) => {
                completion.result = Err(Errno::ECONNABORTED as i32);
            }
            (OpKind::Poll, ..) if self.is(Flaw::ForgetsReadiness) => return None,
            (OpKind::Close, ..) if self.is(Flaw::ForgetsCloses) => return None,
            _ => {}
        }
        Some(completion)
    }
}

impl Ring for Flawed {
    fn push(&mut self, op: Op, token: Token) {
        if token.kind == OpKind::Close && self.is(Flaw::KeepsSockets) {
            self.untrue.push_back(Completion { token, result: Ok(0), lent: Lent::Nothing });
            return;
        }
        self.ring.push(op, token);
    }

    fn pop(&mut self) -> Option<Completion> {
        if let Some(completion) = self.untrue.pop_front() {
            return Some(completion);
        }
        loop {
            let mut next = self.ring.pop();
            if next.is_none() && self.flaw == Flaw::WorksOn && !self.has_worked_on {
                self.has_worked_on = true;
                self.ring.submit_and_wait(Some(Duration::ZERO)).expect("the ring works");
                next = self.ring.pop();
            }
            let told = self.told(next?);
            if told.is_some() {
                return told;
            }
        }
    }

    fn give_back(&mut self, lease: Lease) {
        if !self.is(Flaw::KeepsBuffers) {
            self.ring.give_back(lease);
        }
    }

    fn now(&self) -> Instant {
        let passed = self.ring.now() - self.started;
        match self.flaw {
            Flaw::StopsTheClock => self.started,
            Flaw::RushesTheClock => self.started + passed * 4,
            _ => self.started + passed,
        }
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.has_worked_on = false;
        self.ring.submit_and_wait(timeout)
    }

    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32> {
        self.ring.open(id, to, from)
    }

    fn begin_shutdown(&mut self, socket: Socket, how: ShutdownHow, token: Token) -> ShutdownStatus {
        self.ring.begin_shutdown(socket, how, token)
    }

    fn lease(&mut self) -> Option<Lease> {
        self.ring.lease()
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.ring.buffer(lease)
    }

    fn waker(&self) -> Waker {
        self.ring.waker()
    }

    fn listens(&self) -> bool {
        self.ring.listens()
    }

    fn stop_listening(&mut self) {
        self.ring.stop_listening();
    }
}

/// The number of seeds within which each flaw must be found.
const SEEDS: u64 = 400;

/// Panics unless the check for such a flaw has found it, with a message that contains `words`.
/// Other checks may find it too: a loss in one place shows in others.
fn is_found(flaw: &str, words: &str, why: impl Fn(&Plan) -> Option<String>) {
    if env_number("SEEDS") == Some(0) {
        return;
    }
    let failures: Vec<String> = (0..SEEDS)
        .map_while(|seed| {
            let why = why(&Plan::draw(seed)).unwrap_or_default();
            (!why.contains(words)).then_some(why)
        })
        .collect();
    let others: BTreeSet<&str> = failures.iter().map(String::as_str).collect();
    assert!(
        failures.len() < SEEDS as usize,
        "{flaw} is not found as {words:?}, but as {others:#?}"
    );
}

/// The check for each flaw below the shard finds it.
#[test]
fn flawed_rings_are_found() {
    let flaws = [
        (Flaw::LosesSentBytes, "bytes sent"),
        (Flaw::LosesReceivedBytes, "without a cause: bad_frame"),
        (Flaw::ForgetsReadiness, "is not read"),
        (Flaw::ForgetsCloses, "is not accepted"),
        (Flaw::KeepsSockets, "sockets left open"),
        (Flaw::KeepsBuffers, "buffers not given back"),
        (Flaw::RefusesWhomItAccepts, "connections accepted"),
        (Flaw::BreaksConnections, "without a cause: peer_reset"),
        (Flaw::StopsTheClock, "never given up"),
        (Flaw::RushesTheClock, "without a cause: idle_timeout"),
        (Flaw::WorksOn, "completions of"),
    ];
    for (flaw, words) in flaws {
        is_found(&format!("{flaw:?}"), words, |plan| {
            let serving = Serving::default();
            let flawed = |ring| Flawed::new(ring, flaw);
            attempt(&serving, plan, Keep::Nothing, flawed).err().map(|failure| failure.why)
        });
    }
    // If no timeout shows the flaw, the end of the run does.
    is_found("ForgetsCloses", "never: nothing is in flight", |plan| {
        let flawed = |ring| Flawed::new(ring, Flaw::ForgetsCloses);
        attempt(&Echoing, plan, Keep::Nothing, flawed).err().map(|failure| failure.why)
    });
}

/// The check for each mistake of an application finds it.
#[test]
fn flawed_applications_are_found() {
    let mistakes = [
        (Mistake::LosesMessages, "messages of"),
        (Mistake::RepeatsMessages, "were to come"),
        (Mistake::LosesMail, "the last mail"),
        (Mistake::NeverSleeps, "livelock"),
        (Mistake::KeepsSessions, "sessions are left"),
    ];
    for (mistake, words) in mistakes {
        is_found(&format!("{mistake:?}"), words, |plan| {
            let serving = Serving { mistake: Some(mistake), ..Serving::default() };
            attempt(&serving, plan, Keep::Nothing, |ring| ring).err().map(|failure| failure.why)
        });
    }
}
