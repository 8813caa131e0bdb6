//! What a shard needs of a ring.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::arena::Lease;
use super::operation::{Completion, Op, ShutdownHow, ShutdownStatus, Socket, Token};
use super::wake::Waker;
use crate::conn::id::ConnId;

/// A queue of operations to the kernel and of completions from it. One per shard.
pub trait Ring {
    /// Queues `op`. The kernel sees it at the next [`submit_and_wait`](Ring::submit_and_wait) at the
    /// latest; every failure is the result of its completion.
    fn push(&mut self, op: Op, token: Token);

    /// Makes a TCP socket that can connect to `to`, for the connection `id`, bound to the address
    /// `from` if given. Some errors show only when the socket connects.
    ///
    /// # Errors
    /// The error number (errno(3)), `EMFILE` where there is no descriptor left.
    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32>;

    /// Shuts the socket down, after everything that was pushed before. If that takes an operation,
    /// `token`, of kind [`OpKind::Shutdown`](super::OpKind::Shutdown), comes back with its completion.
    fn begin_shutdown(&mut self, socket: Socket, how: ShutdownHow, token: Token) -> ShutdownStatus;

    /// Submits what was pushed, and returns when an operation has completed, the waker was used or
    /// `timeout` is over (`None`: no timeout).
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next completion, if there is one.
    fn pop(&mut self) -> Option<Completion>;

    /// Leases a receive buffer; `None` while all are leased.
    fn lease(&mut self) -> Option<Lease>;

    /// The bytes of a leased buffer.
    fn buffer(&mut self, lease: &Lease) -> &mut [u8];

    /// Ends a lease.
    fn give_back(&mut self, lease: Lease);

    /// The clock of the shard's timers.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// A handle that ends [`submit_and_wait`](Ring::submit_and_wait) from another thread.
    fn waker(&self) -> Waker;

    /// Whether the ring has listeners, so that [`Op::Accept`] can complete.
    fn listens(&self) -> bool;

    /// Stops listening: accepts in flight complete with an error, new connections are refused.
    /// Listeners that several rings share stop for all of them. Inherited ones stay with the process
    /// that has made them.
    fn stop_listening(&mut self);
}
