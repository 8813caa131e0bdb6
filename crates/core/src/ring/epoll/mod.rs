//! A ring on epoll, for kernels that refuse io_uring: readiness, and one system call an operation.
//!
//! Operations run when the shard submits them, in order. So bytes are received before the shard reads
//! its mailbox, as from io_uring: a peer's answer to a mail is received after that mail.
//!
//! A socket is registered once, when it is made, for both directions and edge-triggered: no message
//! takes an `epoll_ctl`. The kernel reports an edge once, so the ring remembers it as [`Readiness`]
//! until a receive has found the socket empty. A send is simply tried; if it finds no room, the kernel
//! reports an edge as soon as there is some.

mod accepting;
mod readiness;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, IntoRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, MsgFlags, SockFlag, SockaddrStorage};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd;

use self::accepting::Acceptor;
use self::readiness::Readiness;
use super::arena::Lease;
use super::common::RingCommon;
use super::config::RingConfig;
use super::operation::{
    Completion, HANG_UP, Lent, Op, OpKind, ShutdownHow, ShutdownStatus, Socket, Token,
};
use super::sockets;
use crate::conn::id::ConnId;

/// The sockets of one shard, watched by one epoll instance.
pub(super) struct Epoll {
    watched: epoll::Epoll,
    pub(super) common: RingCommon,
    /// Operations that have not run yet, in order.
    pushed: Vec<(Op, Token)>,
    completed: VecDeque<Completion>,
    /// By slot: sends whose socket is full, and connects in progress. Each is tried again at the next
    /// edge.
    blocked: HashMap<u32, (Op, Token)>,
    /// By slot.
    readiness: Box<[Readiness]>,
    /// The listeners, to accept from.
    acceptors: Vec<Acceptor>,
    /// Accepts in flight, first come, first served.
    accepts: VecDeque<Token>,
    timer: TimerFd,
    /// The time at which the timer expires, if it is set.
    timer_end: Option<Instant>,
    /// Turns in a row that did not wait for events, because there were completions already.
    turns_without_wait: u32,
    events: Vec<EpollEvent>,
}

/// Bytes that this ring keeps for each connection, idle or not.
pub(super) const CONN_BYTES: usize = size_of::<Readiness>();
const _: () = assert!(CONN_BYTES == 1);

/// Largest number of events in one turn: a turn's work is bounded.
const EVENTS_MAX: usize = 256;
/// A readable socket leads to a receive, and that to a send, each run in the turn after. In between
/// the ring does not ask for events, which saves a quiet server two of three `epoll_wait` a message. A
/// busy server asks at least once in so many turns.
const TURNS_WITHOUT_WAIT_MAX: u32 = 2;
/// Lists keep room for this many entries; memory beyond it is freed after a burst.
const KEPT: usize = 1024;

// The data of an event: a generation of 24 bits and an index of 32, or one of these.
const WAKE: u64 = 1 << 56;
const TIMER: u64 = 2 << 56;
/// With the listener's index in the lower bits.
const LISTENER: u64 = 3 << 56;

/// Both directions of a socket. `EPOLLOUT` costs nothing while no send waits: a socket that has room
/// has no edges.
const BOTH: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(STOPS).union(EpollFlags::EPOLLET);
/// Conditions that a receive into a larger buffer stops before.
const STOPS: EpollFlags = OVER.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLPRI);
/// The connection is over.
const OVER: EpollFlags = EpollFlags::EPOLLHUP.union(EpollFlags::EPOLLERR);

impl Epoll {
    /// Makes a ring.
    ///
    /// # Errors
    /// The kernel's error, usually `EMFILE`.
    pub(super) fn new(config: RingConfig) -> io::Result<Self> {
        let readiness = vec![Readiness::default(); config.max_conns as usize].into_boxed_slice();
        let common = RingCommon::new(config)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let watched = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered as well: each wake and each expiry is an edge, although the counters are
        // never read.
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        watched.add(&common.wake, EpollEvent::new(edges, WAKE))?;
        watched.add(&timer, EpollEvent::new(edges, TIMER))?;
        let acceptors = common.listeners.iter().map(Acceptor::new).collect::<Result<_, _>>()?;
        Ok(Epoll {
            watched,
            common,
            pushed: Vec::new(),
            completed: VecDeque::new(),
            blocked: HashMap::new(),
            readiness,
            acceptors,
            accepts: VecDeque::new(),
            timer,
            timer_end: None,
            turns_without_wait: 0,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
        })
    }

