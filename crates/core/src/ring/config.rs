//! The settings of a kernel ring.

use super::wake::SharedWait;
use crate::listener::Listener;

/// An interface of the kernel for socket I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring, with the best setup flags that work on this kernel.
    Uring,
    /// io_uring, with nothing that Linux 5.10 does not have.
    UringPlain,
    /// epoll and one system call for each operation, for machines that refuse io_uring.
    Epoll,
}

impl Io {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Io::Uring => "uring",
            Io::UringPlain => "uring-plain",
            Io::Epoll => "epoll",
        }
    }
}

/// Where connected sockets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// In the process's table of files, which `RLIMIT_NOFILE` limits.
    Normal,
    /// In each ring's own table of files: `RLIMIT_NOFILE` limits each table separately. Needs io_uring
    /// of Linux 6.13.
    Direct,
}

impl Descriptors {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Descriptors::Normal => "normal",
            Descriptors::Direct => "direct",
        }
    }
}

/// How io_uring reads from a socket into a leased buffer. Both cost the same within noise (measured by
/// the example `forms`), and a registered arena counts as locked memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// `IORING_OP_RECV` into ordinary memory.
    Plain,
    /// `IORING_OP_READ_FIXED` into the arena, registered with the ring.
    Registered,
}

/// Listeners of one ring at most. A shard keeps this many accepts in flight, so that each listener has
/// one.
pub const LISTENERS_MAX: usize = 8;

/// The settings of a [`KernelRing`](super::KernelRing).
#[derive(Clone)]
pub struct RingConfig {
    /// The interface of the kernel.
    pub io: Io,
    /// Where sockets live. Must be [`Descriptors::Normal`] with [`Io::Epoll`].
    pub descriptors: Descriptors,
    /// Largest number of sockets, which is the size of the ring's own table of files.
    pub max_conns: u32,
    /// The listeners to accept from, at most [`LISTENERS_MAX`]; none if the shard accepts no
    /// connections.
    pub listeners: Vec<Listener>,
    /// Whether sockets made by [`Ring::open`](super::Ring::open) are reset when they are closed, which
    /// leaves no `TIME_WAIT` behind: for load generators, whose next run needs the ports.
    pub reset_on_close: bool,
    /// How io_uring receives.
    pub receive: Receive,
    /// Number of receive buffers.
    pub buffers: u16,
    /// Size of one receive buffer in bytes.
    pub buffer_bytes: u32,
    /// The wait that the ring shares with other rings of its thread, which never waits in one of them. Must
    /// be `None` with [`Io::Epoll`].
    pub shared_wait: Option<SharedWait>,
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            io: Io::Uring,
            descriptors: Descriptors::Normal,
            max_conns: 10_000,
            listeners: Vec::new(),
            reset_on_close: false,
            receive: Receive::Plain,
            buffers: 32,
            buffer_bytes: 8192,
            shared_wait: None,
        }
    }
}
