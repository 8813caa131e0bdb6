//! Everything one core owns, and its loop. None of it is shared.

mod drain_schedule;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addresses::Addresses;
use crate::admission::{Admission, Gate, Pace};
use crate::conn::id::ConnId;
use crate::conn::send_queue::SendPool;
use crate::conn::slab::Slab;
use crate::conn::timers::Timers;
use crate::conn::{CloseReason, Mark, State};
use crate::counters::Counters;
use crate::mailbox::Mailbox;
use crate::outbox::{Connect, Outbox};
use crate::pool::{NONE, Pool};
use crate::protocol::Protocol;
use crate::ring::{
    Completion, HANG_UP, Lease, Lent, Op, OpKind, Ring, SendData, ShutdownHow, ShutdownStatus,
    Socket, Token,
};

use drain_schedule::Drain;

/// A shard's bounds.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Connections at most.
    pub conns_max: u32,
    /// A peer for which more bytes than this are queued when there is something more for it is a
    /// slow consumer. So a queue holds at most this and one message.
    pub send_bytes_max: u32,
    /// With so many bytes queued a connection is handed nothing more, and its input is not worked on,
    /// until some of them are sent.
    pub congested_bytes: u32,
    /// How long the peer of a connection that is being closed may take for some more of what is left
    /// to send, and then to close its side.
    pub linger: Duration,
    /// The unit of timers.
    pub tick: Duration,
    /// How many parts of a tick timers are spread over, at least: many connections make more.
    pub slices: u32,
    /// Mails that wait at most.
    pub mails_max: usize,
    /// Who is sent away is to come back within so many seconds; see [`Outbox::retry_after`].
    pub retry_after: u16,
    /// Where the connections of each address are counted: the same for all shards of a server.
    pub addresses: Arc<Addresses>,
    /// From one accept to the next, over some time; zero: as fast as they come.
    pub accept_interval: Duration,
    /// Whether new connections are let in.
    pub gate: Arc<Gate>,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig {
            conns_max: 10_000,
            send_bytes_max: 1024 * 1024,
            congested_bytes: 64 * 1024,
            linger: Duration::from_secs(3),
            tick: Duration::from_secs(1),
            slices: 8,
            mails_max: 4096,
            retry_after: 5,
            addresses: Arc::default(),
            accept_interval: Duration::ZERO,
            gate: Arc::default(),
        }
    }
}

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
}

impl Accepts {
    /// When the next may be armed, if not now.
    fn not_before(&self) -> Option<Instant> {
        self.paused_until.max(self.paced_until)
    }
}

