//! Everything one core owns, and its loop. None of it is shared.

mod accept;
mod close;
mod config;
mod drain;
mod drain_schedule;
mod receive;
mod send;
mod timers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Pace;
use crate::conn::State;
use crate::conn::id::ConnId;
use crate::conn::send_queue::SendPool;
use crate::conn::session_timers::SessionTimers;
use crate::conn::slab::Slab;
use crate::conn::timers::Timers;
use crate::counters::Counters;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::pool::{NONE, Pool};
use crate::protocol::Protocol;
use crate::ring::{Completion, Lent, Op, OpKind, Ring, Socket, Token};

pub use config::ShardConfig;
use drain_schedule::Drain;

/// What a shard keeps for its connections for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pieces that wait to be sent.
    pub pieces: u32,
    /// Bytes of those, and of what is being sent.
    pub bytes: u64,
    /// Inputs that were cut off.
    pub tails: u32,
    /// Connections that wait for a receive buffer.
    pub starved: usize,
}

/// One core's connections on one ring, speaking one protocol.
pub struct Shard<R: Ring, P: Protocol> {
    ring: R,
    protocol: P,
    /// By slot, beside the connections: a protocol holds one of these while it queues on those.
    states: Vec<Option<P::State>>,
    out: Outbox,
    /// Input that was cut off, until the rest of it is there.
    spill: Pool<Vec<u8>>,
    /// Connections with something to read, waiting for a buffer: first come, first served.
    starved: VecDeque<ConnId>,
    /// Connections whose peers have hung up, to be read after those: of a crowd that leaves in one
    /// moment, those who stay are to notice little.
    leaving: VecDeque<ConnId>,
    mailbox: Arc<Mailbox<P::Mail>>,
    mails: Vec<P::Mail>,
    accepts: Accepts,
    drain: Option<Drain>,
    /// Connections whose timers ran out, yet to be dealt with.
    expired: Vec<ConnId>,
}

/// Accepts in flight. Each holds a slot, so that none is accepted without a place.
struct Accepts {
    armed: u32,
    /// After a failure for want of descriptors or memory, or while the gate says so: not before this.
    paused_until: Option<Instant>,
    /// After too many: not before this, unless some of them were turned away.
    paced_until: Option<Instant>,
    pace: Pace,
    listening: bool,
    /// Every slot is taken by a connection.
    full: bool,
}

impl Accepts {
    /// When the next may be armed, if not now.
    fn not_before(&self) -> Option<Instant> {
        self.paused_until.max(self.paced_until)
    }
}

