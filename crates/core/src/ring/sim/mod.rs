//! A [`Ring`] without a kernel, for tests: seeded, in memory, with a clock of its own.
//!
//! It does what a kernel does on a bad day, and it suffers from what a kernel would suffer from: a
//! caller that breaks a rule of [`Ring`] or [`Op`] panics with the rule. A failing test drops it
//! while panicking, and then it prints the last of what happened.

mod fate;
mod faults;
mod log;
mod net;
mod rules;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::arena::{Arena, Lease};
use super::interface::Ring;
use super::operation::{
    Completion, Lent, Op, SendData, ShutdownHow, ShutdownStatus, Socket, Token,
};
use super::wake::Waker;
use crate::conn::id::ConnId;

use fate::Fate;
pub use faults::Faults;
use log::Event;
pub use log::Keep;
use net::Net;
pub use net::{Peer, Read, SimNet, Story};
use rules::Rules;

/// What a simulated ring is made with.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether peers can connect.
    pub listening: bool,
    /// Receive buffers.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_bytes: u32,
    /// Bytes that a connection holds in each direction at most.
    pub socket_bytes: usize,
    /// How long the kernel repeats what an unreachable peer does not acknowledge.
    pub give_up: Duration,
    /// How much of what happens is kept.
    pub keep: Keep,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            seed: 0,
            faults: Faults::none(),
            listening: true,
            buffers: 128,
            buffer_bytes: 4096,
            socket_bytes: 64 * 1024,
            // About what `net.ipv4.tcp_retries2` makes of it.
            give_up: Duration::from_secs(15 * 60),
            keep: Keep::Last,
        }
    }
}

/// The simulated ring. Its peers are at the other side of [`SimRing::net`].
pub struct SimRing {
    net: SimNet,
    rules: Rules,
    arena: Arena,
    /// Not yet seen by the kernel, in order.
    pushed: VecDeque<(Work, Token)>,
    in_flight: Vec<InFlight>,
    completed: VecDeque<Completion>,
    wake: Arc<EventFd>,
}

enum Work {
    Op(Op),
    Shutdown(Socket, ShutdownHow),
}

struct InFlight {
    work: Work,
    token: Token,
    /// Ends before it should.
    spurious: bool,
}

/// How an operation went on: it waits, or it is over.
type Step = Option<Result<u32, Errno>>;

/// How long a turn takes that has something to do.
const TURN: Duration = Duration::from_micros(20);

