//! Addresses of peers, for the handler and the log.
//!
//! A connection's own memory has no room for an address. They are kept in a table beside it for as
//! long as something may ask for them: until the first request of the connection has been answered,
//! or, while the level of [`LOG_TARGET`] is `debug`, until the connection is closed.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use murre_codec::CloseCode;
use murre_codec::http::Request;

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;
use crate::serve::notices;

/// The target of log lines about connections: `murre::connections=debug` in a filter logs each
/// connection as it comes and ends.
pub const LOG_TARGET: &str = "murre::connections";

/// The peers of a shard's connections, by slot.
#[derive(Default)]
pub(crate) struct Peers(HashMap<u32, Peer>);

struct Peer {
    address: SocketAddr,
    /// The code of the WebSocket's close frame, whichever side sent it first.
    code: Option<CloseCode>,
}

impl Peers {
    fn take(&mut self, id: ConnId) -> Option<Peer> {
        if self.0.is_empty() {
            return None;
        }
        let peer = self.0.remove(&id.index());
        // A quarter, so that it does not grow again at once.
        if self.0.capacity() > KEPT && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(KEPT);
        }
        peer
    }
}

/// The table keeps room for so many after a burst.
const KEPT: usize = 256;

/// Whether each connection is logged. One load of an atomic number where it is not.
fn logs_connections() -> bool {
    tracing::enabled!(target: LOG_TARGET, tracing::Level::DEBUG)
}

impl Outbox {
    /// The address of the connection's peer: its own, or what a trusted proxy says of it. `None` once
    /// the first request has been answered; a handler that needs it later keeps it.
    ///
    /// Where `X-Forwarded-For` names the client of a WebSocket, the port is 0: the field has none.
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.peers.0.get(&id.index()).map(|peer| peer.address)
    }

    /// The id of the connection among those of all shards.
    pub fn global_id(&self, id: ConnId) -> GlobalConnId {
        GlobalConnId::new(self.shard, id)
    }

    /// The peer as log lines show it.
    pub fn shown_peer(&self, id: ConnId) -> ShownPeer {
        ShownPeer(self.peer(id))
    }

    /// Notes whose connection this is.
    pub(crate) fn set_peer(&mut self, id: ConnId, address: Option<SocketAddr>) {
        match address {
            Some(address) => _ = self.peers.0.insert(id.index(), Peer { address, code: None }),
            None => _ = self.peers.take(id),
        }
    }

    /// The first request has been answered: nothing asks for the address any more but the log.
    pub(crate) fn forget_peer(&mut self, id: ConnId) {
        if !logs_connections() {
            self.peers.take(id);
        }
    }

    /// A close frame is sent or has come: the first counts.
    pub(crate) fn note_close_code(&mut self, id: ConnId, code: CloseCode) {
        if let Some(peer) = self.peers.0.get_mut(&id.index()) {
            peer.code.get_or_insert(code);
        }
    }

    /// Logs, once a minute, that a page is refused because of its origin.
    pub fn warn_of_origin(&self, id: ConnId, request: &Request<'_, '_>) {
        notices::refused_origin(id, request, self);
    }

    /// Logs that a connection has come.
    pub(crate) fn log_accepted(&self, id: ConnId) {
        tracing::debug!(
            target: LOG_TARGET,
            conn = %self.global_id(id),
            peer = %self.shown_peer(id),
            "accepted"
        );
    }

    /// Logs the end of a connection, and forgets its peer.
    pub(crate) fn log_closed(&mut self, id: ConnId, reason: CloseReason) {
        let peer = self.peers.take(id);
        tracing::debug!(
            target: LOG_TARGET,
            conn = %self.global_id(id),
            peer = %ShownPeer(peer.as_ref().map(|peer| peer.address)),
            reason = reason.name(),
            code = peer.and_then(|peer| peer.code).map(u16::from),
            "closed"
        );
    }
}

/// The id of a connection among those of all shards, as log lines and the API write it: `SHARD-SLOT-USE`.
#[derive(Clone, Copy, Debug)]
pub struct GlobalConnId {
    shard: u16,
    id: ConnId,
}

impl GlobalConnId {
    /// The id of a connection of this shard.
    pub fn new(shard: u16, id: ConnId) -> Self {
        GlobalConnId { shard, id }
    }
}

impl fmt::Display for GlobalConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.id)
    }
}

/// A peer in log lines: without a port where that is 0, and `unknown` where there is no address.
#[derive(Clone, Copy, Debug)]
pub struct ShownPeer(pub Option<SocketAddr>);

impl fmt::Display for ShownPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) if peer.port() == 0 => peer.ip().fmt(f),
            Some(peer) => peer.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}
