//! A [`Ring`] without a kernel, for tests: seeded, in memory, with a clock of its own.
//!
//! It does what a kernel does on a bad day, and it suffers from what a kernel would suffer from: a
//! caller that breaks a rule of [`Ring`] or [`Op`] panics with the rule. A failing test drops it
//! while panicking, and then it prints the last of what happened.

mod faults;
mod net;
mod rules;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::arena::{Arena, Lease};
use super::{Completion, Lent, Op, Ring, SendData, Shut, ShutDown, Socket, Token, Waker};
use crate::id::ConnId;

use faults::Fate;
pub use faults::Faults;
use net::Net;
pub use net::{Peer, Read, SimNet};
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
        }
    }
}

/// The simulated ring. Its peers are at the other side of [`SimRing::net`].
pub struct SimRing {
    net: SimNet,
    fate: Fate,
    rules: Rules,
    arena: Arena,
    /// Not yet seen by the kernel, in order.
    pushed: VecDeque<(Work, Token)>,
    in_flight: Vec<InFlight>,
    completed: Vec<Completion>,
    wake: Arc<EventFd>,
    /// The last of what happened.
    events: VecDeque<Event>,
}

/// What a failing test prints.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
enum Event {
    Pushed(Token),
    Shut(Token, Shut),
    Done(Token, Result<u32, Errno>),
}

enum Work {
    Op(Op),
    Shut(Socket, Shut),
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
/// How many events a failure prints.
const EVENTS_KEPT: usize = 60;

impl SimRing {
    /// A ring whose network has nobody in it.
    ///
    /// # Errors
    /// Where there is no descriptor for the waker.
    pub fn new(config: &SimConfig) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(SimRing {
            net: SimNet::new(config.listening, config.socket_bytes),
            fate: Fate { rng: Rng::with_seed(config.seed), faults: config.faults },
            rules: Rules::default(),
            arena: Arena::new(config.buffers, config.buffer_bytes).expect("memory for buffers"),
            pushed: VecDeque::new(),
            in_flight: Vec::new(),
            completed: Vec::new(),
            wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
            events: VecDeque::new(),
        })
    }

    /// The network with its peers.
    pub fn net(&self) -> SimNet {
        self.net.clone()
    }

    fn note(&mut self, event: Event) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Hands some of what was pushed to the kernel.
    fn submit(&mut self) {
        for _ in 0..self.fate.taken(self.pushed.len()) {
            let (work, token) = self.pushed.pop_front().expect("counted");
            let spurious = self.fate.chance(self.fate.faults.spurious_ready);
            self.in_flight.push(InFlight { work, token, spurious });
        }
    }

