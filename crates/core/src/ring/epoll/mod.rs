//! The [`Ring`] of a kernel that refuses io_uring: readiness from epoll, and system calls.
//!
//! What is pushed runs when the shard submits it, in order. So bytes are received before the shard
//! collects its mail, as from io_uring: a peer's answer to what a mail says comes after the mail.
//!
//! A socket is registered once, when it is made, for both directions and edge-triggered: no message
//! takes an `epoll_ctl`. An edge is told once, so what it said is [`Known`] until a receive has
//! found it over. A send is simply tried; that which finds no room leaves the kernel with an edge to
//! tell when there is some.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, IntoRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{self, MsgFlags, SockFlag, SockaddrStorage};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd;

use super::arena::{Arena, Lease};
use super::kernel::RingConfig;
use super::{
    Completion, HANG_UP, Lent, Op, OpKind, Ring, Shut, ShutDown, Socket, Token, Waker, sockets,
};
use crate::conn::id::ConnId;
use crate::listener::Listener;

/// One set of sockets that are watched, and the calls that are made on them.
pub(super) struct Epoll {
    watched: epoll::Epoll,
    /// Not run yet, in order.
    pushed: Vec<(Op, Token)>,
    completed: VecDeque<Completion>,
    /// By slot: sends whose socket is full, and connects under way. Each is tried again at the next
    /// edge.
    blocked: HashMap<u32, (Op, Token)>,
    /// By slot.
    known: Box<[Known]>,
    arena: Arena,
    listener: Option<Listener>,
    /// The listener, to accept from.
    door: Option<TcpListener>,
    /// Accepts in flight, first come, first served.
    accepts: VecDeque<Token>,
    /// The listener is watched, which it is only while there are accepts.
    listening: bool,
    reset_on_close: bool,
    wake: Arc<EventFd>,
    timer: TimerFd,
    /// When it goes off, if it is set.
    timer_end: Option<Instant>,
    /// How often in a row nobody looked for events, because there was something to do already.
    not_looked: u32,
    events: Vec<EpollEvent>,
}

/// What is known of a slot's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known(u8);

impl Known {
    /// A poll is in flight.
    const POLLED: u8 = 1;
    /// An edge has told of something to read, and no receive has found the socket empty since.
    const READABLE: u8 = 2;
    /// Behind what there is to read is something that a receive stops at, and of which there will
    /// be no other edge: the peer's FIN, an error, urgent data. Only a receive that finds nothing at
    /// all ends it.
    const STOPS: u8 = 4;
    /// An operation on it is blocked.
    const BLOCKED: u8 = 8;

    fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    fn learn(&mut self, what: u8) {
        self.0 |= what;
    }

    /// Returns whether it was known.
    fn forget(&mut self, what: u8) -> bool {
        let knew = self.has(what);
        self.0 &= !what;
        knew
    }
}

/// Bytes that this ring keeps for each connection, idle or not.
pub(super) const CONN_BYTES: usize = size_of::<Known>();
const _: () = assert!(CONN_BYTES == 1);

/// Events of one turn at most: a turn's work is bounded.
const EVENTS_MAX: usize = 256;
/// A readiness leads to a receive and that to a send, each run by the turn after: meanwhile nobody
/// looks for more, which spares a quiet server two of three looks for a message. A busy one looks
/// every so many turns.
const NOT_LOOKED_MAX: u32 = 2;
/// Lists keep room for so many; what a burst took goes back.
const KEPT: usize = 1024;

// What an event is about: a generation of 24 bits and an index of 32, or one of these.
const WAKE: u64 = 1 << 56;
const TIMER: u64 = 2 << 56;
const LISTENER: u64 = 3 << 56;

/// With both directions, because what nobody waits for has no edges: a socket has room until a send
/// finds none.
const BOTH: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(STOPS).union(EpollFlags::EPOLLET);
/// What a receive of less than its buffer does not get to.
const STOPS: EpollFlags = OVER.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLPRI);
const OVER: EpollFlags = EpollFlags::EPOLLHUP.union(EpollFlags::EPOLLERR);