impl SimRing {
    /// A ring whose network has nobody in it.
    ///
    /// # Errors
    /// Where there is no descriptor for the waker.
    pub fn new(config: &SimConfig) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(SimRing {
            net: SimNet::new(config),
            rules: Rules::default(),
            arena: Arena::new(config.buffers, config.buffer_bytes).expect("memory for buffers"),
            pushed: VecDeque::new(),
            in_flight: Vec::new(),
            completed: VecDeque::new(),
            wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
        })
    }

    /// The network with its peers.
    pub fn net(&self) -> SimNet {
        self.net.clone()
    }

    fn note(&self, event: Event) {
        self.net.net().log.note(event);
    }

    /// Has fate decide, and notes when it is against us.
    fn fate<T>(&self, decide: impl FnOnce(&mut Fate) -> T) -> T {
        let Net { fate, log, .. } = &mut *self.net.net();
        let before = fate.happened().len();
        let decided = decide(fate);
        if log.keeps_all() {
            fate.happened()[before..]
                .iter()
                .for_each(|&(_, what)| log.note(Event::Misfortune(what)));
        }
        decided
    }

    /// Hands some of what was pushed to the kernel.
    fn submit(&mut self) {
        for _ in 0..self.fate(|fate| fate.taken(self.pushed.len())) {
            let (work, token) = self.pushed.pop_front().expect("counted");
            let spurious =
                matches!(work, Work::Op(Op::Poll(_))) && self.fate(Fate::is_ready_for_nothing);
            self.in_flight.push(InFlight { work, token, spurious });
        }
    }

    /// Goes on with what is in flight. Returns whether anything ended.
    fn run(&mut self) -> bool {
        let before = self.completed.len();
        if self.in_flight.len() > 1
            && let Some(mut rng) = self.fate(Fate::reorders)
        {
            rng.shuffle(&mut self.in_flight);
        }
        for mut operation in std::mem::take(&mut self.in_flight) {
            let step = match self.fate(Fate::is_late) {
                true => None,
                false => self.step(&mut operation),
            };
            match step {
                None => self.in_flight.push(operation),
                Some(result) => self.complete(operation, result),
            }
        }
        self.completed.len() > before
    }

    fn complete(&mut self, operation: InFlight, result: Result<u32, Errno>) {
        let InFlight { work, token, .. } = operation;
        let lent = match work {
            Work::Op(Op::Recv(_, lease)) => Lent::Buffer(lease),
            Work::Op(Op::Send { data, at, .. }) => Lent::Data(data, at),
            Work::Op(Op::Accept) => match result {
                Ok(socket) => Lent::Peer(self.net.net().peer_address(Socket(socket))),
                Err(_) => Lent::Nothing,
            },
            _ => Lent::Nothing,
        };
        self.note(Event::Done(token, result));
        let result = result.map_err(|errno| errno as i32);
        self.completed.push_back(Completion { token, result, lent });
    }

    fn step(&mut self, operation: &mut InFlight) -> Step {
        let InFlight { work, token, spurious } = operation;
        let op = match work {
            Work::Op(op) => op,
            Work::Shutdown(socket, how) => return Some(self.step_shutdown(*socket, *how)),
        };
        match op {
            Op::Accept => self.step_accept(token.id),
            Op::Connect(socket, to) => Some(self.step_connect(*socket, *to)),
            Op::Poll(socket) => match self.net.net().readable(*socket) {
                0 if !*spurious => None,
                events => Some(Ok(events)),
            },
            Op::Recv(socket, lease) => Some(self.step_recv(*socket, lease)),
            Op::Send { socket, data, at } => self.step_send(*socket, data, *at),
            Op::Close(socket) => {
                self.net.net().close(*socket);
                Some(self.fate(Fate::close_fails).map_or(Ok(0), Err))
            }
        }
    }

    fn step_accept(&mut self, id: ConnId) -> Step {
        if !self.net.net().listening {
            return Some(Err(Errno::EINVAL));
        }
        if let Some(errno) = self.fate(Fate::accept_fails) {
            return Some(Err(errno));
        }
        if !self.net.net().has_backlog() {
            return None;
        }
        if let Some(errno) = self.fate(Fate::aborts) {
            self.net.net().abort_next();
            return Some(Err(errno));
        }
        let socket = self.net.net().accept(id);
        socket.map(|socket| Ok(socket.0))
    }

    fn step_connect(&mut self, socket: Socket, to: SocketAddr) -> Result<u32, Errno> {
        if let Some(errno) = self.fate(Fate::connect_fails) {
            return Err(errno);
        }
        self.net.net().connect(socket, to).map(|()| 0)
    }

    fn step_recv(&mut self, socket: Socket, lease: &Lease) -> Result<u32, Errno> {
        self.misfortune(socket).map_or(Ok(()), Err)?;
        let there = self.net.net().waiting(socket).min(self.arena.buffer(lease).len());
        let len = self.fate(|fate| fate.cut(there));
        // With nothing there it still looks for the end.
        let buffer = &mut self.arena.buffer(lease)[..len.max(1)];
        self.net.net().recv(socket, buffer)
    }

    fn step_send(&mut self, socket: Socket, data: &SendData, at: u32) -> Step {
        if let Some(errno) = self.misfortune(socket) {
            return Some(Err(errno));
        }
        let rest = &data.bytes()[at as usize..];
        let len = self.fate(|fate| fate.cut(rest.len()));
        match self.net.net().send(socket, &rest[..len]) {
            Ok(0) => None,
            sent => Some(sent),
        }
    }

    /// Why a receive or a send does not even begin.
    fn misfortune(&mut self, socket: Socket) -> Option<Errno> {
        if let Some(errno) = self.fate(Fate::interrupts) {
            return Some(errno);
        }
        let errno = self.fate(Fate::breaks)?;
        self.net.net().note_broken(socket);
        Some(errno)
    }

    fn step_shutdown(&mut self, socket: Socket, how: ShutdownHow) -> Result<u32, Errno> {
        if let Some(errno) = self.fate(Fate::shutdown_fails) {
            return Err(errno);
        }
        self.net.net().shutdown(socket, how);
        Ok(0)
    }

    /// Nothing can complete: the kernel waits, and time passes.
    fn sleep(&mut self, timeout: Option<Duration>) {
        let late = match timeout {
            Some(timeout) if !timeout.is_zero() => self.fate(Fate::oversleeps),
            _ => 0,
        };
        let Net { now, until, .. } = &mut *self.net.net();
        let end = timeout.map_or(*until, |timeout| *now + timeout);
        *now = end.min(*until).max(*now) + Duration::from_millis(late);
    }
}