    fn readiness(&mut self, id: ConnId) -> &mut Readiness {
        &mut self.readiness[id.index() as usize]
    }

    fn complete(&mut self, token: Token, result: nix::Result<u32>, lent: Lent) {
        let result = result.map_err(|errno| errno as i32);
        self.completed.push_back(Completion { token, result, lent });
    }

    // ---- operations ----

    fn run_pushed(&mut self) {
        let mut pushed = mem::take(&mut self.pushed);
        for (op, token) in pushed.drain(..) {
            self.run(op, token);
        }
        pushed.shrink_to(KEPT);
        self.pushed = pushed;
    }

    fn run(&mut self, op: Op, token: Token) {
        match op {
            Op::Accept => self.accepts.push_back(token),
            Op::Poll(_) if self.readiness(token.id).has(Readiness::READABLE) => {
                self.complete_poll(token)
            }
            Op::Poll(_) => self.readiness(token.id).set(Readiness::POLLED),
            Op::Recv(socket, lease) => self.receive(socket, lease, token),
            Op::Connect(..) | Op::Send { .. } => self.attempt(op, token),
            Op::Close(socket) => {
                // The kernel removes a closed socket from the set.
                *self.readiness(token.id) = Readiness::default();
                let closed = unistd::close(socket.0 as RawFd);
                self.complete(token, closed.map(|()| 0), Lent::Nothing);
            }
        }
    }

    fn receive(&mut self, socket: Socket, lease: Lease, token: Token) {
        let buffer = self.common.arena.buffer(&lease);
        let received = socket::recv(socket.0 as RawFd, buffer, MsgFlags::MSG_DONTWAIT);
        let whole = buffer.len();
        let readiness = self.readiness(token.id);
        match received {
            // A later receive finds the end again.
            Ok(0) => readiness.set(Readiness::READABLE | Readiness::STOPS),
            // Fewer bytes than the buffer holds: the socket is empty (epoll(7), question 9).
            Ok(len) if len < whole && !readiness.has(Readiness::STOPS) => {
                readiness.clear(Readiness::READABLE);
            }
            Err(Errno::EAGAIN) => {
                readiness.clear(Readiness::READABLE | Readiness::STOPS);
            }
            _ => {}
        }
        self.complete(token, received.map(|len| len as u32), Lent::Buffer(lease));
    }

    /// Tries an operation that may have to wait for its socket.
    fn attempt(&mut self, op: Op, token: Token) {
        let done = match &op {
            Op::Send { socket, data, at } => {
                let rest = &data.bytes()[*at as usize..];
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                socket::send(socket.0 as RawFd, rest, flags)
            }
            // Called again, it returns the outcome.
            Op::Connect(socket, to) => {
                socket::connect(socket.0 as RawFd, &SockaddrStorage::from(*to)).map(|()| 0)
            }
            op => unreachable!("{op:?} does not wait for its socket"),
        };
        if let Err(Errno::EAGAIN | Errno::EINPROGRESS | Errno::EALREADY) = done {
            self.readiness(token.id).set(Readiness::BLOCKED);
            self.blocked.insert(token.id.index(), (op, token));
            return;
        }
        let lent = match op {
            Op::Send { data, at, .. } => Lent::Data(data, at),
            _ => Lent::Nothing,
        };
        self.complete(token, done.map(|sent| sent as u32), lent);
    }

    fn watch(&self, fd: impl AsFd, id: ConnId) -> nix::Result<()> {
        let data = u64::from(id.generation()) << 32 | u64::from(id.index());
        self.watched.add(fd, EpollEvent::new(BOTH, data))
    }

    // ---- events ----

