//! A shard: everything that one core owns, and its loop.

mod accept;
mod close;
pub(crate) mod config;
mod drain;
mod drain_schedule;
mod group;
mod receive;
mod send;
mod timers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::Accepts;
use crate::byte_stage::{ByteStage, Plain};
use crate::conn::State;
use crate::conn::id::ConnId;
use crate::conn::states::States;
use crate::counters::Counters;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::pool::{NONE, Pool};
use crate::protocol::Protocol;
use crate::ring::{Completion, Lent, Op, OpKind, Ring, Socket, Token};

pub use config::ShardConfig;
use drain_schedule::DrainSchedule;
pub use group::{Grouped, run_together};
use receive::Tail;

/// What a shard holds for its connections beside their slots. All of it is 0 when they are idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pieces that wait to be sent.
    pub pieces: u32,
    /// Bytes of those pieces, and of those that are being sent.
    pub bytes: u64,
    /// Connections with input that the protocol has not consumed yet.
    pub tails: u32,
    /// Connections that wait for a receive buffer.
    pub starved: usize,
}

/// One core's connections on one [`Ring`], speaking one [`Protocol`]. It runs on the thread that calls
/// [`run`](Shard::run) and shares nothing but its [`Mailbox`] and its [`Counters`].
pub struct Shard<R: Ring, P: Protocol, B: ByteStage = Plain> {
    ring: R,
    /// Between the ring and the protocol.
    stage: B,
    protocol: P,
    states: States<P::State>,
    out: Outbox,
    /// Input that the protocol has not consumed, until more of it arrives.
    spill: Pool<Tail>,
    /// Connections with unread input that wait for a buffer, in the order in which they became readable.
    starved: VecDeque<ConnId>,
    /// Connections with unread input whose peers have hung up. They are read after the others, so that
    /// many that leave at once delay no other connection.
    hung_up: VecDeque<ConnId>,
    mailbox: Arc<Mailbox<P::Mail>>,
    mails: Vec<P::Mail>,
    accepts: Accepts,
    drain: Option<DrainSchedule>,
    /// Connections whose timers have expired, yet to be handled.
    expired: Vec<ConnId>,
}

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// A shard without connections. It accepts if the ring has a listener.
    pub fn new(ring: R, protocol: P, config: &ShardConfig) -> Self {
        Shard::with_byte_stage(ring, Plain, protocol, config)
    }
}

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// A shard whose connections pass through `stage`.
    pub fn with_byte_stage(ring: R, stage: B, protocol: P, config: &ShardConfig) -> Self {
        let now = ring.now();
        Shard {
            accepts: Accepts::new(config.accept_interval, ring.listens(), now),
            mailbox: Arc::new(Mailbox::new(config.mails_max, ring.waker())),
            states: States::new(config.max_conns),
            out: Outbox::new(config, now),
            ring,
            stage,
            protocol,
            spill: Pool::default(),
            starved: VecDeque::new(),
            hung_up: VecDeque::new(),
            mails: Vec::new(),
            drain: None,
            expired: Vec::new(),
        }
    }

    /// The queue through which other threads reach this shard.
    pub fn mailbox(&self) -> Arc<Mailbox<P::Mail>> {
        Arc::clone(&self.mailbox)
    }

    /// The counters of this shard, which any thread may read.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.out.counters)
    }

    /// The protocol that its connections speak.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Its connections, through the interface that the protocol has.
    pub fn outbox(&self) -> &Outbox {
        &self.out
    }

    /// What it holds for its connections beside their slots. Walks all slots: for tests and diagnosis.
    pub fn held(&self) -> Held {
        Held {
            pieces: self.out.sends.len(),
            bytes: self.out.conns.iter().map(|(_, slot)| u64::from(slot.queue.bytes())).sum(),
            tails: self.spill.len(),
            starved: self.starved.len() + self.hung_up.len(),
        }
    }

    /// Runs turns until the protocol stops the shard, or a drain is over.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopped() {
            self.turn()?;
        }
        Ok(())
    }

    /// Whether the protocol has stopped the shard, or a drain is over.
    pub fn stopped(&self) -> bool {
        self.out.stopped
    }

    /// One turn of the loop: wait, take mail, complete, expire timers, flush. The operations that a turn
    /// pushes are submitted by the wait of the next.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    pub fn turn(&mut self) -> io::Result<()> {
        self.accept();
        let timeout = self.timeout();
        self.ring.submit_and_wait(timeout)?;
        self.work();
        Ok(())
    }

    /// The work of a turn: takes mail, completes operations, expires timers, and flushes.
    fn work(&mut self) {
        self.out.now = self.ring.now();
        if self.is_empty() {
            // No connection had a timer while the shard slept: the ticks that have passed do not matter.
            self.out.timers.restart(self.out.now);
        }
        self.out.timers.begin_turn(self.out.now);
        // Mail comes before input: a peer may have been told of it by another shard and have answered.
        self.mailbox.collect(&mut self.mails);
        for mail in self.mails.drain(..) {
            self.protocol.mail(mail, &mut self.out);
        }
        self.complete_all();
        self.expire();
        self.expire_sessions();
        self.protocol.turn(&mut self.out);
        self.resume_released();
        self.drain();
        self.connect();
        self.flush();
        self.feed();
        let counters = &self.out.counters;
        counters.pieces.set(u64::from(self.out.sends.len()));
        counters.tails.set(u64::from(self.spill.len()));
        counters.turns.add(1);
    }

    /// Whether there are no connections: every slot that is taken waits for an accept.
    fn is_empty(&self) -> bool {
        self.out.conns.used() == self.accepts.armed
    }

    /// How long the wait may take. `None` is no limit.
    fn timeout(&mut self) -> Option<Duration> {
        let Outbox { connects, released, .. } = &self.out;
        let more = !connects.is_empty() || !released.is_empty() || !self.expired.is_empty();
        if !self.mailbox.sleep() || more {
            return Some(Duration::ZERO);
        }
        let timer = (!self.is_empty()).then(|| self.out.timers.next());
        let drain = self.drain.as_ref().map(|_| self.out.now + DrainSchedule::STEP);
        let session = self.out.session_timers.next();
        let first = [timer, session, drain, self.accepts.not_before(), self.protocol.wake_at()]
            .into_iter()
            .flatten()
            .min()?;
        Some(first.saturating_duration_since(self.ring.now()))
    }

    fn complete_all(&mut self) {
        let mut completions = 0;
        while let Some(completion) = self.ring.pop() {
            self.complete(completion);
            completions += 1;
        }
        self.out.counters.completions.add(completions);
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token: Token { kind, id: conn }, result, lent } = completion;
        let slot = &mut self.out.conns[conn];
        slot.in_flight.end(kind);
        // A connection whose end begins from here on is scheduled by what begins it.
        let is_ending = slot.state == State::Terminating;
        match (kind, lent) {
            (OpKind::Accept, Lent::Peer(peer)) => self.accepted(conn, result, Some(peer)),
            (OpKind::Accept, _) => self.accepted(conn, result, None),
            (OpKind::Connect, _) => self.connected(conn, result),
            (OpKind::Poll, _) => self.ready(conn, result),
            (OpKind::Recv, Lent::Buffer(lease)) => {
                self.received(conn, &lease, result);
                self.ring.give_back(lease);
                let lent = &self.out.counters.lent;
                lent.set(lent.get() - 1);
            }
            (OpKind::Send, Lent::Data(data, at)) => self.sent(conn, data, at, result),
            (OpKind::Close, _) => self.closed(conn),
            (OpKind::Shutdown, _) => self.on_shutdown_done(conn, result),
            (kind, lent) => unreachable!("{kind:?} is not lent {lent:?}"),
        }
        let shutdown_failed = kind == OpKind::Shutdown && result.is_err();
        if is_ending && !shutdown_failed && self.out.conns.get(conn).is_some() {
            self.out.schedule_flush(conn);
        }
    }

    /// Begins an operation of the connection.
    fn push(&mut self, conn: ConnId, kind: OpKind, op: Op) {
        self.out.conns[conn].in_flight.begin(kind);
        self.ring.push(op, Token { kind, id: conn });
    }
}

impl<R: Ring, P: Protocol, B: ByteStage> Drop for Shard<R, P, B> {
    fn drop(&mut self) {
        // The kernel closes the sockets of the ring's own table, but not descriptors of the process.
        for (conn, slot) in self.out.conns.iter() {
            if slot.socket != Socket(NONE) && !slot.in_flight.has(OpKind::Close) {
                self.ring.push(Op::Close(slot.socket), Token { kind: OpKind::Close, id: conn });
            }
        }
        // The process or the ring ends next, so an error changes nothing.
        let _ = self.ring.submit_and_wait(Some(Duration::ZERO));
    }
}
