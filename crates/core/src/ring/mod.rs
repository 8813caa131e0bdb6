//! The interface to the kernel: operations and completions as plain data.
//!
//! Every system call on a connection and all `unsafe` of the workspace are in this folder. A [`Ring`]
//! takes [`Op`]s, and gives back one [`Completion`] for each, in any order. Memory that the kernel may
//! access belongs to the ring from `push` to completion: the bytes to send and the buffer to receive
//! into are moved in and come back by value, so no other code can reach them meanwhile.
//!
//! [`KernelRing`] is the ring of a server, on io_uring or epoll; [`sim`] has one for tests.

mod interface;
mod operation;

mod config;
mod kernel;

mod epoll;
mod uring;

pub(crate) mod probe;
pub(crate) mod setup;

mod arena;
mod common;
pub(crate) mod inherited;
mod sockets;
mod wake;

pub mod allocator;
pub mod sim;

#[cfg(test)]
mod tests;

pub use arena::Lease;
pub use config::{Descriptors, Io, LISTENERS_MAX, Receive, RingConfig};
pub use interface::Ring;
pub use kernel::KernelRing;
pub use operation::{
    Completion, HANG_UP, Lent, Op, OpKind, SendData, ShutdownHow, ShutdownStatus, Socket, Token,
};
pub use wake::{SharedWait, Waker};
