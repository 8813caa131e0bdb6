//! One connection's transport: where it is in its life, and what the kernel holds of it.

pub(crate) mod id;
pub(crate) mod send_queue;
pub(crate) mod session_timers;
pub(crate) mod slab;
pub(crate) mod timers;

use crate::addresses::Place;
use crate::conn::send_queue::SendQueue;
use crate::pool::NONE;
use crate::ring::{OpKind, Socket};

/// One connection.
///
/// Idle ones dominate, so what an idle one does not need is elsewhere: receive buffers are the
/// ring's, queued bytes are in the shard's send pool, input that was cut off is in its spill pool.
pub(crate) struct Conn {
    /// The use of this slot, modulo 2^24; see [`crate::ConnId`].
    pub(crate) generation: u32,
    /// Meaningless before it is open. While the slot is free: the next free slot.
    pub(crate) socket: Socket,
    pub(crate) queue: SendQueue,
    /// Input that could not be consumed yet, in the shard's spill pool.
    pub(crate) tail: u32,
    pub(crate) state: State,
    /// What the kernel still holds: the slot must not be used again before it is empty.
    pub(crate) in_flight: InFlight,
    pub(crate) marks: Marks,
    pub(crate) reason: CloseReason,
    /// Where the peer's address counts it.
    pub(crate) place: Place,
}

/// Bytes of the transport's own that a connection takes, idle or not.
pub const CONN_BYTES: usize = size_of::<Conn>();

/// Half a cache line. The other half is left to the protocol's state.
const _: () = assert!(CONN_BYTES <= 32);

/// ```text
///            accepted,             close              all sent             end of input,
///            connected                                                     or time is up
///  Reserved ──────────▶ Open ──────────────▶ Closing ──────────▶ Lingering ─────────────▶ Terminating ──▶ Free
///      │                  └─ end of input with nothing to send, error, abort ─────────────────▲    nothing
///      └─ failed ──────────────────────────────────────────────────────────────────────────▲─┘    in flight
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In the free list.
    Free,
    /// An accept or a connect is in flight for this slot.
    Reserved,
    /// Both sides may speak.
    Open,
    /// What is queued is being sent; nothing more is queued and nothing is read.
    Closing,
    /// FIN is sent; input is thrown away until the peer's FIN. Closing at once instead would answer
    /// unread input with RST, which can overtake our last bytes (RFC 9112 section 9.6).
    Lingering,
    /// The socket is shut down; waits for the kernel to let go of it.
    Terminating,
}

/// Which operations are in flight, one bit each: see [`OpKind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InFlight(u8);

impl InFlight {
    pub(crate) fn has(self, kind: OpKind) -> bool {
        self.0 & kind as u8 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Something that may take for ever unless the socket is shut down, which is not under way.
    pub(crate) fn waits(self) -> bool {
        (self.has(OpKind::Poll) || self.has(OpKind::Send)) && !self.has(OpKind::Shutdown)
    }

    pub(crate) fn begin(&mut self, kind: OpKind) {
        assert!(!self.has(kind), "one {kind:?} at a time");
        self.0 |= kind as u8;
    }

    pub(crate) fn end(&mut self, kind: OpKind) {
        assert!(self.has(kind), "a {kind:?} completed that was not in flight");
        self.0 &= !(kind as u8);
    }
}

/// What is to be known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    /// Listed in the outbox's `dirty`, so that a turn flushes a connection once.
    Dirty = 1,
    /// Listed in `Shard::starved` or `Shard::leaving`: something is there to be read.
    Unread = 2,
    /// The socket has been shut down in both directions.
    Shut = 4,
    /// The peer has taken some of what was queued for it since it was last asked for.
    Took = 8,
    /// The protocol takes no input of it at present.
    Held = 16,
    /// Listed in the outbox's `released`, so that a turn resumes a connection once.
    Released = 32,
    /// It has been held, and nothing was offered to the protocol since.
    Resumed = 64,
    /// It speaks WebSocket.
    WebSocket = 128,
}