/// Connections in one slice of a tick at most.
const SLICE_MAX: u32 = 4096;

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// A shard with nothing on it yet.
    pub fn new(ring: R, protocol: P, config: &ShardConfig) -> Self {
        let now = ring.now();
        let mailbox = Arc::new(Mailbox::new(config.mails_max, ring.waker()));
        let slices = config.slices.max(config.conns_max.div_ceil(SLICE_MAX));
        let out = Outbox {
            conns: Slab::new(config.conns_max),
            sends: SendPool::default(),
            session_timers: SessionTimers::default(),
            timers: Timers::new(config.conns_max, config.tick, slices, now),
            counters: Arc::default(),
            dirty: Vec::new(),
            released: Vec::new(),
            connects: VecDeque::new(),
            now,
            due: now,
            send_bytes_max: config.send_bytes_max,
            congested_bytes: config.congested_bytes,
            linger: config.linger,
            retry_after: config.retry_after,
            addresses: Arc::clone(&config.addresses),
            peers: Peers::default(),
            shard: config.index,
            gate: Arc::clone(&config.gate),
            turned_away: 0,
            stopped: false,
            drain: None,
            draining: false,
            unready: false,
        };
        Shard {
            accepts: Accepts {
                armed: 0,
                paused_until: None,
                paced_until: None,
                pace: Pace::new(config.accept_interval, now),
                listening: ring.listens(),
                full: false,
            },
            states: Vec::with_capacity(config.conns_max as usize),
            ring,
            protocol,
            out,
            spill: Pool::default(),
            starved: VecDeque::new(),
            leaving: VecDeque::new(),
            mailbox,
            mails: Vec::new(),
            drain: None,
            expired: Vec::new(),
        }
    }

    /// Where other threads leave mail for this shard.
    pub fn mailbox(&self) -> Arc<Mailbox<P::Mail>> {
        Arc::clone(&self.mailbox)
    }

    /// What this shard counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.out.counters)
    }

    /// The protocol that it speaks.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Its connections, as the protocol sees them.
    pub fn outbox(&self) -> &Outbox {
        &self.out
    }

    /// What it keeps for its connections beside their slots.
    pub fn held(&self) -> Held {
        let conns = &self.out.conns;
        let queued = |id| conns.get(id).map_or(0, |conn| u64::from(conn.queue.bytes()));
        Held {
            pieces: self.out.sends.len(),
            bytes: (0..conns.len()).filter_map(|index| conns.at(index)).map(queued).sum(),
            tails: self.spill.len(),
            starved: self.starved.len() + self.leaving.len(),
        }
    }

    /// Turns until the protocol stops it, or a drain is over.
    ///
    /// # Errors
    /// Only what makes the ring unusable.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopped() {
            self.turn()?;
        }
        Ok(())
    }

    /// Whether it has nothing more to do.
    pub fn stopped(&self) -> bool {
        self.out.stopped
    }

    /// One turn: wait, act on mail, complete, act on time, flush. What a turn pushes, the next turn's
    /// wait submits.
    ///
    /// # Errors
    /// Only what makes the ring unusable.
    pub fn turn(&mut self) -> io::Result<()> {
        self.accept();
        let timeout = self.timeout();
        self.ring.submit_and_wait(timeout)?;
        self.out.now = self.ring.now();
        if self.is_empty() {
            // Nobody had a timer while it slept: the ticks that have passed concern nobody.
            self.out.timers.restart(self.out.now);
        }
        self.out.timers.begin_turn(self.out.now);
        // Before what peers say: they may have heard of what the mail says and have answered it.
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
        Ok(())
    }

    /// Whether every slot that is taken only waits for an accept.
    pub(super) fn is_empty(&self) -> bool {
        self.out.conns.used() == self.accepts.armed
    }

    /// How long the kernel may keep the thread.
    fn timeout(&mut self) -> Option<Duration> {
        let Outbox { connects, released, .. } = &self.out;
        let more = !connects.is_empty() || !released.is_empty() || !self.expired.is_empty();
        if !self.mailbox.sleep() || more {
            return Some(Duration::ZERO);
        }
        let timer = (!self.is_empty()).then(|| self.out.timers.next());
        let drain = self.drain.as_ref().map(|_| self.out.now + Drain::STEP);
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
        let Completion { token: Token { kind, id }, result, lent } = completion;
        let conn = self.out.conns.get_mut(id).expect("a slot outlives its operations");
        conn.in_flight.end(kind);
        match (kind, lent) {
            (OpKind::Accept, Lent::Peer(peer)) => self.accepted(id, result, Some(peer)),
            (OpKind::Accept, _) => self.accepted(id, result, None),
            (OpKind::Connect, _) => self.connected(id, result),
            (OpKind::Poll, _) => self.ready(id, result),
            (OpKind::Recv, Lent::Buffer(lease)) => {
                self.received(id, &lease, result);
                self.ring.give_back(lease);
                let lent = &self.out.counters.lent;
                lent.set(lent.get() - 1);
            }
            (OpKind::Send, Lent::Data(data, at)) => self.sent(id, data, at, result),
            (OpKind::Close, _) => self.closed(id),
            (OpKind::Shutdown, _) => self.shut_down(id, result),
            (kind, lent) => unreachable!("{kind:?} is not lent {lent:?}"),
        }
        let conn = self.out.conns.get(id);
        let failed_to_shut = kind == OpKind::Shutdown && result.is_err();
        if conn.is_some_and(|conn| conn.state == State::Terminating) && !failed_to_shut {
            self.out.mark(id);
        }
    }

    pub(super) fn push(&mut self, id: ConnId, kind: OpKind, op: Op) {
        let conn = self.out.conns.get_mut(id).expect("there while it operates");
        conn.in_flight.begin(kind);
        self.ring.push(op, Token { kind, id });
    }
}

impl<R: Ring, P: Protocol> Drop for Shard<R, P> {
    fn drop(&mut self) {
        // The kernel closes what is in the ring's own table; descriptors of the process are ours.
        for index in 0..self.out.conns.len() {
            let Some(id) = self.out.conns.at(index) else { continue };
            let conn = self.out.conns.get(id).expect("just found");
            let (socket, closing) = (conn.socket, conn.in_flight.has(OpKind::Close));
            if socket != Socket(NONE) && !closing {
                self.ring.push(Op::Close(socket), Token { kind: OpKind::Close, id });
            }
        }
        // The process or the ring ends next: nothing is left to be done about a failure.
        let _ = self.ring.submit_and_wait(Some(Duration::ZERO));
    }
}