/// Enough for several connections a turn; few, because the shards' accepts are woken in the order
/// they were armed, so that neighbours in time go to one shard in blocks of so many.
const ACCEPTS_MAX: u32 = 8;
/// Connections that a turn begins at most: the kernel makes them one after the other, and lets nobody
/// else have the core meanwhile where it is not preempted.
const CONNECTS_MAX: usize = 64;
/// How long to leave the backlog alone when the machine has nothing left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of the connections whose peers have hung up, a turn reads so many.
const LEAVING_MAX: usize = 16;
/// The lists of those who wait to be read keep room for so many; what a burst took goes back.
const UNREAD_KEPT: usize = 256;
/// The timer of a connection that was held runs for so many ticks at least: time to read what came.
const RESUMED_TICKS: u16 = 2;
/// Connections in one slice of a tick at most.
const SLICE_MAX: u32 = 4096;
/// A turn deals with so many expired timers at most; the rest are due in the next. What is queued
/// for them takes memory, and the allocator keeps what a burst of it took.
const EXPIRED_MAX: usize = 256;

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// A shard with nothing on it yet.
    pub fn new(ring: R, protocol: P, config: &ShardConfig) -> Self {
        let now = ring.now();
        let mailbox = Arc::new(Mailbox::new(config.mails_max, ring.waker()));
        let slices = config.slices.max(config.conns_max.div_ceil(SLICE_MAX));
        let out = Outbox {
            conns: Slab::new(config.conns_max),
            sends: SendPool::default(),
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
    fn is_empty(&self) -> bool {
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
        let first = [timer, drain, self.accepts.not_before(), self.protocol.wake_at()]
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

    fn push(&mut self, id: ConnId, kind: OpKind, op: Op) {
        let conn = self.out.conns.get_mut(id).expect("there while it operates");
        conn.in_flight.begin(kind);
        self.ring.push(op, Token { kind, id });
    }

    // ---- arriving ----

    /// Keeps accepts armed while there are slots for what they give, as fast as is allowed.
    fn accept(&mut self) {
        let now = self.out.now;
        let turned_away = mem::take(&mut self.out.turned_away);
        if turned_away > 0 {
            self.accepts.pace.give_back(turned_away);
            self.accepts.paced_until = None;
        }
        if self.accepts.not_before().is_some_and(|time| now < time) {
            return;
        }
        (self.accepts.paused_until, self.accepts.paced_until) = (None, None);
        if self.accepts.listening && self.out.gate.admission() == Admission::Wait {
            self.accepts.paused_until = Some(now + ACCEPT_PAUSE);
            return;
        }
        while self.accepts.listening && self.accepts.armed < ACCEPTS_MAX {
            if let Some(next) = self.accepts.pace.wait(now) {
                self.out.counters.accepts_paced.add(1);
                self.accepts.paced_until = Some(next);
                return;
            }
            let Some(id) = self.out.conns.reserve() else { return };
            self.accepts.pace.spend(now);
            self.accepts.armed += 1;
            self.push(id, OpKind::Accept, Op::Accept);
        }
    }

    fn accepted(&mut self, id: ConnId, result: Result<u32, i32>, peer: Option<SocketAddr>) {
        self.accepts.armed -= 1;
        match result {
            Ok(socket) => {
                self.out.conns.get_mut(id).expect("reserved").socket = Socket(socket);
                self.out.counters.accepted.add(1);
                self.opened(id, peer);
            }
            Err(errno) => {
                self.out.conns.free(id);
                self.accept_failed(errno);
            }
        }
    }

    fn accept_failed(&mut self, errno: i32) {
        use nix::errno::Errno;
        match Errno::from_raw(errno) {
            // It had gone before we came to it, or was not let in: errors that were pending on it
            // are passed on (accept(2), "Error handling"), and say nothing of the next one.
            Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::EAGAIN
            | Errno::EINTR => {}
            // The listener is shut down.
            Errno::EINVAL | Errno::EBADF | Errno::ECANCELED => self.accepts.listening = false,
            // Nothing to accept with: what waits stays in the backlog.
            _ => {
                self.out.counters.accept_failed.add(1);
                self.accepts.paused_until = Some(self.out.now + ACCEPT_PAUSE);
            }
        }
    }

    fn connect(&mut self) {
        for _ in 0..CONNECTS_MAX {
            let Some(Connect { id, to, from }) = self.out.connects.pop_front() else { break };
            match self.ring.open(id, to, from) {
                Ok(socket) => {
                    self.out.conns.get_mut(id).expect("reserved").socket = socket;
                    self.push(id, OpKind::Connect, Op::Connect(socket, to));
                }
                Err(errno) => {
                    self.out.conns.free(id);
                    self.protocol.refused(id, errno, &mut self.out);
                }
            }
        }
        self.out.connects.shrink_to(CONNECTS_MAX);
    }

    fn connected(&mut self, id: ConnId, result: Result<u32, i32>) {
        match result {
            Ok(_) => {
                self.out.counters.connected.add(1);
                self.opened(id, None);
            }
            Err(errno) => {
                let conn = self.out.conns.get_mut(id).expect("reserved");
                conn.state = State::Terminating;
                self.protocol.refused(id, errno, &mut self.out);
            }
        }
    }

    fn opened(&mut self, id: ConnId, peer: Option<SocketAddr>) {
        let conn = self.out.conns.get_mut(id).expect("reserved");
        conn.state = State::Open;
        conn.marks.set(Mark::Took);
        self.out.counters.open.add(1);
        let state = self.protocol.opened(id, peer, &mut self.out);
        let index = id.index() as usize;
        if self.states.len() <= index {
            self.states.resize_with(index + 1, || None);
        }
        self.states[index] = Some(state);
        self.wait(id);
        // It was on its way when the drain began.
        if self.drain.is_some() {
            self.leave(id);
        }
    }

    // ---- receiving ----

    /// Waits for input, if nothing is in flight that will lead to it and the connection is not held.
    fn wait(&mut self, id: ConnId) {
        let conn = self.out.conns.get(id).expect("there while it waits");
        let waits = matches!(conn.state, State::Open | State::Lingering) && !conn.held();
        if waits && !conn.reading() {
            let socket = conn.socket;
            self.push(id, OpKind::Poll, Op::Poll(socket));
        }
    }

    fn ready(&mut self, id: ConnId, result: Result<u32, i32>) {
        let conn = self.out.conns.get(id).expect("there while it waits");
        match (conn.state, result) {
            // It is polled again when it is released.
            (State::Open, Ok(_)) if conn.held() => {}
            (State::Open | State::Lingering, Ok(events)) if events & HANG_UP != 0 => {
                self.leaves(id);
            }
            (State::Open | State::Lingering, Ok(_)) => self.read(id),
            (State::Open | State::Lingering, Err(errno)) => self.failed(id, errno),
            _ => {}
        }
    }

    /// Receives what is there, or waits for a buffer to receive it into.
    fn read(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it reads");
        let socket = conn.socket;
        // Whoever waits for a buffer already comes first.
        let lease = if self.starved.is_empty() { self.ring.lease() } else { None };
        match lease {
            Some(lease) => self.receive(id, socket, lease),
            None => {
                conn.marks.set(Mark::Unread);
                self.out.counters.starved.add(1);
                self.starved.push_back(id);
            }
        }
    }

    /// Its peer has hung up: what it has said is read when there is time.
    fn leaves(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it reads");
        conn.marks.set(Mark::Unread);
        self.leaving.push_back(id);
    }

    fn receive(&mut self, id: ConnId, socket: Socket, lease: Lease) {
        self.out.counters.lent.add(1);
        self.push(id, OpKind::Recv, Op::Recv(socket, lease));
    }

    /// Gives buffers to those who wait for one, and then to some of those who leave.
    fn feed(&mut self) {
        let mut starved = mem::take(&mut self.starved);
        self.feed_some(&mut starved, usize::MAX);
        self.starved = starved;
        let mut leaving = mem::take(&mut self.leaving);
        self.feed_some(&mut leaving, LEAVING_MAX);
        self.leaving = leaving;
    }

    fn feed_some(&mut self, unread: &mut VecDeque<ConnId>, most: usize) {
        let mut fed = 0;
        while fed < most
            && let Some(&id) = unread.front()
        {
            let conn = self.out.conns.get_mut(id).filter(|conn| conn.marks.has(Mark::Unread));
            let Some(conn) = conn else {
                unread.pop_front();
                continue;
            };
            if conn.held() {
                conn.marks.clear(Mark::Unread);
                unread.pop_front();
                continue;
            }
            let Some(lease) = self.ring.lease() else { return };
            unread.pop_front();
            conn.marks.clear(Mark::Unread);
            let socket = conn.socket;
            self.receive(id, socket, lease);
            fed += 1;
        }
        unread.shrink_to(UNREAD_KEPT);
    }

    fn received(&mut self, id: ConnId, lease: &Lease, result: Result<u32, i32>) {
        use nix::errno::Errno;
        let conn = self.out.conns.get(id).expect("there while it receives");
        let (state, held) = (conn.state, conn.held());
        match result {
            Ok(0) => self.ended(id),
            Ok(len) if state == State::Open => {
                self.out.counters.receives.add(1);
                self.out.counters.bytes_in.add(u64::from(len));
                if held {
                    return self.keep(id, lease, len as usize);
                }
                self.consume(id, lease, len as usize);
                let full = len as usize == self.ring.buffer(lease).len();
                self.go_on(id, full);
            }
            // Thrown away.
            Ok(_) => self.wait(id),
            Err(errno) => match Errno::from_raw(errno) {
                Errno::EAGAIN | Errno::EINTR => self.wait(id),
                _ => self.failed(id, errno),
            },
        }
    }

    /// Keeps what was on its way when the connection was held.
    fn keep(&mut self, id: ConnId, lease: &Lease, len: usize) {
        let bytes = &self.ring.buffer(lease)[..len];
        let conn = self.out.conns.get_mut(id).expect("there while it receives");
        match conn.tail {
            NONE => conn.tail = self.spill.insert(bytes.to_vec()),
            tail => self.spill.get_mut(tail).extend_from_slice(bytes),
        }
    }

    /// Offers the protocol what was received, behind what it left the last time.
    fn consume(&mut self, id: ConnId, lease: &Lease, len: usize) {
        let conn = self.out.conns.get_mut(id).expect("there while it receives");
        let tail = mem::replace(&mut conn.tail, NONE);
        let bytes = &mut self.ring.buffer(lease)[..len];
        let state = self.states[id.index() as usize].as_mut().expect("open");
        if tail == NONE {
            let consumed = self.protocol.received(id, state, bytes, &mut self.out);
            let conn = self.out.conns.get_mut(id).expect("there while it receives");
            conn.marks.clear(Mark::Resumed);
            if consumed < len && conn.state == State::Open {
                conn.tail = self.spill.insert(bytes[consumed..].to_vec());
            }
        } else {
            self.spill.get_mut(tail).extend_from_slice(bytes);
            self.consume_tail(id, tail);
        }
    }

    fn consume_tail(&mut self, id: ConnId, tail: u32) {
        let state = self.states[id.index() as usize].as_mut().expect("open");
        let bytes = self.spill.get_mut(tail);
        let consumed = self.protocol.received(id, state, bytes, &mut self.out);
        let conn = self.out.conns.get_mut(id).expect("there while it receives");
        conn.marks.clear(Mark::Resumed);
        if consumed == bytes.len() || conn.state != State::Open {
            self.spill.remove(tail);
        } else {
            bytes.drain(..consumed);
            conn.tail = tail;
        }
    }

    /// Reads on, unless the peer is to take what is queued for it first, or the connection is held.
    fn go_on(&mut self, id: ConnId, more_is_there: bool) {
        if self.out.congested(id) {
            self.out.counters.paused.add(1);
        } else if more_is_there && self.out.takes_input(id) {
            self.read(id);
        } else {
            self.wait(id);
        }
    }

    /// Goes on with the input of connections that are held no longer. Those that this releases are
    /// for the next turn.
    fn resume_released(&mut self) {
        for id in mem::take(&mut self.out.released) {
            let Some(conn) = self.out.conns.get_mut(id) else { continue };
            conn.marks.clear(Mark::Released);
            if conn.state == State::Open && !conn.held() {
                conn.marks.set(Mark::Resumed);
                self.out.counters.resumed.add(1);
                // What came meanwhile is yet to be read: its peer is not to be late because of that.
                self.out.timers.defer(id.index(), RESUMED_TICKS);
                self.resume(id);
            }
        }
    }

    /// What input waited for is over, its answers have been sent or it is held no longer: goes on with
    /// it, unless the other is not over.
    fn resume(&mut self, id: ConnId) {
        if !self.out.takes_input(id) {
            return;
        }
        let conn = self.out.conns.get_mut(id).expect("it takes input");
        if conn.reading() {
            return;
        }
        let tail = mem::replace(&mut conn.tail, NONE);
        if tail != NONE {
            self.consume_tail(id, tail);
        }
        if self.out.conns.get(id).is_some() {
            self.go_on(id, false);
        }
    }

    /// The peer has sent its last byte. What is queued for it is still sent.
    fn ended(&mut self, id: ConnId) {
        let conn = self.out.conns.get(id).expect("there while it receives");
        match conn.state {
            State::Open if !conn.queue.is_empty() => self.out.close(id, CloseReason::PeerClosed),
            // It is found again when everything is sent.
            State::Closing if !conn.queue.is_empty() => {}
            _ => self.out.abort(id, CloseReason::PeerClosed),
        }
    }

    /// An operation on the socket failed: the connection is over.
    fn failed(&mut self, id: ConnId, errno: i32) {
        let reason = CloseReason::of_errno(errno);
        if reason == CloseReason::Failed {
            tracing::warn!(errno, conn = id.index(), "closing a connection that the kernel failed");
        }
        self.out.abort(id, reason);
    }

    // ---- sending and ending ----

    /// Sends what this turn queued, and takes what it closed one step further.
    fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.out.dirty);
        for id in dirty.drain(..) {
            let Some(conn) = self.out.conns.get_mut(id) else { continue };
            conn.marks.clear(Mark::Dirty);
            match conn.state {
                State::Open => self.send(id),
                State::Closing if conn.queue.is_empty() => self.finish(id),
                State::Closing => self.send(id),
                State::Terminating => self.terminate(id),
                State::Free | State::Reserved | State::Lingering => {}
            }
        }
        // Nothing of the above marks a connection, so the list stays empty and is used again.
        debug_assert!(self.out.dirty.is_empty());
        self.out.dirty = dirty;
    }

    /// Hands the next piece to the kernel, one at a time: two could overtake each other.
    fn send(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it sends");
        if conn.in_flight.has(OpKind::Send) {
            return;
        }
        let socket = conn.socket;
        if let Some(data) = self.out.sends.take(&mut conn.queue) {
            self.push(id, OpKind::Send, Op::Send { socket, data, at: 0 });
        }
    }

    fn sent(&mut self, id: ConnId, data: SendData, at: u32, result: Result<u32, i32>) {
        use nix::errno::Errno;
        let conn = self.out.conns.get_mut(id).expect("there while it sends");
        let socket = conn.socket;
        let (len, going) = (data.len(), matches!(conn.state, State::Open | State::Closing));
        let sent = match result {
            Ok(sent) => sent,
            Err(errno) if matches!(Errno::from_raw(errno), Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => {
                conn.queue.done(len - at);
                self.out.sends.recycle(data);
                return self.failed(id, errno);
            }
        };
        self.out.counters.bytes_out.add(u64::from(sent));
        // Who takes our last bytes slowly takes them: each piece begins the time anew.
        if sent > 0 && conn.state == State::Closing {
            self.out.set_timer_after(id, self.out.linger);
        }
        let conn = self.out.conns.get_mut(id).expect("there while it sends");
        if sent > 0 {
            conn.marks.set(Mark::Took);
        }
        if at + sent < len && going {
            conn.queue.done(sent);
            self.out.counters.sends_short.add(1);
            return self.push(id, OpKind::Send, Op::Send { socket, data, at: at + sent });
        }
        conn.queue.done(len - at);
        self.out.counters.sends.add(1);
        self.out.sends.recycle(data);
        if !going {
            return;
        }
        let conn = self.out.conns.get(id).expect("there while it sends");
        if conn.queue.has_waiting() || conn.state == State::Closing {
            return self.out.mark(id);
        }
        let state = self.states[id.index() as usize].as_mut().expect("open");
        self.protocol.drained(id, state, &mut self.out);
        self.resume(id);
    }

    /// Everything is sent: FIN, and then the peer's last words are thrown away.
    fn finish(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        conn.state = State::Lingering;
        self.shutdown(id, ShutdownHow::Write);
        self.wait(id);
    }

    fn shutdown(&mut self, id: ConnId, how: ShutdownHow) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        let token = Token { kind: OpKind::Shutdown, id };
        if self.ring.begin_shutdown(conn.socket, how, token) == ShutdownStatus::Pending {
            conn.in_flight.begin(OpKind::Shutdown);
        }
    }

    fn shut_down(&mut self, id: ConnId, result: Result<u32, i32>) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        if result.is_ok() {
            return;
        }
        // Once more, if something still depends on it. A FIN that was not sent does not: the end of
        // the linger comes without it.
        conn.marks.clear(Mark::Shut);
        if conn.state == State::Terminating {
            // Not at once: the machine has nothing left to do it with.
            self.out.timers.set(id.index(), 1);
        }
    }

    /// Ends what is in flight, then the socket.
    fn terminate(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        let socket = conn.socket;
        conn.marks.clear(Mark::Unread);
        if conn.in_flight.is_empty() {
            self.push(id, OpKind::Close, Op::Close(socket));
        } else if conn.in_flight.waits() && !conn.marks.set(Mark::Shut) {
            self.shutdown(id, ShutdownHow::Both);
        }
    }

    fn closed(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there until it is closed");
        let (tail, reason) = (mem::replace(&mut conn.tail, NONE), conn.reason);
        self.out.addresses.leave(conn.place);
        if tail != NONE {
            self.spill.remove(tail);
        }
        self.out.timers.clear(id.index());
        self.out.conns.free(id);
        // A connection that could not be made has no state.
        let state = self.states.get_mut(id.index() as usize).and_then(Option::take);
        if let Some(state) = state {
            let counters = &self.out.counters;
            counters.closed[reason as usize].add(1);
            counters.open.set(counters.open.get() - 1);
            self.protocol.closed(id, state, reason, &mut self.out);
        }
    }

    // ---- time ----

    /// Tells the protocol whose timers ran out, a slice of the connections at a time.
    fn expire(&mut self) {
        for _ in 0..EXPIRED_MAX {
            while self.expired.is_empty() {
                let Outbox { conns, timers, now, due, .. } = &mut self.out;
                *due = timers.next();
                let swept = timers.sweep(*now, |index| self.expired.extend(conns.at(index)));
                if !swept {
                    return;
                }
            }
            let id = self.expired.pop().expect("just made sure");
            // It may have gone since, or been heard of.
            if self.out.conns.get(id).is_some() && !self.out.timers.is_set(id.index()) {
                self.expired(id);
            }
        }
    }

    fn expired(&mut self, id: ConnId) {
        match self.out.conns.get(id).expect("there while it has a timer").state {
            State::Open => {
                let state = self.states[id.index() as usize].as_mut().expect("open");
                self.protocol.expired(id, state, &mut self.out);
            }
            // The machine stood still or is overloaded: the peer may have done its part.
            State::Closing | State::Lingering if self.out.behind(id) => {
                self.out.timers.set(id.index(), 1);
            }
            // The peer takes too long to read our last bytes or to close its side.
            State::Closing | State::Lingering => self.out.abort(id, CloseReason::Finished),
            // It could not be shut down.
            State::Terminating => self.out.mark(id),
            State::Free | State::Reserved => {}
        }
    }

    /// Has the connections leave, as far as the time that has passed allows.
    fn drain(&mut self) {
        if let Some(over) = self.out.drain.take() {
            self.ring.stop_listening();
            self.accepts.listening = false;
            let slots = self.out.conns.len();
            let seed = fastrand::u32(..);
            self.drain = Some(Drain::new(self.out.now, over, self.out.linger, slots, seed));
        }
        let Some(drain) = &mut self.drain else { return };
        let (due, over) = (drain.due(self.out.now), drain.over(self.out.now));
        for index in due {
            if let Some(id) = self.out.conns.at(index) {
                self.leave(id);
            }
        }
        if over || self.is_empty() && self.protocol.may_end() {
            self.out.stopped = true;
        }
    }

    fn leave(&mut self, id: ConnId) {
        if self.out.is_open(id) {
            let state = self.states[id.index() as usize].as_mut().expect("open");
            self.protocol.leave(id, state, &mut self.out);
        }
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