    /// Waits for events, and handles them.
    fn wait(&mut self, timeout: EpollTimeout) -> io::Result<()> {
        let mut events = mem::take(&mut self.events);
        let count = match self.watched.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            match event.data() {
                // It has ended the wait, and needs nothing else.
                WAKE => {}
                TIMER => self.timer_end = None,
                data if data >= LISTENER => self.accept((data - LISTENER) as usize),
                data => {
                    let id = ConnId::new(data as u32, (data >> 32) as u32);
                    self.ready(id, event.events());
                }
            }
        }
        self.events = events;
        Ok(())
    }

    fn ready(&mut self, id: ConnId, events: EpollFlags) {
        let readiness = self.readiness(id);
        if events.intersects(EpollFlags::EPOLLIN | STOPS) {
            readiness.set(Readiness::READABLE);
            if events.intersects(STOPS) {
                readiness.set(Readiness::STOPS);
            }
            if readiness.clear(Readiness::POLLED) {
                let token = Token { kind: OpKind::Poll, id };
                self.complete_poll(token);
            }
        }
        if events.intersects(EpollFlags::EPOLLOUT | OVER)
            && self.readiness(id).clear(Readiness::BLOCKED)
        {
            let (op, token) = self.blocked.remove(&id.index()).expect("flagged as blocked");
            self.attempt(op, token);
            if self.blocked.is_empty() {
                self.blocked.shrink_to(KEPT);
            }
        }
    }

    fn complete_poll(&mut self, token: Token) {
        let stops = self.readiness(token.id).has(Readiness::STOPS);
        self.complete(token, Ok(if stops { HANG_UP } else { 0 }), Lent::Nothing);
    }

    // ---- time ----

    /// Sets the timer to expire after `timeout`, unless it expires sooner. A timeout of the wait
    /// itself would set the machine's timer at each wait.
    fn arm_timer(&mut self, timeout: Duration) -> nix::Result<()> {
        let end = Instant::now() + timeout;
        if self.timer_end.is_some_and(|armed| armed <= end) {
            return Ok(());
        }
        self.timer_end = Some(end);
        self.timer.set(Expiration::OneShot(timeout.into()), TimerSetTimeFlags::empty())
    }

    // ---- the ring ----

    pub(super) fn push(&mut self, op: Op, token: Token) {
        self.pushed.push((op, token));
    }

    pub(super) fn open(
        &mut self,
        id: ConnId,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<Socket, i32> {
        // Watched before it connects; the ring waits for events only after that has begun.
        sockets::open(to, from, self.common.reset_on_close, SockFlag::SOCK_NONBLOCK)
            .and_then(|fd| self.watch(&fd, id).map(|()| Socket(fd.into_raw_fd() as u32)))
            .map_err(|errno| errno as i32)
    }

    pub(super) fn begin_shutdown(
        &mut self,
        socket: Socket,
        how: ShutdownHow,
        _token: Token,
    ) -> ShutdownStatus {
        // The kernel reports an edge for the operations that it ends.
        sockets::shut_down(socket, how);
        ShutdownStatus::Done
    }

    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.run_pushed();
        if !self.completed.is_empty() && self.turns_without_wait < TURNS_WITHOUT_WAIT_MAX {
            self.turns_without_wait += 1;
            return Ok(());
        }
        self.turns_without_wait = 0;
        self.watch_listeners();
        let timeout = if self.completed.is_empty() { timeout } else { Some(Duration::ZERO) };
        match timeout {
            Some(Duration::ZERO) => return self.wait(EpollTimeout::ZERO),
            Some(timeout) => self.arm_timer(timeout)?,
            None => {}
        }
        self.wait(EpollTimeout::NONE)
    }

    pub(super) fn pop(&mut self) -> Option<Completion> {
        let completion = self.completed.pop_front();
        if completion.is_none() {
            self.completed.shrink_to(KEPT);
        }
        completion
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // The shard does not know of connections in completions that it has not read.
        for Completion { token, result, .. } in &self.completed {
            if let (OpKind::Accept, Ok(fd)) = (token.kind, result) {
                let _ = unistd::close(*fd as RawFd);
            }
        }
    }
}
