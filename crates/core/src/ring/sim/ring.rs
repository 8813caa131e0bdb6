//! The simulated ring.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::config::SimConfig;
use super::injector::Injector;
use super::log::SimEvent;
use super::net::Net;
use super::peers::SimNet;
use super::rules::Rules;
use crate::conn::id::ConnId;
use crate::ring::arena::{Arena, Lease};
use crate::ring::interface::Ring;
use crate::ring::operation::{
    Completion, Lent, Op, SendData, ShutdownHow, ShutdownStatus, Socket, Token,
};
use crate::ring::wake::Waker;

/// The simulated ring. Its peers are behind [`SimRing::net`].
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
    /// Whether a poll completes although there is nothing to read.
    spurious: bool,
}

/// The outcome of one step of an operation: `None` while it waits.
type Step = Option<Result<u32, Errno>>;

/// The time that a turn with completions takes.
const TURN: Duration = Duration::from_micros(20);

impl SimRing {
    /// Makes a ring whose network has no peers.
    ///
    /// # Errors
    /// `EMFILE` if there is no descriptor for the waker.
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

    /// The network, to make and move peers with.
    pub fn net(&self) -> SimNet {
        self.net.clone()
    }

    fn note(&self, event: SimEvent) {
        self.net.net().log.note(event);
    }

    /// Lets the injector decide, and logs the fault if it injects one.
    fn decide<T>(&self, decide: impl FnOnce(&mut Injector) -> T) -> T {
        let Net { injector, log, .. } = &mut *self.net.net();
        let before = injector.injected().len();
        let decided = decide(injector);
        if log.keeps_all() {
            injector.injected()[before..]
                .iter()
                .for_each(|&(_, name)| log.note(SimEvent::Fault(name)));
        }
        decided
    }

    /// Hands some of the pushed operations to the kernel.
    fn submit(&mut self) {
        for _ in 0..self.decide(|injector| injector.taken(self.pushed.len())) {
            let (work, token) = self.pushed.pop_front().expect("counted");
            let spurious =
                matches!(work, Work::Op(Op::Poll(_))) && self.decide(Injector::is_spuriously_ready);
            self.in_flight.push(InFlight { work, token, spurious });
        }
    }

    /// Advances the operations in flight. Returns whether one has completed.
    fn run(&mut self) -> bool {
        let before = self.completed.len();
        if self.in_flight.len() > 1
            && let Some(mut rng) = self.decide(Injector::reorder)
        {
            rng.shuffle(&mut self.in_flight);
        }
        for mut operation in std::mem::take(&mut self.in_flight) {
            let step = match self.decide(Injector::is_late) {
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
        self.note(SimEvent::Done(token, result));
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
                Some(self.decide(Injector::close_error).map_or(Ok(0), Err))
            }
        }
    }

    fn step_accept(&mut self, id: ConnId) -> Step {
        if !self.net.net().listening {
            return Some(Err(Errno::EINVAL));
        }
        if let Some(errno) = self.decide(Injector::accept_error) {
            return Some(Err(errno));
        }
        if !self.net.net().has_backlog() {
            return None;
        }
        if let Some(errno) = self.decide(Injector::abort_error) {
            self.net.net().abort_next();
            return Some(Err(errno));
        }
        let socket = self.net.net().accept(id);
        socket.map(|socket| Ok(socket.0))
    }

    fn step_connect(&mut self, socket: Socket, to: SocketAddr) -> Result<u32, Errno> {
        if let Some(errno) = self.decide(Injector::connect_error) {
            return Err(errno);
        }
        self.net.net().connect(socket, to).map(|()| 0)
    }

    fn step_recv(&mut self, socket: Socket, lease: &Lease) -> Result<u32, Errno> {
        self.failure(socket).map_or(Ok(()), Err)?;
        let there = self.net.net().waiting(socket).min(self.arena.buffer(lease).len());
        let len = self.decide(|injector| injector.transferred(there));
        // Without bytes to read it still finds the end.
        let buffer = &mut self.arena.buffer(lease)[..len.max(1)];
        self.net.net().recv(socket, buffer)
    }

    fn step_send(&mut self, socket: Socket, data: &SendData, at: u32) -> Step {
        if let Some(errno) = self.failure(socket) {
            return Some(Err(errno));
        }
        let rest = &data.bytes()[at as usize..];
        let len = self.decide(|injector| injector.transferred(rest.len()));
        match self.net.net().send(socket, &rest[..len]) {
            Ok(0) => None,
            sent => Some(sent),
        }
    }

    /// The error of a receive or a send that fails before it begins.
    fn failure(&mut self, socket: Socket) -> Option<Errno> {
        if let Some(errno) = self.decide(Injector::interrupt) {
            return Some(errno);
        }
        let errno = self.decide(Injector::breakage)?;
        self.net.net().note_broken(socket);
        Some(errno)
    }

    fn step_shutdown(&mut self, socket: Socket, how: ShutdownHow) -> Result<u32, Errno> {
        if let Some(errno) = self.decide(Injector::shutdown_error) {
            return Err(errno);
        }
        self.net.net().shutdown(socket, how);
        Ok(0)
    }

    /// No operation can complete: the kernel waits, and time passes.
    fn sleep(&mut self, timeout: Option<Duration>) {
        let late = match timeout {
            Some(timeout) if !timeout.is_zero() => self.decide(Injector::oversleeps),
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
            // The shard has panicked in the middle of a turn, so it may break the rules.
            return;
        }
        self.rules.pushed(&op, token, &self.net.net());
        let bytes = if let Op::Send { data, at, .. } = &op { data.len() - at } else { 0 };
        self.note(SimEvent::Pushed(token, bytes));
        self.pushed.push_back((Work::Op(op), token));
    }

    fn open(&mut self, id: ConnId, _to: SocketAddr, _from: Option<IpAddr>) -> Result<Socket, i32> {
        match self.decide(Injector::open_error) {
            Some(errno) => Err(errno as i32),
            None => Ok(self.net.net().socket(id, None)),
        }
    }

    fn begin_shutdown(&mut self, socket: Socket, how: ShutdownHow, token: Token) -> ShutdownStatus {
        self.note(SimEvent::Shutdown(token, how));
        if self.decide(Injector::shutdown_is_slow) {
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
            // The ring is dropped next, or `pop` reports the broken rule.
            return Ok(());
        }
        let at = self.net.net().since_start();
        self.note(SimEvent::Turn(at));
        self.submit();
        // A woken shard reads its mailbox anyway; the counter goes back to zero.
        let woken = self.wake.read().is_ok();
        if self.run() || woken || !self.pushed.is_empty() {
            if !self.decide(Injector::clock_is_frozen) {
                self.net.net().now += TURN;
            }
        } else if !self.decide(Injector::wakes_spuriously) {
            self.sleep(timeout);
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion> {
        assert!(self.rules.broken.is_none(), "{:?}", self.rules.broken);
        if self.completed.len() > 1
            && let Some(mut rng) = self.decide(Injector::reorder)
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
        // Bytes behind those received are not input.
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