impl Epoll {
    /// Makes a ring.
    ///
    /// # Errors
    /// What the kernel says, `EMFILE` above all.
    pub(super) fn new(config: RingConfig) -> io::Result<Self> {
        let wake =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let watched = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edges again: each wake and each end of the timer is one, though nobody reads how many.
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        watched.add(&wake, EpollEvent::new(edges, WAKE))?;
        watched.add(&timer, EpollEvent::new(edges, TIMER))?;
        let door = match &config.listener {
            Some(listener) => Some(TcpListener::from(listener.as_fd().try_clone_to_owned()?)),
            None => None,
        };
        if let Some(door) = &door {
            // Another ring may have taken what this one is told of.
            door.set_nonblocking(true)?;
        }
        Ok(Epoll {
            watched,
            pushed: Vec::new(),
            completed: VecDeque::new(),
            blocked: HashMap::new(),
            known: vec![Known::default(); config.conns_max as usize].into_boxed_slice(),
            arena: Arena::new(config.buffers, config.buffer_bytes)?,
            listener: config.listener,
            door,
            accepts: VecDeque::new(),
            listening: false,
            reset_on_close: config.reset_on_close,
            wake: Arc::new(wake),
            timer,
            timer_end: None,
            not_looked: 0,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
        })
    }

    fn known(&mut self, id: ConnId) -> &mut Known {
        &mut self.known[id.index() as usize]
    }

    fn complete(&mut self, token: Token, result: nix::Result<u32>, lent: Lent) {
        let result = result.map_err(|errno| errno as i32);
        self.completed.push_back(Completion { token, result, lent });
    }

    // ---- what the shard asks ----

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
            Op::Poll(_) if self.known(token.id).has(Known::READABLE) => self.complete_poll(token),
            Op::Poll(_) => self.known(token.id).learn(Known::POLLED),
            Op::Recv(socket, lease) => self.receive(socket, lease, token),
            Op::Connect(..) | Op::Send { .. } => self.attempt(op, token),
            Op::Close(socket) => {
                // It leaves the set by itself.
                *self.known(token.id) = Known::default();
                let closed = unistd::close(socket.0 as RawFd);
                self.complete(token, closed.map(|()| 0), Lent::Nothing);
            }
        }
    }

    fn receive(&mut self, socket: Socket, lease: Lease, token: Token) {
        let buffer = self.arena.buffer(&lease);
        let received = socket::recv(socket.0 as RawFd, buffer, MsgFlags::MSG_DONTWAIT);
        let whole = buffer.len();
        let known = self.known(token.id);
        match received {
            // It is the end for whoever asks again, too.
            Ok(0) => known.learn(Known::READABLE | Known::STOPS),
            // Less than there was room for is all that there was (epoll(7), question 9).
            Ok(len) if len < whole && !known.has(Known::STOPS) => {
                known.forget(Known::READABLE);
            }
            Err(Errno::EAGAIN) => {
                known.forget(Known::READABLE | Known::STOPS);
            }
            _ => {}
        }
        self.complete(token, received.map(|len| len as u32), Lent::Buffer(lease));
    }

    /// Tries what may have to wait for its socket.
    fn attempt(&mut self, op: Op, token: Token) {
        let done = match &op {
            Op::Send { socket, data, at } => {
                let rest = &data.bytes()[*at as usize..];
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                socket::send(socket.0 as RawFd, rest, flags)
            }
            // Again, it says what has come of it.
            Op::Connect(socket, to) => {
                socket::connect(socket.0 as RawFd, &SockaddrStorage::from(*to)).map(|()| 0)
            }
            op => unreachable!("{op:?} does not wait for its socket"),
        };
        if let Err(Errno::EAGAIN | Errno::EINPROGRESS | Errno::EALREADY) = done {
            self.known(token.id).learn(Known::BLOCKED);
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
        let about = u64::from(id.generation()) << 32 | u64::from(id.index());
        self.watched.add(fd, EpollEvent::new(BOTH, about))
    }

    // ---- what the kernel says ----

    /// Waits for events, and acts on them.
    fn look(&mut self, timeout: EpollTimeout) -> io::Result<()> {
        let mut events = mem::take(&mut self.events);
        let count = match self.watched.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            match event.data() {
                // It has woken: there is nothing else to it.
                WAKE => {}
                TIMER => self.timer_end = None,
                LISTENER => self.accept(),
                about => {
                    let id = ConnId::new(about as u32, (about >> 32) as u32);
                    self.ready(id, event.events());
                }
            }
        }
        self.events = events;
        Ok(())
    }

    fn ready(&mut self, id: ConnId, events: EpollFlags) {
        let known = self.known(id);
        if events.intersects(EpollFlags::EPOLLIN | STOPS) {
            known.learn(Known::READABLE);
            if events.intersects(STOPS) {
                known.learn(Known::STOPS);
            }
            if known.forget(Known::POLLED) {
                let token = Token { kind: OpKind::Poll, id };
                self.complete_poll(token);
            }
        }
        if events.intersects(EpollFlags::EPOLLOUT | OVER) && self.known(id).forget(Known::BLOCKED) {
            let (op, token) = self.blocked.remove(&id.index()).expect("known to be there");
            self.attempt(op, token);
            if self.blocked.is_empty() {
                self.blocked.shrink_to(KEPT);
            }
        }
    }

    fn complete_poll(&mut self, token: Token) {
        let stops = self.known(token.id).has(Known::STOPS);
        self.complete(token, Ok(if stops { HANG_UP } else { 0 }), Lent::Nothing);
    }

    // ---- accepting ----

    /// Watches the listener while there are accepts for what it gives.
    ///
    /// Of the rings that wait for one listener the kernel wakes only one for a connection
    /// (`EPOLLEXCLUSIVE`, since 4.5): the first of those that sleep. Each joins the end of that
    /// queue anew when it has accepted something, which deals connections out. One that has no
    /// accepts left is not in it, so that it cannot be woken in place of another.
    fn listen(&mut self) {
        let Some(door) = &self.door else { return };
        if self.listening || self.accepts.is_empty() {
            return;
        }
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        match self.watched.add(door, EpollEvent::new(events, LISTENER)) {
            Ok(()) => self.listening = true,
            Err(errno) => {
                while let Some(token) = self.accepts.pop_front() {
                    self.complete(token, Err(errno), Lent::Nothing);
                }
            }
        }
    }

    /// Accepts as many connections as are waiting, and as there are accepts for.
    fn accept(&mut self) {
        let door = self.door.take().expect("it is watched");
        while let Some(&token) = self.accepts.front() {
            let accepted = match door.accept() {
                // Another ring was faster, or that was all.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                accepted => {
                    accepted.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
                }
            };
            self.accepts.pop_front();
            let watched = accepted.and_then(|(stream, peer)| {
                self.watch(&stream, token.id)?;
                Ok((stream.into_raw_fd() as u32, peer))
            });
            match watched {
                Ok((socket, peer)) => self.complete(token, Ok(socket), Lent::Peer(peer)),
                Err(errno) => self.complete(token, Err(errno), Lent::Nothing),
            }
        }
        self.listening = self.watched.delete(&door).is_err();
        self.door = Some(door);
    }

    // ---- time ----

    /// Has the timer go off by then, unless it does already. Setting it for each wait, as a timeout
    /// of the wait itself does, sets the machine's timer each time.
    fn arm_timer(&mut self, timeout: Duration) -> nix::Result<()> {
        let end = Instant::now() + timeout;
        if self.timer_end.is_some_and(|armed| armed <= end) {
            return Ok(());
        }
        self.timer_end = Some(end);
        self.timer.set(Expiration::OneShot(timeout.into()), TimerSetTimeFlags::empty())
    }
}

