//! Operations and their completions, as plain data.

use std::net::SocketAddr;

use bytes::Bytes;

use super::arena::Lease;
use crate::conn::id::ConnId;

/// An operation that a shard asks the kernel for.
#[derive(Debug)]
pub enum Op {
    /// Accept one connection into the slot that the token names. The result is the [`Socket`]'s number;
    /// the peer's address comes back as [`Lent::Peer`].
    Accept,
    /// Connect a socket made by [`Ring::open`](super::Ring::open).
    Connect(Socket, SocketAddr),
    /// Wait until the socket is readable or the peer has closed. One-shot: an idle connection holds
    /// this operation and nothing else. The result has bits of [`HANG_UP`] if the peer has closed.
    Poll(Socket),
    /// Read into a leased buffer without waiting. The result is the number of bytes read, 0 at the
    /// end of the stream, or `EAGAIN` if there is nothing to read.
    Recv(Socket, Lease),
    /// Send `data` from offset `at` on. The result is the number of bytes sent, which may be fewer.
    Send {
        /// The socket to send on.
        socket: Socket,
        /// The bytes, which come back with the completion.
        data: SendData,
        /// Offset in bytes of the first byte to send.
        at: u32,
    },
    /// Close the socket. No other operation on it may be in flight, unless the ring is dropped next.
    Close(Socket),
}

/// Bits in the result of [`Op::Poll`] that say that the peer sends nothing more than what is there,
/// or that the connection has failed: `POLLRDHUP`, `POLLHUP` and `POLLERR` of poll(2).
pub const HANG_UP: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

/// A connected socket: a file descriptor of the process, or an index into the ring's own table of
/// files ([`Descriptors`](super::Descriptors) says which).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket(pub u32);

/// Bytes to send.
#[derive(Debug)]
pub enum SendData {
    /// A frame that several connections share.
    Shared(Bytes),
    /// A buffer that belongs to this connection.
    Own(Vec<u8>),
}

impl SendData {
    /// All bytes, sent and unsent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            SendData::Shared(bytes) => bytes,
            SendData::Own(bytes) => bytes,
        }
    }

    /// The number of bytes, sent and unsent.
    pub fn len(&self) -> u32 {
        self.bytes().len() as u32
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

/// The directions of a connection that a shutdown ends (shutdown(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownHow {
    /// `SHUT_WR`: sends FIN; the peer's data still arrives.
    Write,
    /// `SHUT_RDWR`: both directions; operations in flight complete.
    Both,
}

/// Whether a shutdown is over when [`Ring::begin_shutdown`](super::Ring::begin_shutdown) returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ShutdownStatus {
    /// The socket is shut down.
    Done,
    /// A completion of kind [`OpKind::Shutdown`] follows; its result is an error if the kernel could
    /// not shut the socket down.
    Pending,
}

/// Names an operation. Comes back with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The kind of operation.
    pub kind: OpKind,
    /// The connection, or for [`OpKind::Accept`] the slot that the connection gets.
    pub id: ConnId,
}

/// The kinds of operation. A connection has at most one of each in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpKind {
    /// [`Op::Accept`].
    Accept = 1,
    /// [`Op::Connect`].
    Connect = 2,
    /// [`Op::Poll`].
    Poll = 4,
    /// [`Op::Recv`].
    Recv = 8,
    /// [`Op::Send`].
    Send = 16,
    /// [`Op::Close`].
    Close = 32,
    /// A shutdown that takes an operation: [`ShutdownStatus::Pending`].
    Shutdown = 64,
}

/// The end of one operation.
#[derive(Debug)]
pub struct Completion {
    /// The token that the operation was pushed with.
    pub token: Token,
    /// The result as [`Op`] describes it, or the error number (errno(3)).
    pub result: Result<u32, i32>,
    /// The memory that the operation held.
    pub lent: Lent,
}

/// Memory that the kernel held during an operation.
#[derive(Debug)]
pub enum Lent {
    /// None.
    Nothing,
    /// The address of an accepted connection's peer.
    Peer(SocketAddr),
    /// The buffer of a receive. The shard gives it back when it has consumed the bytes.
    Buffer(Lease),
    /// The data of a send, and the offset in bytes that the send began at.
    Data(SendData, u32),
}