/// Which marks a connection has, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    pub(crate) fn has(self, mark: Mark) -> bool {
        self.0 & mark as u8 != 0
    }

    /// Sets the mark, and returns whether it was set before.
    pub(crate) fn set(&mut self, mark: Mark) -> bool {
        let before = self.has(mark);
        self.0 |= mark as u8;
        before
    }

    pub(crate) fn clear(&mut self, mark: Mark) {
        self.0 &= !(mark as u8);
    }
}

/// Why a connection ended. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// The protocol came to its end.
    Finished,
    /// The peer closed its side.
    PeerClosed,
    /// The peer reset the connection, or it broke.
    PeerReset,
    /// No whole request in time.
    HandshakeTimeout,
    /// The peer was silent for too long.
    IdleTimeout,
    /// The request was refused.
    BadRequest,
    /// The peer broke the framing protocol.
    BadFrame,
    /// A message came in too many frames.
    TooManyFragments,
    /// Too many pings and pongs came within a second.
    TooManyPings,
    /// A message came too slowly, or nothing was taken of what was queued.
    TooSlow,
    /// The peer reads too slowly: more than the bound was queued for it.
    SlowConsumer,
    /// It was not to be served: its address has too much already.
    Refused,
    /// The shard is being drained.
    Draining,
    /// Memory is short: its first request, or one that would start a session, was answered with 503.
    Overloaded,
    /// The kernel refused an operation for a reason that is not the peer's.
    Failed,
}

impl CloseReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [CloseReason; 15] = [
        CloseReason::Finished,
        CloseReason::PeerClosed,
        CloseReason::PeerReset,
        CloseReason::HandshakeTimeout,
        CloseReason::IdleTimeout,
        CloseReason::BadRequest,
        CloseReason::BadFrame,
        CloseReason::TooManyFragments,
        CloseReason::TooManyPings,
        CloseReason::TooSlow,
        CloseReason::SlowConsumer,
        CloseReason::Refused,
        CloseReason::Draining,
        CloseReason::Overloaded,
        CloseReason::Failed,
    ];

    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::PeerReset => "peer_reset",
            CloseReason::HandshakeTimeout => "handshake_timeout",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::BadRequest => "bad_request",
            CloseReason::BadFrame => "bad_frame",
            CloseReason::TooManyFragments => "too_many_fragments",
            CloseReason::TooManyPings => "too_many_pings",
            CloseReason::TooSlow => "too_slow",
            CloseReason::SlowConsumer => "slow_consumer",
            CloseReason::Refused => "refused",
            CloseReason::Draining => "draining",
            CloseReason::Overloaded => "overloaded",
            CloseReason::Failed => "failed",
        }
    }

    /// The error table: whose fault it is when an operation on a socket fails with `errno`.
    pub(crate) fn of_errno(errno: i32) -> Self {
        use nix::errno::Errno;
        match Errno::from_raw(errno) {
            Errno::ECONNRESET
            | Errno::EPIPE
            | Errno::ENOTCONN
            | Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ENETDOWN
            | Errno::EHOSTDOWN
            | Errno::ECONNABORTED
            | Errno::ECONNREFUSED
            | Errno::ECANCELED => CloseReason::PeerReset,
            _ => CloseReason::Failed,
        }
    }
}

impl Conn {
    /// A slot that has never been used.
    pub(crate) fn free() -> Self {
        Conn {
            generation: 0,
            socket: Socket(NONE),
            queue: SendQueue::default(),
            tail: NONE,
            state: State::Free,
            in_flight: InFlight::default(),
            marks: Marks::default(),
            reason: CloseReason::Finished,
            place: Place::default(),
        }
    }

    /// Something is under way that will lead to input being read.
    pub(crate) fn reading(&self) -> bool {
        self.unread() || self.in_flight.has(OpKind::Poll)
    }

    /// Input is there, and is about to be read.
    pub(crate) fn unread(&self) -> bool {
        self.marks.has(Mark::Unread) || self.in_flight.has(OpKind::Recv)
    }

    /// It is open, and the protocol takes no input of it at present.
    pub(crate) fn held(&self) -> bool {
        self.state == State::Open && self.marks.has(Mark::Held)
    }
}
