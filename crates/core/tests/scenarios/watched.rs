//! A protocol under observation: what a shard must never do to one.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use murre_core::{CloseReason, ConnId, Outbox, Protocol};

/// Passes everything on to `inner`, and checks that a connection's life is one: opened, then
/// anything, then closed once.
pub(crate) struct Watched<P> {
    pub(crate) inner: P,
    /// Open for the protocol: not yet closed, whatever the transport is at.
    pub(crate) open: HashSet<ConnId>,
    pub(crate) opened: u64,
    /// Where those that were accepted came from, in order.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) closed: HashMap<ConnId, CloseReason>,
    pub(crate) refused: HashMap<ConnId, i32>,
    /// On the kernel: come back at once, so that a test's turn does not sleep.
    pub(crate) awake: bool,
}

/// A protocol that can be told to drain its shard.
pub(crate) trait Drained: Protocol {
    /// What to post.
    fn drain(over: Duration) -> Self::Mail;
}

impl<P: Protocol> Watched<P> {
    pub(crate) fn new(inner: P, awake: bool) -> Self {
        Watched {
            inner,
            open: HashSet::new(),
            opened: 0,
            peers: Vec::new(),
            closed: HashMap::new(),
            refused: HashMap::new(),
            awake,
        }
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
        self.inner.opened(id, peer, out)
    }

    fn refused(&mut self, id: ConnId, errno: i32, out: &mut Outbox) {
        assert!(!self.open.contains(&id), "{id:?} was opened");
        assert!(self.refused.insert(id, errno).is_none(), "{id:?} was refused twice");
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
        let consumed = self.inner.received(id, state, input, out);
        assert!(consumed <= input.len());
        consumed
    }

    fn drained(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        assert_eq!(out.queued(id), 0, "something is left to be sent");
        self.inner.drained(id, state, out);
    }

    fn expired(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        self.inner.expired(id, state, out);
    }

    fn leave(&mut self, id: ConnId, state: &mut P::State, out: &mut Outbox) {
        self.check_open(id, out);
        self.inner.leave(id, state, out);
    }

    fn closed(&mut self, id: ConnId, state: P::State, reason: CloseReason, out: &mut Outbox) {
        assert!(self.open.remove(&id), "{id:?} closed without having been open");
        self.closed.insert(id, reason);
        assert!(!out.is_open(id));
        self.inner.closed(id, state, reason, out);
    }

    fn mail(&mut self, mail: P::Mail, out: &mut Outbox) {
        self.inner.mail(mail, out);
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.inner.turn(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.awake.then(Instant::now).or(self.inner.wake_at())
    }
}
