//! A ring on io_uring.

mod accepting;
mod direct;
mod end;
mod user_data;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{DestinationSlot, Fd, Fixed, Timespec};
use io_uring::{IoUring, opcode};
use nix::sys::socket::{SockFlag, SockaddrLike, SockaddrStorage};

use self::accepting::Accepting;
use self::user_data::{ACCEPT, CLOSE, CONNECT, IGNORED, POLL, RECV, SEND};
use self::user_data::{KEY_MASK, SHUTDOWN, SLOW_SHUTDOWN, TIMEOUT, WAKE};
use super::arena::Lease;
use super::common::RingCommon;
use super::config::{Descriptors, LISTENERS_MAX, Receive, RingConfig};
use super::operation::{
    Completion, Lent, Op, OpKind, SendData, ShutdownHow, ShutdownStatus, Socket, Token,
};
use super::setup::{Tier, tolerate};
use super::sockets;
use crate::conn::id::ConnId;
use crate::pool::Pool;

/// One io_uring. Must be used by the thread that made it.
pub(super) struct Uring {
    /// First, so that it is closed before memory that the kernel may access is freed.
    ring: IoUring,
    pub(super) common: RingCommon,
    /// Entries that found the submission queue full while the kernel took nothing.
    backlog: VecDeque<Entry>,
    /// By lease: the generation of the connection that receives into the buffer.
    receivers: Box<[u32]>,
    sends: Pool<Sending>,
    accepts: Pool<Box<Accepting>>,
    /// Accepts in flight, by listener.
    accepts_of: [u32; LISTENERS_MAX],
    /// Shutdowns of direct descriptors in flight: the connection's generation, and the directions.
    shutdowns: Pool<(u32, ShutdownHow)>,
    /// Addresses to connect to and from, at addresses that the kernel can read: there are few.
    addresses: HashMap<SocketAddr, Box<SockaddrStorage>>,
    descriptors: Descriptors,
    receive: Receive,
    /// Whether the kernel leaves completions to the next enter (`DEFER_TASKRUN`).
    deferred: bool,
    /// The end of the earliest timeout in the ring.
    timeout: Option<Instant>,
    /// The number of that timeout. Older ones end later and are ignored.
    timeouts: u32,
    /// The timeout's duration, which its entry points to until the kernel takes it.
    span: Box<Timespec>,
}

struct Sending {
    generation: u32,
    data: SendData,
    at: u32,
}

/// Submission queue entries. A turn that needs more submits in between.
const SQ_ENTRIES: u32 = 1024;
/// Completion queue entries: each armed wait can complete at once, but a turn asks for [`FLUSH`] at
/// most and for as many again.
const CQ_ENTRIES: u32 = 4096;
/// Deferred completions of one turn, roughly: a turn's work is bounded.
const FLUSH: usize = 256;
/// One enter runs this many deferred completions, or as many as it waits for if that is more (since
/// 6.13, commit f46b9cdb22f7).
const DEFERRED_RUN: usize = 20;

impl Uring {
    /// Makes a ring of this form, for the calling thread.
    ///
    /// # Errors
    /// The kernel's error: `EPERM` or `ENOSYS` where io_uring is not allowed, `ENOMEM` where the limit
    /// on locked memory is too low, `EMFILE` where the limit on open files is.
    pub(super) fn new(tier: Tier, config: RingConfig) -> io::Result<Self> {
        let ring = tier.build(SQ_ENTRIES, CQ_ENTRIES)?;
        if config.descriptors == Descriptors::Direct {
            ring.submitter().register_files_sparse(config.max_conns)?;
        }
        let is_shared = config.shared_wait.is_some();
        let mut uring = Uring {
            ring,
            backlog: VecDeque::new(),
            receivers: vec![0; config.buffers as usize].into_boxed_slice(),
            sends: Pool::default(),
            accepts: Pool::default(),
            accepts_of: [0; LISTENERS_MAX],
            shutdowns: Pool::default(),
            addresses: HashMap::new(),
            descriptors: config.descriptors,
            receive: config.receive,
            deferred: tier == Tier::Deferred,
            timeout: None,
            timeouts: 0,
            span: Box::default(),
            common: RingCommon::new(config)?,
        };
        if uring.receive == Receive::Registered {
            uring.register_arena()?;
        }
        match is_shared {
            // The kernel signals completions and deferred task work (since 5.2).
            true => uring.ring.submitter().register_eventfd(uring.common.wake.as_raw_fd())?,
            false => uring.arm_wake(),
        }
        Ok(uring)
    }

