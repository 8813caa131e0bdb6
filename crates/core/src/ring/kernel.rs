//! The [`Ring`] of this machine's kernel: io_uring, or epoll where that is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::epoll::{self, Epoll};
use super::probe::Tier;
use super::uring::Uring;
use super::{Completion, Lease, Op, Ring, Shut, ShutDown, Socket, Token, Waker};
use crate::conn::id::ConnId;
use crate::host::{Descriptors, Io};
use crate::listener::Listener;

/// What a ring is made with.
pub struct RingConfig {
    /// Which interface of the kernel to use.
    pub io: Io,
    /// Where sockets live: [`Descriptors::Normal`] with [`Io::Epoll`], which knows no others.
    pub descriptors: Descriptors,
    /// Sockets at most: the size of the ring's own table of them.
    pub conns_max: u32,
    /// Where connections come from, if the shard accepts any.
    pub listener: Option<Listener>,
    /// Sockets that connect are reset when they are closed, which leaves no `TIME_WAIT` behind: for
    /// load generators, whose next run needs the ports.
    pub reset_on_close: bool,
    /// How io_uring receives bytes.
    pub receive: Receive,
    /// Receive buffers.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_bytes: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            io: Io::Uring,
            descriptors: Descriptors::Normal,
            conns_max: 10_000,
            listener: None,
            reset_on_close: false,
            receive: Receive::Plain,
            buffers: 32,
            buffer_bytes: 8192,
        }
    }
}

/// How bytes get from a socket into a leased buffer. Both are within noise of each other (the
/// example `forms` measures them), and registering pins the whole arena in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// `RECV` into memory like any other.
    Plain,
    /// `READ_FIXED` into the arena, registered with the ring.
    Registered,
}

/// The kernel's ring of one shard. Must be used by the thread that made it.
///
/// One type for both interfaces, so that what runs on it is compiled once. They are close enough in
/// cost that the branch does not show.
pub struct KernelRing(Interface);

// A shard has one, so the size of the larger does not matter.
#[expect(clippy::large_enum_variant, reason = "one for each shard, and never moved in the loop")]
enum Interface {
    Uring(Uring),
    Epoll(Epoll),
}

impl KernelRing {
    /// Makes a ring, for the calling thread.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` or `ENOSYS` where io_uring is not allowed, `ENOMEM` where the
    /// limit on locked memory is too low, `EMFILE` where that on open files is.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        let interface = match config.io {
            Io::Uring => Interface::Uring(Uring::new(Tier::best()?, config)?),
            Io::UringPlain => Interface::Uring(Uring::new(Tier::Plain, config)?),
            Io::Epoll => Interface::Epoll(Epoll::new(config)?),
        };
        Ok(KernelRing(interface))
    }

    /// Bytes that such a ring keeps outside the kernel for each connection, idle or not.
    pub fn bytes_per_connection(io: Io) -> usize {
        match io {
            Io::Uring | Io::UringPlain => 0,
            Io::Epoll => epoll::CONN_BYTES,
        }
    }
}

/// Has the ring of either interface do it.
macro_rules! either {
    ($self:expr, $ring:ident => $does:expr) => {
        match $self {
            KernelRing(Interface::Uring($ring)) => $does,
            KernelRing(Interface::Epoll($ring)) => $does,
        }
    };
}

impl Ring for KernelRing {
    fn push(&mut self, op: Op, token: Token) {
        either!(self, ring => ring.push(op, token));
    }

    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32> {
        either!(self, ring => ring.open(id, to, from))
    }

    fn shutdown(&mut self, socket: Socket, how: Shut, token: Token) -> ShutDown {
        either!(self, ring => ring.shutdown(socket, how, token))
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, ring => ring.submit_and_wait(timeout))
    }

    fn pop(&mut self) -> Option<Completion> {
        either!(self, ring => ring.pop())
    }

    fn lease(&mut self) -> Option<Lease> {
        either!(self, ring => ring.lease())
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        either!(self, ring => ring.buffer(lease))
    }

    fn give_back(&mut self, lease: Lease) {
        either!(self, ring => ring.give_back(lease));
    }

    fn waker(&self) -> Waker {
        either!(self, ring => ring.waker())
    }

    fn listens(&self) -> bool {
        either!(self, ring => ring.listens())
    }

    fn stop_listening(&mut self) {
        either!(self, ring => ring.stop_listening());
    }
}