impl Ring for SimRing {
    fn push(&mut self, op: Op, token: Token) {
        if std::thread::panicking() {
            // The shard was stopped in the middle of something: no rules can be expected of it.
            return;
        }
        self.rules.pushed(&op, token, &self.net.net());
        let bytes = if let Op::Send { data, at, .. } = &op { data.len() - at } else { 0 };
        self.note(Event::Pushed(token, bytes));
        self.pushed.push_back((Work::Op(op), token));
    }

    fn open(&mut self, id: ConnId, _to: SocketAddr, _from: Option<IpAddr>) -> Result<Socket, i32> {
        match self.fate(Fate::open_fails) {
            Some(errno) => Err(errno as i32),
            None => Ok(self.net.net().socket(id, None)),
        }
    }

    fn begin_shutdown(&mut self, socket: Socket, how: ShutdownHow, token: Token) -> ShutdownStatus {
        self.note(Event::Shutdown(token, how));
        if self.fate(Fate::shutdown_is_slow) {
            self.rules.begin(token, Some(socket), &self.net.net());
            self.pushed.push_back((Work::Shutdown(socket, how), token));
            return ShutdownStatus::Pending;
        }
        let owner = self.net.net().owner(socket);
        assert_eq!(owner, Some(token.id), "rule: an open socket of its own is shut down");
        self.net.net().shutdown(socket, how);
        ShutdownStatus::Done
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.rules.broken.is_some() || std::thread::panicking() {
            // Dropped next, or `pop` says what is wrong.
            return Ok(());
        }
        let at = self.net.net().since_start();
        self.note(Event::Turn(at));
        self.submit();
        // Whoever was woken looks for mail anyway; the count goes back to zero.
        let woken = self.wake.read().is_ok();
        if self.run() || woken || !self.pushed.is_empty() {
            if !self.fate(Fate::clock_is_frozen) {
                self.net.net().now += TURN;
            }
        } else if !self.fate(Fate::wakes) {
            self.sleep(timeout);
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion> {
        assert!(self.rules.broken.is_none(), "{:?}", self.rules.broken);
        if self.completed.len() > 1
            && let Some(mut rng) = self.fate(Fate::reorders)
        {
            let first = rng.usize(0..self.completed.len());
            self.completed.swap(0, first);
        }
        let completion = self.completed.pop_front()?;
        self.rules.popped(completion.token);
        Some(completion)
    }

    fn lease(&mut self) -> Option<Lease> {
        let lease = self.arena.lease()?;
        // What is behind the bytes received is not input.
        self.arena.buffer(&lease).fill(0xAA);
        self.net.net().leases_out += 1;
        Some(lease)
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.arena.buffer(lease)
    }

    fn give_back(&mut self, lease: Lease) {
        self.net.net().leases_out -= 1;
        self.arena.give_back(lease);
    }

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.wake))
    }

    fn listens(&self) -> bool {
        self.net.net().listening
    }

    fn stop_listening(&mut self) {
        self.net.net().stop_listening();
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        if std::thread::panicking() && self.net.net().log.is_printed() {
            self.net.log().iter().for_each(|line| eprintln!("{line}"));
        }
        self.net.net().close_all();
    }
}