    fn register_arena(&self) -> io::Result<()> {
        let (start, len) = self.common.arena.block();
        let block = libc::iovec { iov_base: start.cast(), iov_len: len };
        // SAFETY: the block lives as long as the arena, which is dropped after `self.ring`.
        unsafe { self.ring.submitter().register_buffers(&[block]) }
    }

    /// The listener that has the fewest accepts in flight.
    fn next_listener(&self) -> usize {
        let listeners = 0..self.common.listeners.len();
        listeners
            .min_by_key(|&index| self.accepts_of[index])
            .expect("accepts only where it listens")
    }

    fn arm_wake(&mut self) {
        let fd = Fd(self.common.wake.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        self.submit_later(entry.user_data(user_data::pack(WAKE, 0, 0)));
    }

    fn submit_later(&mut self, entry: Entry) {
        if self.backlog.is_empty() && self.place(&entry) {
            return;
        }
        // Full: submit what is there. If the kernel takes nothing (its completions must be read
        // first) the entry waits.
        if self.ring.submit().is_err() || !self.place_backlog() || !self.place(&entry) {
            self.backlog.push_back(entry);
        }
    }

    fn place_backlog(&mut self) -> bool {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.place(&entry) {
                self.backlog.push_front(entry);
                return false;
            }
        }
        true
    }

