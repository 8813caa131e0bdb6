//! A protocol wrapper that checks how a shard calls its protocol.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use murre_core::ring::sim::SimNet;
use murre_core::{CloseReason, ConnId, Outbox, Protocol};

/// Passes every call on to `inner`, and checks that each connection is opened once, then used, then
/// closed once, and that no turn exceeds its bound.
pub(crate) struct Watched<P> {
    pub(crate) inner: P,
    /// The connections that are open for the protocol, whatever the state of the transport.
    pub(crate) open: HashSet<ConnId>,
    pub(crate) opened: u64,
    /// The addresses of the accepted connections, in order.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) closed: HashMap<ConnId, CloseReason>,
    pub(crate) refused: HashMap<ConnId, i32>,
    /// When each connection was closed.
    pub(crate) closed_at: HashMap<ConnId, Instant>,
    /// The time since the last input of each connection that a timer ended.
    pub(crate) silent: HashMap<ConnId, Duration>,
    heard_at: HashMap<ConnId, Instant>,
    /// On the kernel: the next turn follows at once, so that a test's turn does not sleep.
    pub(crate) awake: bool,
    /// The largest number of timers that one turn has handled.
    pub(crate) most_expired: usize,
    /// The network whose log gets the events.
    teller: Option<SimNet>,
    /// The number of receive buffers of the ring.
    buffers: u16,
    /// The work of the present turn.
    work: Work,
    before: Before,
}

/// How often a turn has called the protocol.
#[derive(Debug, Default)]
struct Work {
    received: u64,
    expired: usize,
    sessions_expired: usize,
}

/// The shard's counts at the end of the last turn.
#[derive(Debug, Default)]
struct Before {
    live: u32,
    completions: u64,
    /// Completed sends, whole or partial.
    sends: u64,
    /// Connections resumed after a hold.
    resumed: u64,
}

/// The largest number of timers that a turn may handle.
pub(crate) const EXPIRED_MAX: usize = 256;
/// The largest number of armed accepts.
const ACCEPTS_MAX: u32 = 8;
/// The largest number of operations in flight for a connection: one that leads to input, a send and
/// a shutdown.
const IN_FLIGHT_MAX: u32 = 3;

/// A protocol that can drain its shard.
pub(crate) trait Drained: Protocol {
    /// The mail that starts the drain.
    fn drain(over: Duration) -> Self::Mail;
}

impl<P: Protocol> Watched<P> {
    pub(crate) fn new(inner: P, awake: bool, buffers: u16) -> Self {
        Watched {
            inner,
            open: HashSet::new(),
            opened: 0,
            peers: Vec::new(),
            closed: HashMap::new(),
            refused: HashMap::new(),
            closed_at: HashMap::new(),
            silent: HashMap::new(),
            heard_at: HashMap::new(),
            awake,
            most_expired: 0,
            teller: None,
            buffers,
            work: Work::default(),
            before: Before::default(),
        }
    }

    /// Writes the events to the log of `net`.
    pub(crate) fn telling(mut self, net: SimNet) -> Self {
        self.teller = Some(net);
        self
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(teller) = &self.teller {
            teller.annotate(|| format!("     {}", what()));
        }
    }

    /// The true time, even if the shard's clock is wrong.
    fn now(&self, out: &Outbox) -> Instant {
        self.teller.as_ref().map_or(out.now(), SimNet::now)
    }

