//! One connection's transport: its state, and what the kernel holds of it.

pub(crate) mod id;
pub(crate) mod peer_table;
pub(crate) mod send_queue;
pub(crate) mod session_timers;
pub(crate) mod slab;
pub(crate) mod states;
pub(crate) mod timers;

use crate::addresses::AddressPlace;
use crate::pool::NONE;
use crate::ring::{OpKind, Socket};

use send_queue::SendQueue;

/// One connection.
///
/// Most connections are idle, so what an idle connection does not need is elsewhere: the ring has the
/// receive buffers, the shard's send pool the queued bytes, its spill pool unconsumed input.
pub(crate) struct Conn {
    /// How often this slot has been used before, modulo 2^24; see [`crate::ConnId`].
    pub(crate) generation: u32,
    /// Valid once the connection is open. In a free slot: the next free slot.
    pub(crate) socket: Socket,
    pub(crate) queue: SendQueue,
    /// Input that the protocol has not consumed yet, as a key of the shard's spill pool.
    pub(crate) tail: u32,
    pub(crate) state: State,
    /// The operations that the kernel still holds: the slot is free only when there are none.
    pub(crate) in_flight: InFlight,
    pub(crate) flags: Flags,
    pub(crate) reason: CloseReason,
    /// Where the peer's address is counted.
    pub(crate) place: AddressPlace,
}

/// Bytes that the transport of a connection takes, idle or not.
pub const CONN_BYTES: usize = size_of::<Conn>();

/// Half a cache line. The other half is for the protocol's state.
const _: () = assert!(CONN_BYTES <= 32);

/// ```text
///            accepted,             close              all sent             end of input,
///            connected                                                     or timeout
///  Reserved ──────────▶ Open ──────────────▶ Closing ──────────▶ Lingering ─────────────▶ Terminating ──▶ Free
///      │                  └─ end of input with nothing to send, error, abort ─────────────────▲    nothing
///      └─ failed ──────────────────────────────────────────────────────────────────────────▲─┘    in flight
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In the free list.
    Free,
    /// An accept or a connect is in flight for this slot, or it is that of a session without a socket.
    Reserved,
    /// Both sides may send.
    Open,
    /// The queued bytes are being sent; nothing more is queued and nothing is read.
    Closing,
    /// FIN is sent; input is discarded until the peer's FIN. Closing at once instead would answer
    /// unread input with RST, which can overtake our last bytes (RFC 9112 section 9.6).
    Lingering,
    /// The socket is shut down; the last operations have yet to complete.
    Terminating,
}

/// The operations in flight, one bit each: see [`OpKind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InFlight(u8);

impl InFlight {
    pub(crate) fn has(self, kind: OpKind) -> bool {
        self.0 & kind as u8 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether an operation may take for ever unless the socket is shut down, and no shutdown is in
    /// flight.
    pub(crate) fn needs_shutdown(self) -> bool {
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

/// Flags of a connection, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flag {
    /// Listed in the outbox's `dirty`, so that a turn flushes a connection once.
    Dirty = 1,
    /// Listed in `Shard::starved` or `Shard::hung_up`: input is there to be read.
    Unread = 2,
    /// The socket has been shut down in both directions.
    ShutDown = 4,
    /// The peer has taken some queued bytes since [`Outbox::stands_still`](crate::Outbox::stands_still)
    /// was last called.
    Progressed = 8,
    /// The protocol takes no input of the connection at present.
    Held = 16,
    /// Listed in the outbox's `released`, so that a turn resumes a connection once.
    Released = 32,
    /// The connection was held, and no input has been offered to the protocol since.
    Resumed = 64,
    /// The connection speaks WebSocket.
    WebSocket = 128,
}

/// The [`Flag`]s of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) fn has(self, flag: Flag) -> bool {
        self.0 & flag as u8 != 0
    }

    /// Sets the flag, and returns whether it was set before.
    pub(crate) fn set(&mut self, flag: Flag) -> bool {
        let before = self.has(flag);
        self.0 |= flag as u8;
        before
    }

    pub(crate) fn clear(&mut self, flag: Flag) {
        self.0 &= !(flag as u8);
    }
}

/// Why a connection ended. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// The protocol ended the connection normally.
    Finished,
    /// The peer closed its side.
    PeerClosed,
    /// The peer reset the connection, or the network broke it.
    PeerReset,
    /// No complete request arrived in time.
    HandshakeTimeout,
    /// The peer was silent for too long.
    IdleTimeout,
    /// The request was refused.
    BadRequest,
    /// The peer violated the framing protocol (RFC 6455).
    BadFrame,
    /// A message came in too many frames.
    TooManyFragments,
    /// Too many pings and pongs came within a second.
    TooManyPings,
    /// A message arrived too slowly, or the peer took none of the queued bytes for too long.
    TooSlow,
    /// The peer reads too slowly: more bytes were queued for it than the limit allows.
    SlowConsumer,
    /// The peer's address exceeded one of its limits.
    Refused,
    /// The shard is being drained.
    Draining,
    /// Memory was short: the first request, or one that would start a session, was answered with 503.
    Overloaded,
    /// The kernel refused an operation for a reason that the peer did not cause.
    Failed,
}

impl CloseReason {
    /// Every reason, by its discriminant.
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

    /// The name of its counter in the metrics.
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

    /// The reason when an operation on a socket fails with `errno`: errors that a peer or the network
    /// can cause are a reset, all others a failure of this machine.
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
            flags: Flags::default(),
            reason: CloseReason::Finished,
            place: AddressPlace::default(),
        }
    }

    /// Whether an operation is in flight, or queued, that leads to input being read.
    pub(crate) fn is_reading(&self) -> bool {
        self.is_unread() || self.in_flight.has(OpKind::Poll)
    }

    /// Whether input is there that has yet to be read.
    pub(crate) fn is_unread(&self) -> bool {
        self.flags.has(Flag::Unread) || self.in_flight.has(OpKind::Recv)
    }

    /// Whether the connection is open and the protocol takes no input of it at present.
    pub(crate) fn is_held(&self) -> bool {
        self.state == State::Open && self.flags.has(Flag::Held)
    }
}
