//! The [`Ring`] of this machine's kernel: io_uring, or epoll where io_uring is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::arena::Lease;
use super::common::RingCommon;
use super::config::{Io, RingConfig};
use super::epoll::{self, Epoll};
use super::interface::Ring;
use super::operation::{Completion, Op, ShutdownHow, ShutdownStatus, Socket, Token};
use super::probe;
use super::setup::Tier;
use super::uring::Uring;
use super::wake::Waker;
use crate::conn::id::ConnId;
use crate::retry::{RETRY_MAX, is_shortage, retry};

/// The kernel's ring of one shard. Must be used by the thread that made it.
///
/// One type for both interfaces, so that code that runs on it is compiled once. The branch costs
/// nothing that can be measured.
pub struct KernelRing(pub(super) Backend);

// A shard has one, so the size of the larger does not matter.
#[expect(clippy::large_enum_variant, reason = "one for each shard, and never moved in the loop")]
pub(super) enum Backend {
    Uring(Uring),
    Epoll(Epoll),
}

impl KernelRing {
    /// Makes a ring for the calling thread. Retries for 2 seconds while memory or descriptors are short:
    /// the kernel frees the rings of a process that was killed after the process has ended.
    ///
    /// # Errors
    /// The kernel's error: `EPERM` or `ENOSYS` where io_uring is not allowed, `ENOMEM` where the limit
    /// on locked memory is too low, `EMFILE` where the limit on open files is.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        retry(RETRY_MAX, is_shortage, || Self::try_new(config.clone()))
    }

    fn try_new(config: RingConfig) -> io::Result<Self> {
        let backend = match config.io {
            Io::Uring => Backend::Uring(Uring::new(probe::best_tier()?, config)?),
            Io::UringPlain => Backend::Uring(Uring::new(Tier::Plain, config)?),
            Io::Epoll => Backend::Epoll(Epoll::new(config)?),
        };
        Ok(KernelRing(backend))
    }

    /// Checks that there is room for `count` such rings at once, by making and closing them.
    ///
    /// # Errors
    /// As for [`KernelRing::new`].
    pub(crate) fn check_room(config: &RingConfig, count: usize) -> io::Result<()> {
        let make_all = || (0..count).map(|_| Self::try_new(config.clone())).collect();
        retry(RETRY_MAX, is_shortage, make_all).map(|_: Vec<Self>| ())
    }

    /// Bytes that a ring on this interface keeps outside the kernel for each connection it has room
    /// for, open or not.
    pub fn bytes_per_connection(io: Io) -> usize {
        match io {
            Io::Uring | Io::UringPlain => 0,
            Io::Epoll => epoll::CONN_BYTES,
        }
    }
}

/// Evaluates the expression for the ring of either interface.
macro_rules! either {
    ($self:expr, $ring:ident => $expression:expr) => {
        match $self {
            KernelRing(Backend::Uring($ring)) => $expression,
            KernelRing(Backend::Epoll($ring)) => $expression,
        }
    };
}

impl KernelRing {
    /// Submits what was pushed, and has the ring's [`SharedWait`](super::SharedWait) end when `timeout` is over
    /// (`None`: no timeout). Returns whether the kernel took nothing for a passing reason, so that the caller
    /// must not wait.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    ///
    /// # Panics
    /// If the ring shares no wait.
    pub(crate) fn submit_and_arm(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.sharing().submit_and_arm(timeout)
    }

    /// Whether operations have completed since the last [`submit_and_wait`](Ring::submit_and_wait).
    ///
    /// # Panics
    /// If the ring shares no wait.
    pub(crate) fn has_completions(&mut self) -> bool {
        self.sharing().has_completions()
    }

    fn sharing(&mut self) -> &mut Uring {
        match &mut self.0 {
            Backend::Uring(ring) => ring,
            Backend::Epoll(_) => panic!("only rings of io_uring share a wait"),
        }
    }

    fn common(&self) -> &RingCommon {
        either!(self, ring => &ring.common)
    }

    fn common_mut(&mut self) -> &mut RingCommon {
        either!(self, ring => &mut ring.common)
    }
}

impl Ring for KernelRing {
    fn push(&mut self, op: Op, token: Token) {
        either!(self, ring => ring.push(op, token));
    }

    fn open(&mut self, id: ConnId, to: SocketAddr, from: Option<IpAddr>) -> Result<Socket, i32> {
        either!(self, ring => ring.open(id, to, from))
    }

    fn begin_shutdown(&mut self, socket: Socket, how: ShutdownHow, token: Token) -> ShutdownStatus {
        either!(self, ring => ring.begin_shutdown(socket, how, token))
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, ring => ring.submit_and_wait(timeout))
    }

    fn pop(&mut self) -> Option<Completion> {
        either!(self, ring => ring.pop())
    }

    fn lease(&mut self) -> Option<Lease> {
        self.common_mut().arena.lease()
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.common_mut().arena.buffer(lease)
    }

    fn give_back(&mut self, lease: Lease) {
        self.common_mut().arena.give_back(lease);
    }

    fn waker(&self) -> Waker {
        self.common().waker()
    }

    fn listens(&self) -> bool {
        !self.common().listeners.is_empty()
    }

    fn stop_listening(&mut self) {
        self.common().stop_listening();
        either!(self, ring => ring.stop_accepting());
    }
}
