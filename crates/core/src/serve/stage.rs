//! What a connection speaks at present, and what is remembered of it meanwhile.

use std::time::Instant;

use murre_codec::Decoder;
use murre_codec::http::RequestDecoder;

use crate::addresses::Excess;
use crate::pool::NONE;

/// What one connection speaks at present.
pub enum Speaks<S> {
    /// Nothing yet: a proxy is to say first who is behind it.
    Proxy,
    /// HTTP: where it is in a request.
    Http {
        /// The request that is arriving.
        decoder: RequestDecoder,
        /// The deadline of its head, or of its body, is running: since its first byte, even if that
        /// belongs to an empty line, or since the connection.
        begun: bool,
        /// `100 Continue` has been sent for it.
        continued: bool,
        /// A request has been answered before.
        answered: bool,
        /// The peer is a proxy, whose requests say who they are from.
        proxied: bool,
        /// The peer's address may not have the connection: its first request is refused, unless it
        /// asks for the server's health.
        excess: Option<Excess>,
    },
    /// HTTP: the answer to the last request comes later.
    Later(Later<S>),
    /// WebSocket.
    WebSocket(WebSocket<S>),
}

/// An idle WebSocket with a session of four bytes takes half a cache line; the transport takes the
/// other half.
const _: () = assert!(size_of::<Option<Speaks<u32>>>() <= 32);

/// What is remembered of a request whose answer is to come.
pub struct Later<S> {
    pub(super) session: S,
    /// Since when the handler has not been told that the answer waits, in the milliseconds of
    /// `Serve::millis`.
    pub(super) since: u32,
    /// The connection ends with this answer.
    pub(super) last: bool,
    /// The peer is a proxy.
    pub(super) proxied: bool,
}

/// What is remembered of one WebSocket.
pub struct WebSocket<S> {
    pub(super) decoder: Decoder,
    /// What has arrived of a message that came in pieces, in `Serve::messages`.
    pub(super) message: u32,
    /// A ping was sent, and nothing has arrived since.
    pub(super) pinged: bool,
    /// The second of the last ping or pong that came, modulo 256, and how many came within it.
    pub(super) second: u8,
    pub(super) pings: u8,
    pub(super) session: S,
}

/// What has arrived of a message that comes in pieces.
pub(super) struct Arriving {
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u32,
    /// When its first bytes came. Later, if it was not read for a while.
    pub(super) began: Instant,
    /// Since when it is not read, because too much is queued for the peer.
    pub(super) paused: Option<Instant>,
}

impl<S> WebSocket<S> {
    pub(super) fn new(session: S) -> Self {
        let (decoder, message) = (Decoder::default(), NONE);
        WebSocket { decoder, message, pinged: false, second: 0, pings: 0, session }
    }

    pub(super) fn session(&mut self) -> &mut S {
        &mut self.session
    }
}
