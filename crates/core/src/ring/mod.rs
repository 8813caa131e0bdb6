//! The seam to the kernel: operations and completions as plain data.
//!
//! Every system call and all `unsafe` of the workspace are below this folder. A [`Ring`] takes
//! [`Op`]s, and gives back one [`Completion`] for each, in any order. Memory that the kernel may
//! touch belongs to the ring from `push` to completion: what it sends and the buffer it receives
//! into are moved in and come back by value, so nobody else can reach them meanwhile.

#[cfg(test)]
mod accept_forms;
pub mod allocator;
mod arena;
mod epoll;
mod kernel;
pub(crate) mod probe;
#[cfg(test)]
mod receive_forms;
pub mod sim;
mod sockets;
mod uring;
mod wake;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::conn::id::ConnId;

pub use arena::Lease;
pub use kernel::{KernelRing, Receive, RingConfig};
pub use wake::Waker;

/// What a shard asks of the kernel.
#[derive(Debug)]
pub enum Op {
    /// Accept one connection into the slot that the token names. Gives the socket, and who it is
    /// from.
    Accept,
    /// Connect a socket made by [`Ring::open`].
    Connect(Socket, SocketAddr),
    /// Wait until there is something to read or the peer has closed. One-shot: an idle connection
    /// holds this and nothing else. What it gives has bits of [`HANG_UP`] if the peer has.
    Poll(Socket),
    /// Read what is there into a leased buffer, without waiting. Gives the bytes read.
    Recv(Socket, Lease),
    /// Send `data` from offset `at` on. Gives the bytes sent, which may be fewer.
    Send {
        /// Where to.
        socket: Socket,
        /// The bytes; they come back with the completion.
        data: SendData,
        /// How many of them have gone before.
        at: u32,
    },
    /// Close the socket. Nothing of it may be in flight, unless the ring ends next.
    Close(Socket),
}

/// In what [`Op::Poll`] gives: the peer will say nothing more than what is there, or the connection
/// has failed. The bits of poll(2).
pub const HANG_UP: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

/// A connected socket: a file descriptor, or a place in the ring's own table of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket(pub u32);

/// Bytes on their way out.
#[derive(Debug)]
pub enum SendData {
    /// A frame that several connections share.
    Shared(Bytes),
    /// A buffer of this connection's own.
    Own(Vec<u8>),
}

impl SendData {
    /// The bytes, sent and unsent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            SendData::Shared(bytes) => bytes,
            SendData::Own(bytes) => bytes,
        }
    }

    /// How many bytes, sent and unsent.
    pub fn len(&self) -> u32 {
        self.bytes().len() as u32
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

/// Which end of a connection to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Send FIN; the peer's data still arrives.
    Write,
    /// Both directions: what is in flight completes.
    Both,
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ShutDown {
    /// It is done.
    Done,
    /// It has a completion, which is an error where the machine could not do it.
    Pending,
}

/// What an operation was for. Comes back with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which of the connection's operations.
    pub kind: OpKind,
    /// The connection, or the slot that waits for one.
    pub id: ConnId,
}

/// The kinds of operation that a connection can have in flight, at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpKind {
    /// Accepting.
    Accept = 1,
    /// Connecting.
    Connect = 2,
    /// Waiting for readiness.
    Poll = 4,
    /// Receiving.
    Recv = 8,
    /// Sending.
    Send = 16,
    /// Closing.
    Close = 32,
    /// Shutting down.
    Shut = 64,
}

/// How one operation ended.
#[derive(Debug)]
pub struct Completion {
    /// Whose operation it was.
    pub token: Token,
    /// What it gave, or the error number.
    pub result: Result<u32, i32>,
    /// What it had been lent.
    pub lent: Lent,
}

/// What comes back from the kernel's hands with a completion.
#[derive(Debug)]
pub enum Lent {
    /// Nothing had been lent.
    Nothing,
    /// The place for the address of an accepted connection's peer, with that address in it.
    Peer(SocketAddr),
    /// The buffer of a receive, to be given back when its bytes are consumed.
    Buffer(Lease),
    /// What a send was to send, and the offset that it began at.
    Data(SendData, u32),
}

/// A queue of operations to the kernel and of completions from it. One per shard.
pub trait Ring {
    /// Queues `op`; the kernel sees it at the next [`submit_and_wait`](Ring::submit_and_wait) at
    /// the latest. Whatever goes wrong is told by its completion.
    fn push(&mut self, op: Op, token: Token);

    /// Makes a TCP socket that can connect to `to`, for the connection `id`; bound to the address
    /// `from`, if given. What is wrong with it may show only when it connects.
    ///
    /// # Errors
    /// The error number.
    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32>;

    /// Shuts the socket down, after everything that was pushed before. Where that takes an
    /// operation the token, of kind [`OpKind::Shut`], comes back with its completion.
    fn shutdown(&mut self, socket: Socket, how: Shut, token: Token) -> ShutDown;

    /// Submits what was pushed, and returns when something has completed, the waker was used or
    /// `timeout` is over (`None`: no end).
    ///
    /// # Errors
    /// Only what makes the ring unusable.
    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next completion, if one is there.
    fn pop(&mut self) -> Option<Completion>;

    /// Leases a receive buffer; `None` while all are leased.
    fn lease(&mut self) -> Option<Lease>;

    /// The bytes of a leased buffer.
    fn buffer(&mut self, lease: &Lease) -> &mut [u8];

    /// Ends a lease.
    fn give_back(&mut self, lease: Lease);

    /// The time by which the shard's timers go.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wakes [`submit_and_wait`](Ring::submit_and_wait) from another thread.
    fn waker(&self) -> Waker;

    /// Whether [`Op::Accept`] can give anything.
    fn listens(&self) -> bool;

    /// Stops listening: accepts in flight complete with an error, new connections are refused.
    /// A listener that several rings share stops for all of them.
    fn stop_listening(&mut self);
}