    fn place(&mut self, entry: &Entry) -> bool {
        // SAFETY: all memory that an entry points to outlives its operation. Receive buffers are pieces
        // of the arena, bytes to send are in `sends` and the memory for peers' addresses in `accepts`
        // until the completion is popped; addresses to connect to and `span` are never freed; all
        // of them live as long as the ring, or longer (`end.rs`).
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// An address as the kernel reads it, valid as long as the ring.
    fn address(&mut self, address: SocketAddr) -> (*const libc::sockaddr, libc::socklen_t) {
        let raw = self
            .addresses
            .entry(address)
            .or_insert_with(|| Box::new(SockaddrStorage::from(address)));
        (raw.as_ptr(), raw.len())
    }

    /// Runs more deferred completions than one enter does, up to a bound that does not count
    /// completions that were not deferred: a turn full of sends still learns which sockets are
    /// readable. Waits for no more completions than there are already: then an enter runs as many
    /// again and returns.
    fn flush_deferred(&mut self) -> io::Result<()> {
        let enough = self.ring.completion().len() + FLUSH;
        while self.deferred && self.ring.submission().taskrun() {
            let ready = self.ring.completion().len();
            if !(DEFERRED_RUN..enough).contains(&ready) {
                break;
            }
            tolerate(self.ring.submitter().submit_and_wait(ready))?;
            if self.ring.completion().len() == ready {
                break;
            }
        }
        Ok(())
    }

    /// Puts a timeout into the ring, unless one that ends sooner is there. An enter with a timeout
    /// (since 5.11) would set the machine's timer each time it waits, which is expensive on a virtual
    /// machine.
    fn arm_timeout(&mut self, timeout: Duration) {
        let end = Instant::now() + timeout;
        if self.timeout.is_some_and(|armed| armed <= end) {
            return;
        }
        self.timeout = Some(end);
        self.timeouts = (self.timeouts + 1) & KEY_MASK;
        *self.span = Timespec::from(timeout);
        let entry = opcode::Timeout::new(&raw const *self.span).build();
        self.submit_later(entry.user_data(user_data::pack(TIMEOUT, self.timeouts, 0)));
    }

    /// Handles the completion of an operation of the ring's own; `None`: it is a shard's.
    fn housekeeping(&mut self, kind: u8, key: u32, slot: u32, result: i32) -> Option<()> {
        match kind {
            WAKE => {
                // Empty when another completion of the same wake was faster.
                let _ = self.common.wake.read();
                self.arm_wake();
            }
            TIMEOUT if key == self.timeouts => self.timeout = None,
            TIMEOUT | IGNORED => {}
            // No free descriptor in the process.
            SHUTDOWN if result < 0 => self.begin_slow_shutdown(key, slot),
            _ => return None,
        }
        Some(())
    }

    fn completed(&mut self, kind: u8, key: u32, slot: u32, result: i32) -> Completion {
        let result = u32::try_from(result).map_err(|_| -result);
        let (kind, generation, lent) = match kind {
            RECV => {
                let generation = self.receivers[key as usize];
                (OpKind::Recv, generation, Lent::Buffer(Lease::from_key(key as u16)))
            }
            SEND => {
                let Sending { generation, data, at } = self.sends.remove(key);
                (OpKind::Send, generation, Lent::Data(data, at))
            }
            ACCEPT => {
                let accepting = self.accepts.remove(key);
                self.accepts_of[accepting.listener] -= 1;
                let peer = result.ok().and_then(|_| accepting.peer());
                (OpKind::Accept, accepting.generation, peer.map_or(Lent::Nothing, Lent::Peer))
            }
            CONNECT => (OpKind::Connect, key, Lent::Nothing),
            POLL => (OpKind::Poll, key, Lent::Nothing),
            CLOSE => (OpKind::Close, key, Lent::Nothing),
            SHUTDOWN | SLOW_SHUTDOWN => {
                let (generation, how) = self.shutdowns.remove(key);
                if let (SHUTDOWN, Ok(fd)) = (kind, result) {
                    sockets::shut_down_installed(fd, how);
                }
                (OpKind::Shutdown, generation, Lent::Nothing)
            }
            _ => unreachable!("user data is ours"),
        };
        // A direct accept gives 0: the socket is at the slot that was asked for.
        let result = match (kind, self.descriptors) {
            (OpKind::Accept, Descriptors::Direct) => result.map(|_| slot),
            _ => result,
        };
        Completion { token: Token { kind, id: ConnId::new(slot, generation) }, result, lent }
    }

    pub(super) fn push(&mut self, op: Op, token: Token) {
        let (generation, slot) = (token.id.generation(), token.id.index());
        let direct = self.descriptors == Descriptors::Direct;
        /// Builds the same operation on either kind of socket.
        macro_rules! on {
            ($socket:expr, |$file:ident| $build:expr) => {
                if direct {
                    let $file = Fixed($socket.0);
                    $build
                } else {
                    let $file = Fd($socket.0 as RawFd);
                    $build
                }
            };
        }
        let mut key = generation;
        let entry = match op {
            Op::Accept => {
                let listener = self.next_listener();
                self.accepts_of[listener] += 1;
                let file = Fd(self.common.listeners[listener].as_fd().as_raw_fd());
                key = self.accepts.insert(Accepting::new(slot, generation, listener));
                let Accepting { peer, peer_len, .. } = &mut **self.accepts.get_mut(key);
                let accept = opcode::Accept::new(file, peer.as_mut_ptr().cast(), peer_len);
                if direct {
                    let slot = DestinationSlot::try_from_slot_target(slot);
                    accept.file_index(Some(slot.expect("within the table"))).build()
                } else {
                    accept.flags(libc::SOCK_CLOEXEC).build()
                }
            }
            Op::Connect(socket, to) => {
                let (addr, len) = self.address(to);
                on!(socket, |file| opcode::Connect::new(file, addr, len).build())
            }
            Op::Poll(socket) => {
                let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
                on!(socket, |file| opcode::PollAdd::new(file, events).build())
            }
            Op::Recv(socket, lease) => {
                key = u32::from(lease.key());
                self.receivers[key as usize] = generation;
                let (start, len) = self.common.arena.place(&lease);
                let len = len as u32;
                match self.receive {
                    Receive::Plain => on!(socket, |file| {
                        opcode::Recv::new(file, start, len).flags(libc::MSG_DONTWAIT).build()
                    }),
                    Receive::Registered => on!(socket, |file| {
                        opcode::ReadFixed::new(file, start, len, 0).rw_flags(RWF_NOWAIT).build()
                    }),
                }
            }
            Op::Send { socket, data, at } => {
                key = self.sends.insert(Sending { generation, data, at });
                let rest = &self.sends.get_mut(key).data.bytes()[at as usize..];
                let (start, len) = (rest.as_ptr(), rest.len() as u32);
                let flags = libc::MSG_NOSIGNAL;
                on!(socket, |file| opcode::Send::new(file, start, len).flags(flags).build())
            }
            Op::Close(socket) => on!(socket, |file| opcode::Close::new(file).build()),
        };
        self.submit_later(entry.user_data(user_data::pack(token.kind as u8, key, slot)));
    }

    pub(super) fn open(
        &mut self,
        id: ConnId,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<Socket, i32> {
        match self.descriptors {
            Descriptors::Direct => Ok(self.open_direct(id, to, from)),
            Descriptors::Normal => {
                sockets::open(to, from, self.common.reset_on_close, SockFlag::empty())
                    .map(|fd| Socket(fd.into_raw_fd() as u32))
                    .map_err(|errno| errno as i32)
            }
        }
    }

    pub(super) fn begin_shutdown(
        &mut self,
        socket: Socket,
        how: ShutdownHow,
        token: Token,
    ) -> ShutdownStatus {
        match self.descriptors {
            Descriptors::Normal => {
                sockets::shut_down(socket, how);
                ShutdownStatus::Done
            }
            Descriptors::Direct => self.begin_shutdown_direct(socket, how, token),
        }
    }

    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.place_backlog();
        match timeout {
            Some(Duration::ZERO) => tolerate(self.ring.submitter().submit())?,
            Some(timeout) => {
                self.arm_timeout(timeout);
                tolerate(self.ring.submitter().submit_and_wait(1))?;
            }
            None => tolerate(self.ring.submitter().submit_and_wait(1))?,
        }
        self.flush_deferred()
    }

    /// See [`KernelRing::submit_and_arm`](super::KernelRing::submit_and_arm).
    pub(super) fn submit_and_arm(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.place_backlog();
        if let Some(timeout) = timeout {
            self.arm_timeout(timeout);
        }
        if !self.ring.submission().is_empty() {
            tolerate(self.ring.submitter().submit())?;
        }
        // The kernel may take nothing for a passing reason.
        Ok(!self.ring.submission().is_empty() || !self.backlog.is_empty())
    }

    /// See [`KernelRing::has_completions`](super::KernelRing::has_completions).
    pub(super) fn has_completions(&mut self) -> bool {
        let queue = self.ring.submission();
        let is_deferred = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        is_deferred || !self.ring.completion().is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Completion> {
        loop {
            let cqe = self.ring.completion().next()?;
            let (kind, key, slot) = user_data::unpack(cqe.user_data());
            if self.housekeeping(kind, key, slot, cqe.result()).is_none() {
                return Some(self.completed(kind, key, slot, cqe.result()));
            }
        }
    }
}

/// `RWF_NOWAIT`: a read that would wait fails with `EAGAIN` (since 4.14).
const RWF_NOWAIT: i32 = 8;
