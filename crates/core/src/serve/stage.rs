//! The protocol that a connection uses at present, and its state.
//!
//! A connection begins with [`Stage::Proxy`] or [`Stage::Http`]. Each stage consumes input and
//! returns a [`Step`], which names the next stage:
//!
//! ```text
//!  Proxy ──▶ Http ◀──▶ Deferred
//!             │
//!             └──────▶ WebSocket
//! ```

use std::time::Instant;

use murre_codec::Decoder;
use murre_codec::http::RequestDecoder;

use crate::addresses::Excess;
use crate::pool::NONE;

/// The protocol that one connection uses at present.
pub enum Stage<S> {
    /// The PROXY protocol: the proxy has not sent its whole header.
    Proxy,
    /// HTTP requests.
    Http(Http),
    /// HTTP: the response to the last request comes later.
    Deferred(Deferred<S>),
    /// WebSocket.
    WebSocket(WebSocket<S>),
}

/// An idle WebSocket with a session of four bytes takes half a cache line; the transport takes the
/// other half.
const _: () = assert!(size_of::<Option<Stage<u32>>>() <= 32);

/// The result of a stage that processed the front of its input.
pub(super) struct Step<S> {
    /// The number of bytes consumed. 0 without a next stage: the item is incomplete.
    pub(super) consumed: usize,
    /// The next stage, if the stage changes.
    pub(super) next: Option<Stage<S>>,
}

impl<S> Step<S> {
    /// Consumes bytes and stays in the stage.
    pub(super) fn stay(consumed: usize) -> Self {
        Step { consumed, next: None }
    }

    /// Consumes bytes and moves to another stage.
    pub(super) fn to(consumed: usize, next: Stage<S>) -> Self {
        Step { consumed, next: Some(next) }
    }
}

/// The state of a connection between and within requests.
pub struct Http {
    /// The request that is arriving.
    pub(super) decoder: RequestDecoder,
    /// The time limit of the request's head or body is running: from the first byte, even of an
    /// empty line, or from the start of the connection.
    pub(super) begun: bool,
    /// The server has sent `100 Continue` for this request.
    pub(super) continued: bool,
    /// The server has answered an earlier request.
    pub(super) answered: bool,
    /// The peer is a proxy, whose requests name their clients.
    pub(super) proxied: bool,
    /// The limit of its address that the connection exceeds: the first request is refused, unless
    /// it is a health check.
    pub(super) excess: Option<Excess>,
}

impl Http {
    /// A connection that has just opened. The time limit of its first request runs.
    pub(super) fn first(proxied: bool, excess: Option<Excess>) -> Self {
        let decoder = RequestDecoder::default();
        Http { decoder, begun: true, continued: false, answered: false, proxied, excess }
    }

    /// A connection after its deferred response.
    pub(super) fn next(proxied: bool) -> Self {
        let decoder = RequestDecoder::default();
        Http { decoder, begun: false, continued: false, answered: true, proxied, excess: None }
    }
}

/// The state of a request whose response comes later.
pub struct Deferred<S> {
    pub(super) session: S,
    /// The last time that the server called [`Handler::waited`](super::Handler::waited), on the
    /// clock of `Serve::millis`.
    pub(super) since: u32,
    /// The connection ends with this response.
    pub(super) last: bool,
    /// The peer is a proxy.
    pub(super) proxied: bool,
}

/// The state of one WebSocket.
pub struct WebSocket<S> {
    pub(super) decoder: Decoder,
    /// The message that is arriving in pieces, as a key of `Serve::messages`.
    pub(super) message: u32,
    /// The checks since the last input, or that the server has pinged the peer since.
    pub(super) silent: u8,
    /// The second of the last ping or pong from the peer, modulo 256, and the number of them within
    /// it.
    pub(super) second: u8,
    pub(super) pings: u8,
    pub(super) session: S,
}

impl<S> WebSocket<S> {
    pub(super) fn new(session: S) -> Self {
        let (decoder, message) = (Decoder::default(), NONE);
        WebSocket { decoder, message, silent: 0, second: 0, pings: 0, session }
    }
}

/// A message that is arriving in pieces.
pub(super) struct Arriving {
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u32,
    /// The arrival of the first bytes, plus the time in which the server did not read.
    pub(super) began: Instant,
    /// Since when the server has not read it, because the connection is congested.
    pub(super) paused: Option<Instant>,
}