    /// The state at the start of a turn bounds the turn's work: the operations in flight, a receive
    /// for each buffer, input that waited for a send, and a fixed number of timers.
    fn check_work(&mut self, out: &Outbox) {
        let counters = out.counters();
        let now = Before {
            live: out.live(),
            completions: counters.completions.get(),
            sends: counters.sends.get() + counters.sends_short.get(),
            resumed: counters.resumed.get(),
        };
        let sends = now.sends - self.before.sends;
        let resumed = now.resumed - self.before.resumed;
        let completions = now.completions - self.before.completions;
        let (work, before) = (mem::take(&mut self.work), mem::replace(&mut self.before, now));
        self.most_expired = self.most_expired.max(work.expired);
        assert!(work.expired <= EXPIRED_MAX, "{} timers in one turn", work.expired);
        assert!(work.sessions_expired <= EXPIRED_MAX, "{} of sessions", work.sessions_expired);
        let received_max = u64::from(self.buffers) + sends + resumed;
        assert!(
            work.received <= received_max,
            "{work:?}, {sends} sends, {resumed} resumed, {} buffers",
            self.buffers
        );
        let in_flight_max = u64::from(before.live * IN_FLIGHT_MAX + ACCEPTS_MAX);
        assert!(completions <= in_flight_max, "{completions} completions of {before:?}");
    }

    /// The number of connections that ended for this reason.
    pub(crate) fn closed_for(&self, reason: CloseReason) -> usize {
        self.closed.values().filter(|&&closed| closed == reason).count()
    }

    fn check_open(&self, id: ConnId, out: &Outbox) {
        assert!(self.open.contains(&id), "{id:?} is not open");
        assert!(out.is_open(id), "{id:?} is going and is told of something else than its end");
    }
}

impl<P: Protocol> Protocol for Watched<P> {
    type State = P::State;
    type Mail = P::Mail;

    fn opened(&mut self, id: ConnId, peer: Option<SocketAddr>, out: &mut Outbox) -> P::State {
        assert!(self.open.insert(id) && !self.closed.contains_key(&id), "{id:?} opened twice");
        self.opened += 1;
        self.peers.extend(peer);
        self.heard_at.insert(id, self.now(out));
        self.tell(|| format!("{id} is open"));
        self.inner.opened(id, peer, out)
    }

    fn refused(&mut self, id: ConnId, errno: i32, out: &mut Outbox) {
        assert!(!self.open.contains(&id), "{id:?} was opened");
        assert!(self.refused.insert(id, errno).is_none(), "{id:?} was refused twice");
        self.tell(|| format!("{id} is refused: {errno}"));
        self.inner.refused(id, errno, out);
    }

    fn received(
        &mut self,
        id: ConnId,
        state: &mut P::State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        self.check_open(id, out);
        assert!(!input.is_empty(), "there is something to consume");
        self.work.received += 1;
        self.heard_at.insert(id, self.now(out));
        let consumed = self.inner.received(id, state, input, out);
        self.tell(|| format!("{id} takes {consumed} of {} bytes", input.len()));
        assert!(consumed <= input.len());
        consumed
    }

    fn drained(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        assert_eq!(out.queued(id), 0, "something is left to be sent");
        self.tell(|| format!("{id} is drained"));
        self.inner.drained(id, state, out);
    }

    fn expired(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        self.work.expired += 1;
        self.tell(|| format!("{id}: its timer ran out"));
        self.inner.expired(id, state, out);
        if !out.is_open(id) {
            self.silent.insert(id, self.now(out) - self.heard_at[&id]);
        }
    }

    fn session_expired(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        self.work.sessions_expired += 1;
        self.tell(|| format!("{id}: its session's timer ran out"));
        self.inner.session_expired(id, state, out);
    }

    fn leave(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        self.tell(|| format!("{id} is to leave"));
        self.inner.leave(id, state, out);
    }

    fn closed(&mut self, id: ConnId, state: P::State, reason: CloseReason, out: &mut Outbox) {
        assert!(self.open.remove(&id), "{id:?} closed without having been open");
        self.closed.insert(id, reason);
        self.closed_at.insert(id, self.now(out));
        self.tell(|| format!("{id} is closed: {}", reason.name()));
        assert!(!out.is_open(id));
        self.inner.closed(id, state, reason, out);
    }

    fn mail(&mut self, mail: P::Mail, out: &mut Outbox) {
        self.inner.mail(mail, out);
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.inner.turn(out);
        self.check_work(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.awake.then(Instant::now).or(self.inner.wake_at())
    }
}
