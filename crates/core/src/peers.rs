//! The addresses of peers and the ends of their connections, for the handler and the log.

use std::fmt;
use std::net::SocketAddr;

use murre_codec::CloseCode;

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

/// The target of log lines about connections: `murre::connections=debug` in a filter logs each
/// connection as it comes and ends.
pub const LOG_TARGET: &str = "murre::connections";

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
        self.peers.address(id)
    }

    /// The id of the connection among those of all shards.
    pub fn global_id(&self, id: ConnId) -> GlobalConnId {
        GlobalConnId::new(self.shard, id)
    }

    /// The peer as log lines show it.
    pub fn shown_peer(&self, id: ConnId) -> ShownPeer {
        ShownPeer(self.peer(id))
    }

    /// Stores the address of the connection's peer.
    pub(crate) fn set_peer(&mut self, id: ConnId, address: Option<SocketAddr>) {
        self.peers.set(id, address);
    }

    /// Removes the address, which only the log needs once the first request has been answered.
    pub(crate) fn forget_peer(&mut self, id: ConnId) {
        if !logs_connections() {
            self.peers.take(id);
        }
    }

    /// Stores the code of a close frame, sent or received. The first counts.
    pub(crate) fn note_close_code(&mut self, id: ConnId, code: CloseCode) {
        self.peers.note_close_code(id, code);
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
            code = peer.and_then(|peer| peer.close_code).map(u16::from),
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
