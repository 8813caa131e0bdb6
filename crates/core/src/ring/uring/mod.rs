//! The [`Ring`] of the kernel: io_uring.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fd, Fixed, Timespec};
use io_uring::{IoUring, opcode};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{SockFlag, SockaddrLike, SockaddrStorage};
use nix::unistd;

use super::arena::{Arena, Lease};
use super::kernel::{Receive, RingConfig};
use super::probe::Tier;
use super::{
    Completion, Lent, Op, OpKind, Ring, SendData, Shut, ShutDown, Socket, Token, Waker, sockets,
};
use crate::conn::id::ConnId;
use crate::host::Descriptors;
use crate::listener::Listener;
use crate::pool::Pool;

/// One io_uring. Must be used by the thread that made it.
pub(super) struct Uring {
    /// First, so that it is closed before what the kernel may point to is freed.
    ring: IoUring,
    /// What found the submission queue full and the kernel unwilling.
    backlog: VecDeque<Entry>,
    arena: Arena,
    /// Whose a leased buffer is while the kernel has it; by lease.
    receivers: Box<[u32]>,
    sends: Pool<Sending>,
    accepts: Pool<Box<Accepting>>,
    /// Whose shutdowns of direct descriptors are in flight, and of which ends.
    shuts: Pool<(u32, Shut)>,
    /// Addresses to connect to and from, kept where the kernel can read them: there are few.
    addresses: HashMap<SocketAddr, Box<SockaddrStorage>>,
    descriptors: Descriptors,
    listener: Option<Listener>,
    reset_on_close: bool,
    receive: Receive,
    wake: Arc<EventFd>,
    deferred: bool,
    /// When the earliest timeout in the ring ends.
    timeout: Option<Instant>,
    /// Its number. Those that were put there before it and end later say nothing.
    timeouts: u32,
    /// What the timeout points to until the kernel takes it.
    span: Box<Timespec>,
}

/// An accept in flight, boxed: the kernel writes to the last two fields when it succeeds.
struct Accepting {
    slot: u32,
    generation: u32,
    peer_len: libc::socklen_t,
    peer: RawAddress,
}

/// A `sockaddr_in` or a `sockaddr_in6`.
type RawAddress = [u8; size_of::<libc::sockaddr_in6>()];

struct Sending {
    generation: u32,
    data: SendData,
    at: u32,
}

/// Submission queue entries. A turn that needs more submits in between.
const SQ_ENTRIES: u32 = 1024;
/// Completion queue entries: each armed wait can complete at once, but a turn asks for [`FLUSH`] at
/// most and for as many again.
pub(super) const CQ_ENTRIES: u32 = 4096;
/// Deferred completions of one turn, about: a turn's work is bounded.
const FLUSH: usize = 256;
/// An enter runs so many deferred completions, or as many as it waits for if those are more (since
/// 6.13, commit f46b9cdb22f7).
const DEFERRED_RUN: usize = 20;

/// A ring that ends waits so often, and for so long each time, for its accepts to be cancelled, which
/// takes no time unless the machine is overloaded.
const END_WAITS_MAX: usize = 32;
const END_WAIT: Duration = Duration::from_millis(100);

// What `user_data` holds: kind 8 bits, key 24, slot 32. The key is the generation, or for
// operations that lend something the key of what is lent. Beside the kinds of `OpKind`:
const WAKE: u8 = 128;
/// Its success says nothing and its failure shows in a later operation.
const IGNORED: u8 = 129;
const TIMEOUT: u8 = 130;
/// A shutdown for which no number could be borrowed.
const SHUT_SLOWLY: u8 = 131;

const KIND_ACCEPT: u8 = OpKind::Accept as u8;
const KIND_CONNECT: u8 = OpKind::Connect as u8;
const KIND_POLL: u8 = OpKind::Poll as u8;
const KIND_RECV: u8 = OpKind::Recv as u8;
const KIND_SEND: u8 = OpKind::Send as u8;
const KIND_CLOSE: u8 = OpKind::Close as u8;
const KIND_SHUT: u8 = OpKind::Shut as u8;
const KEY_MASK: u32 = (1 << 24) - 1;