    /// Goes on with what is in flight, in any order. Returns whether anything ended.
    fn run(&mut self) -> bool {
        let before = self.completed.len();
        self.fate.rng.shuffle(&mut self.in_flight);
        for mut operation in std::mem::take(&mut self.in_flight) {
            let step = match self.fate.chance(self.fate.faults.late) {
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
        self.completed.push(Completion { token, result, lent });
    }

    fn step(&mut self, operation: &mut InFlight) -> Step {
        let InFlight { work, token, spurious } = operation;
        let op = match work {
            Work::Op(op) => op,
            Work::Shut(socket, how) => return Some(self.step_shut(*socket, *how)),
        };
        match op {
            Op::Accept => self.step_accept(token.id),
            Op::Connect(socket, to) => Some(self.step_connect(*socket, *to)),
            Op::Poll(socket) => (*spurious || self.net.net().readable(*socket)).then_some(Ok(1)),
            Op::Recv(socket, lease) => Some(self.step_recv(*socket, lease)),
            Op::Send { socket, data, at } => self.step_send(*socket, data, *at),
            Op::Close(socket) => {
                self.net.net().close(*socket);
                Some(Ok(0))
            }
        }
    }

    fn step_accept(&mut self, id: ConnId) -> Step {
        if !self.net.net().listening {
            return Some(Err(Errno::EINVAL));
        }
        if let Some(errno) = self.fate.accept_fails() {
            return Some(Err(errno));
        }
        let socket = self.net.net().accept(id);
        socket.map(|socket| Ok(socket.0))
    }

    fn step_connect(&mut self, socket: Socket, to: SocketAddr) -> Result<u32, Errno> {
        if let Some(errno) = self.fate.connect_fails() {
            return Err(errno);
        }
        self.net.net().connect(socket, to).map(|()| 0)
    }

    fn step_recv(&mut self, socket: Socket, lease: &Lease) -> Result<u32, Errno> {
        if let Some(errno) = self.fate.misfortune() {
            return Err(errno);
        }
        let buffer = self.arena.buffer(lease);
        let len = self.fate.cut(buffer.len());
        self.net.net().recv(socket, &mut buffer[..len])
    }

    fn step_send(&mut self, socket: Socket, data: &SendData, at: u32) -> Step {
        if let Some(errno) = self.fate.misfortune() {
            return Some(Err(errno));
        }
        let rest = &data.bytes()[at as usize..];
        let len = self.fate.cut(rest.len());
        match self.net.net().send(socket, &rest[..len]) {
            Ok(0) => None,
            sent => Some(sent),
        }
    }

    fn step_shut(&mut self, socket: Socket, how: Shut) -> Result<u32, Errno> {
        if self.fate.chance(self.fate.faults.shutdown) {
            return Err(Errno::EMFILE);
        }
        self.net.net().shutdown(socket, how);
        Ok(0)
    }

    /// Nothing can complete: the kernel waits, and time passes.
    fn sleep(&mut self, timeout: Option<Duration>) {
        let Net { now, until, .. } = &mut *self.net.net();
        let end = timeout.map_or(*until, |timeout| *now + timeout);
        *now = end.min(*until).max(*now);
    }
}

impl Ring for SimRing {
    fn push(&mut self, op: Op, token: Token) {
        self.rules.pushed(&op, token, &self.net.net());
        self.note(Event::Pushed(token));
        self.pushed.push_back((Work::Op(op), token));
    }

    fn open(&mut self, id: ConnId, _to: SocketAddr, _from: Option<IpAddr>) -> Result<Socket, i32> {
        match self.fate.chance(self.fate.faults.connect) {
            true => Err(Errno::EMFILE as i32),
            false => Ok(self.net.net().socket(id, None)),
        }
    }

    fn shutdown(&mut self, socket: Socket, how: Shut, token: Token) -> ShutDown {
        self.note(Event::Shut(token, how));
        if self.fate.chance(self.fate.faults.slow_shutdown) {
            self.rules.begin(token, Some(socket), &self.net.net());
            self.pushed.push_back((Work::Shut(socket, how), token));
            return ShutDown::Pending;
        }
        let owner = self.net.net().owner(socket);
        assert_eq!(owner, Some(token.id), "rule: an open socket of its own is shut down");
        self.net.net().shutdown(socket, how);
        ShutDown::Done
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.rules.broken.is_some() {
            // Dropped next, or `pop` says what is wrong.
            return Ok(());
        }
        self.submit();
        // Whoever was woken looks for mail anyway; the count goes back to zero.
        let woken = self.wake.read().is_ok();
        if self.run() || woken || !self.pushed.is_empty() {
            self.net.net().now += TURN;
        } else {
            self.sleep(timeout);
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion> {
        assert!(self.rules.broken.is_none(), "{:?}", self.rules.broken);
        if self.completed.is_empty() {
            return None;
        }
        let completion = self.completed.swap_remove(self.fate.rng.usize(0..self.completed.len()));
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
        if std::thread::panicking() {
            self.events.iter().for_each(|event| eprintln!("{event:?}"));
        }
        self.net.net().close_all();
    }
}