impl Ring for Epoll {
    fn push(&mut self, op: Op, token: Token) {
        self.pushed.push((op, token));
    }

    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32> {
        // It is watched from before it connects; nobody looks until it has begun to.
        sockets::open(to, from, self.reset_on_close, SockFlag::SOCK_NONBLOCK)
            .and_then(|fd| self.watch(&fd, id).map(|()| Socket(fd.into_raw_fd() as u32)))
            .map_err(|errno| errno as i32)
    }

    fn shutdown(&mut self, socket: Socket, how: Shut, _token: Token) -> ShutDown {
        // What it ends is told by an edge.
        sockets::shut_down(socket, how);
        ShutDown::Done
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.run_pushed();
        if !self.completed.is_empty() && self.not_looked < NOT_LOOKED_MAX {
            self.not_looked += 1;
            return Ok(());
        }
        self.not_looked = 0;
        self.listen();
        let timeout = if self.completed.is_empty() { timeout } else { Some(Duration::ZERO) };
        match timeout {
            Some(Duration::ZERO) => return self.look(EpollTimeout::ZERO),
            Some(timeout) => self.arm_timer(timeout)?,
            None => {}
        }
        self.look(EpollTimeout::NONE)
    }

    fn pop(&mut self) -> Option<Completion> {
        let completion = self.completed.pop_front();
        if completion.is_none() {
            self.completed.shrink_to(KEPT);
        }
        completion
    }

    fn lease(&mut self) -> Option<Lease> {
        self.arena.lease()
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.arena.buffer(lease)
    }

    fn give_back(&mut self, lease: Lease) {
        self.arena.give_back(lease);
    }

    fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.wake))
    }

    fn listens(&self) -> bool {
        self.listener.is_some()
    }

    fn stop_listening(&mut self) {
        if let Some(listener) = &self.listener {
            listener.stop();
        }
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // Who was accepted and has not been told of is nobody's yet.
        for Completion { token, result, .. } in &self.completed {
            if let (OpKind::Accept, Ok(fd)) = (token.kind, result) {
                let _ = unistd::close(*fd as RawFd);
            }
        }
    }
}

#[cfg(test)]
mod tests;