fn user_data(kind: u8, key: u32, slot: u32) -> u64 {
    assert!(key <= KEY_MASK, "24 bits for keys: 16 million operations of one kind in flight");
    u64::from(kind) << 56 | u64::from(key) << 32 | u64::from(slot)
}

impl Uring {
    /// Makes a ring of this form, for the calling thread.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` or `ENOSYS` where io_uring is not allowed, `ENOMEM` where the
    /// limit on locked memory is too low, `EMFILE` where that on open files is.
    pub(super) fn new(tier: Tier, config: RingConfig) -> io::Result<Self> {
        let ring = tier.build(SQ_ENTRIES, CQ_ENTRIES)?;
        if config.descriptors == Descriptors::Direct {
            ring.submitter().register_files_sparse(config.conns_max)?;
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let mut uring = Uring {
            backlog: VecDeque::new(),
            arena: Arena::new(config.buffers, config.buffer_bytes)?,
            receivers: vec![0; config.buffers as usize].into_boxed_slice(),
            sends: Pool::default(),
            accepts: Pool::default(),
            shuts: Pool::default(),
            addresses: HashMap::new(),
            descriptors: config.descriptors,
            listener: config.listener,
            reset_on_close: config.reset_on_close,
            receive: config.receive,
            wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
            deferred: tier == Tier::Deferred,
            timeout: None,
            timeouts: 0,
            span: Box::default(),
            ring,
        };
        if config.receive == Receive::Registered {
            uring.register_arena()?;
        }
        uring.arm_wake();
        Ok(uring)
    }

    fn register_arena(&self) -> io::Result<()> {
        let (start, len) = self.arena.block();
        let block = libc::iovec { iov_base: start.cast(), iov_len: len };
        // SAFETY: the block lives as long as the arena, which is dropped after the ring.
        unsafe { self.ring.submitter().register_buffers(&[block]) }
    }

    fn arm_wake(&mut self) {
        let fd = Fd(self.wake.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        self.submit_later(entry.user_data(user_data(WAKE, 0, 0)));
    }

    fn submit_later(&mut self, entry: Entry) {
        if self.backlog.is_empty() && self.place(&entry) {
            return;
        }
        // Full: hand over what is there. Where the kernel takes nothing (it wants its completions
        // read first) the entry waits.
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
        // SAFETY: whatever an entry points to outlives its operation. Receive buffers are pieces
        // of `arena`, sent bytes are in `sends` and the places for addresses of peers in `accepts`
        // until the completion is popped; addresses to connect to and `span` are never freed; all
        // of them live as long as the ring, or longer (see `drop`).
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn address(&mut self, address: SocketAddr) -> (*const libc::sockaddr, libc::socklen_t) {
        let raw = self
            .addresses
            .entry(address)
            .or_insert_with(|| Box::new(SockaddrStorage::from(address)));
        (raw.as_ptr(), raw.len())
    }

    /// Queues an operation that says something only when it fails.
    fn submit_silently(&mut self, entry: Entry) {
        let entry = entry.flags(Flags::SKIP_SUCCESS);
        self.submit_later(entry.user_data(user_data(IGNORED, 0, 0)));
    }

    fn set_option<T>(&mut self, socket: Socket, level: i32, name: i32, value: &'static T) {
        let (value, len) = ((&raw const *value).cast(), mem::size_of::<T>() as u32);
        let (level, name) = (level as u32, name as u32);
        self.submit_silently(
            opcode::SetSockOpt::new(Fixed(socket.0), level, name, value, len).build(),
        );
    }

    fn open_direct(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Socket {
        let socket = Socket(id.index());
        let place = DestinationSlot::try_from_slot_target(id.index()).expect("within the table");
        let make = opcode::Socket::new(domain(to), libc::SOCK_STREAM, 0).file_index(Some(place));
        self.submit_silently(make.build());
        self.set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
        if self.reset_on_close {
            self.set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &sockets::RESET);
        }
        if let Some(from) = from {
            // The port is chosen at connect, when it need only differ for the same peer.
            self.set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32);
            let (addr, len) = self.address(SocketAddr::new(from, 0));
            self.submit_silently(opcode::Bind::new(Fixed(socket.0), addr, len).build());
        }
        socket
    }

    /// Runs what is deferred beyond what one enter does, up to a bound, however much has completed
    /// without being deferred: a turn full of sends still hears whom it is to receive from. Waits for
    /// no more than is there already: then an enter runs as much again and returns.
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

    /// Puts a timeout into the ring, unless one is there that ends sooner. An enter that takes one
    /// (since 5.11) sets the machine's timer each time it waits, which is not cheap on a virtual
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
        self.submit_later(entry.user_data(user_data(TIMEOUT, self.timeouts, 0)));
    }

    /// What the kernel says of an operation of ours that no shard knows; `None`: it is a shard's.
    fn housekeeping(&mut self, kind: u8, key: u32, slot: u32, result: i32) -> Option<()> {
        match kind {
            WAKE => {
                // Empty when another completion of the same wake was faster.
                let _ = self.wake.read();
                self.arm_wake();
            }
            TIMEOUT if key == self.timeouts => self.timeout = None,
            TIMEOUT | IGNORED => {}
            KIND_SHUT if result < 0 => self.shut_slowly(key, slot),
            _ => return None,
        }
        Some(())
    }

    /// Cancels accepts in flight, and closes what they have given and nobody has been told of: for a
    /// ring that ends. Descriptors of the process would stay open, with a peer at the other end.
    fn end_accepts(&mut self) {
        let accepts = self.accepts.iter().map(|(key, accept)| (key, accept.slot));
        let accepts: Vec<u64> =
            accepts.map(|(key, slot)| user_data(KIND_ACCEPT, key, slot)).collect();
        for accept in accepts {
            let cancel = opcode::AsyncCancel::new(accept).build();
            self.submit_later(cancel.user_data(user_data(IGNORED, 0, 0)));
        }
        for _ in 0..END_WAITS_MAX {
            while let Some(Completion { token, result, .. }) = self.pop() {
                if let (OpKind::Accept, Ok(fd), Descriptors::Normal) =
                    (token.kind, result, self.descriptors)
                {
                    // The kernel frees the descriptor even if close fails (close(2)), so the error is ignored.
                    let _ = unistd::close(fd as RawFd);
                }
            }
            if self.accepts.is_empty() || self.submit_and_wait(Some(END_WAIT)).is_err() {
                return;
            }
        }
    }

    /// Has the ring shut down a direct descriptor, which takes no number but a kernel thread.
    fn shut_slowly(&mut self, key: u32, slot: u32) {
        let (_, how) = self.shuts.get(key);
        let how = match how {
            Shut::Write => libc::SHUT_WR,
            Shut::Both => libc::SHUT_RDWR,
        };
        let entry = opcode::Shutdown::new(Fixed(slot), how).build();
        self.submit_later(entry.user_data(user_data(SHUT_SLOWLY, key, slot)));
    }

    fn completed(&mut self, kind: u8, key: u32, slot: u32, result: i32) -> Completion {
        let result = u32::try_from(result).map_err(|_| -result);
        let (kind, generation, lent) = match kind {
            KIND_RECV => {
                let generation = self.receivers[key as usize];
                (OpKind::Recv, generation, Lent::Buffer(Lease::from_key(key as u16)))
            }
            KIND_SEND => {
                let Sending { generation, data, at } = self.sends.remove(key);
                (OpKind::Send, generation, Lent::Data(data, at))
            }
            KIND_ACCEPT => {
                let accepting = self.accepts.remove(key);
                let peer = result.ok().and_then(|_| read_address(&accepting.peer));
                (OpKind::Accept, accepting.generation, peer.map_or(Lent::Nothing, Lent::Peer))
            }
            KIND_CONNECT => (OpKind::Connect, key, Lent::Nothing),
            KIND_POLL => (OpKind::Poll, key, Lent::Nothing),
            KIND_CLOSE => (OpKind::Close, key, Lent::Nothing),
            KIND_SHUT | SHUT_SLOWLY => {
                let (generation, how) = self.shuts.remove(key);
                if let (KIND_SHUT, Ok(fd)) = (kind, result) {
                    shut_installed(fd as RawFd, how);
                }
                (OpKind::Shut, generation, Lent::Nothing)
            }
            _ => unreachable!("user data is ours"),
        };
        // A direct accept gives 0: the socket is where it was asked to be.
        let result = match (kind, self.descriptors) {
            (OpKind::Accept, Descriptors::Direct) => result.map(|_| slot),
            _ => result,
        };
        Completion { token: Token { kind, id: ConnId::new(slot, generation) }, result, lent }
    }
}

impl Ring for Uring {
    fn push(&mut self, op: Op, token: Token) {
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
                let listener = self.listener.as_ref().expect("accepts only where it listens");
                let file = Fd(listener.as_fd().as_raw_fd());
                let peer = RawAddress::default();
                let accepting = Accepting { slot, generation, peer_len: peer.len() as u32, peer };
                key = self.accepts.insert(Box::new(accepting));
                let Accepting { peer, peer_len, .. } = &mut **self.accepts.get_mut(key);
                let accept = opcode::Accept::new(file, peer.as_mut_ptr().cast(), peer_len);
                if direct {
                    let place = DestinationSlot::try_from_slot_target(slot);
                    accept.file_index(Some(place.expect("within the table"))).build()
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
                let (start, len) = self.arena.place(&lease);
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
        self.submit_later(entry.user_data(user_data(token.kind as u8, key, slot)));
    }

    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32> {
        match self.descriptors {
            Descriptors::Direct => Ok(self.open_direct(id, to, from)),
            Descriptors::Normal => sockets::open(to, from, self.reset_on_close, SockFlag::empty())
                .map(|fd| Socket(fd.into_raw_fd() as u32))
                .map_err(|errno| errno as i32),
        }
    }

    fn shutdown(&mut self, socket: Socket, how: Shut, token: Token) -> ShutDown {
        match self.descriptors {
            Descriptors::Normal => {
                sockets::shut_down(socket, how);
                ShutDown::Done
            }
            // A direct descriptor has no number for `shutdown(2)`, and the ring's own SHUTDOWN
            // always goes to a kernel thread (REQ_F_FORCE_ASYNC, 128 us): borrow a number, if the
            // table of files has one left.
            Descriptors::Direct => {
                let key = self.shuts.insert((token.id.generation(), how));
                let entry = opcode::FixedFdInstall::new(Fixed(socket.0), 0).build();
                self.submit_later(entry.user_data(user_data(KIND_SHUT, key, socket.0)));
                ShutDown::Pending
            }
        }
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
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

    fn pop(&mut self) -> Option<Completion> {
        loop {
            let cqe = self.ring.completion().next()?;
            let data = cqe.user_data();
            let (kind, key, slot) =
                ((data >> 56) as u8, (data >> 32) as u32 & KEY_MASK, data as u32);
            if self.housekeeping(kind, key, slot, cqe.result()).is_none() {
                return Some(self.completed(kind, key, slot, cqe.result()));
            }
        }
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

impl Drop for Uring {
    fn drop(&mut self) {
        self.end_accepts();
        // The kernel cancels what is in flight only after the ring is closed, at a time of its
        // own. What a send or an accept points to is therefore left to it.
        if !self.sends.is_empty() {
            mem::forget(mem::take(&mut self.sends));
        }
        if !self.accepts.is_empty() {
            mem::forget(mem::take(&mut self.accepts));
        }
    }
}

/// `RWF_NOWAIT`: a read that would wait fails with `EAGAIN` (since 4.14).
const RWF_NOWAIT: i32 = 8;

/// An enter that did nothing for a passing reason has not failed: the next one goes on.
pub(super) fn tolerate(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // Time is up; a signal; completions must be read first; memory is short for now.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// What the kernel has written of a peer: `None` if it speaks neither IPv4 nor IPv6.
fn read_address(raw: &RawAddress) -> Option<SocketAddr> {
    let (family, rest) = raw.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let ip = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        // Between the port and the address is the flow label.
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*rest[4..].first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

fn domain(address: SocketAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// Shuts down a socket by the number that was borrowed for it, and returns the number.
fn shut_installed(fd: RawFd, how: Shut) {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    sockets::shut_down(Socket(fd.as_raw_fd() as u32), how);
}

#[cfg(test)]
mod tests;
