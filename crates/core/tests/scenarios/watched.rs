//! A protocol under observation: what a shard must never do to one.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use murre_core::ring::sim::SimNet;
use murre_core::{CloseReason, ConnId, Outbox, Protocol};

/// Passes everything on to `inner`, and checks that a connection's life is one: opened, then
/// anything, then closed once; and that no turn does more than it may.
pub(crate) struct Watched<P> {
    pub(crate) inner: P,
    /// Open for the protocol: not yet closed, whatever the transport is at.
    pub(crate) open: HashSet<ConnId>,
    pub(crate) opened: u64,
    /// Where those that were accepted came from, in order.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) closed: HashMap<ConnId, CloseReason>,
    pub(crate) refused: HashMap<ConnId, i32>,
    /// When each was closed.
    pub(crate) closed_at: HashMap<ConnId, Instant>,
    /// For how long each had said nothing when a timer ended it.
    pub(crate) silent: HashMap<ConnId, Duration>,
    heard_at: HashMap<ConnId, Instant>,
    /// On the kernel: come back at once, so that a test's turn does not sleep.
    pub(crate) awake: bool,
    /// Timers that one turn has dealt with at most.
    pub(crate) most_expired: usize,
    /// Where to tell what happens.
    teller: Option<SimNet>,
    /// Receive buffers of the ring.
    buffers: u16,
    /// What this turn has done so far.
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

/// What there was when the last turn ended.
#[derive(Debug, Default)]
struct Before {
    live: u32,
    completions: u64,
    /// Sends that ended, wholly or in part.
    sends: u64,
    /// Connections that were resumed after they had been held.
    resumed: u64,
}

/// A turn deals with so many timers at most.
pub(crate) const EXPIRED_MAX: usize = 256;
/// Accepts that wait at most.
const ACCEPTS_MAX: u32 = 8;
/// What a connection has in flight at most: something that leads to input, a send and a shutdown.
const IN_FLIGHT_MAX: u32 = 3;

/// A protocol that can be told to drain its shard.
pub(crate) trait Drained: Protocol {
    /// What to post.
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

    /// Tells what happens in the log of `net`.
    pub(crate) fn telling(mut self, net: SimNet) -> Self {
        self.teller = Some(net);
        self
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(teller) = &self.teller {
            teller.annotate(|| format!("     {}", what()));
        }
    }

    /// The time, whatever the shard takes for it.
    fn now(&self, out: &Outbox) -> Instant {
        self.teller.as_ref().map_or(out.now(), SimNet::now)
    }

    /// A turn's work is bounded by what was there when it began: it deals with what was in flight,
    /// a receive for each buffer, input that waited for what has been sent, and so many timers.
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

    /// How many connections ended for this reason.
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
