//! The addresses of peers and the close codes of connections, for the handler and the log.

use std::fmt;
use std::net::SocketAddr;

use murre_codec::CloseCode;

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

/// The target of log lines about connections: the filter `murre::connections=debug` logs the start
/// and the end of each connection.
pub const LOG_TARGET: &str = "murre::connections";

/// The most bytes of a text of a client in a log line. The client chooses its length, and lines wait in
/// memory.
pub const LOG_TEXT_BYTES_MAX: usize = 200;

/// Returns whether the log shows each connection. If not, this is one load of an atomic number.
fn logs_connections() -> bool {
    tracing::enabled!(target: LOG_TARGET, tracing::Level::DEBUG)
}

impl Outbox {
    /// The address of the connection's peer: its own, or the one that a trusted proxy names. `None`
    /// after the response to the first request; a handler that needs the address later must copy
    /// it.
    ///
    /// When `X-Forwarded-For` names the client of a WebSocket, the port is 0, because the field has
    /// no port.
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.peers.address(id)
    }

    /// The id of the connection among the connections of all shards.
    pub fn global_id(&self, id: ConnId) -> GlobalConnId {
        GlobalConnId::new(self.shard, id)
    }

    /// The peer in the form that log lines show.
    pub fn shown_peer(&self, id: ConnId) -> ShownPeer {
        ShownPeer(self.peer(id))
    }

    /// Stores the address of the connection's peer.
    pub(crate) fn set_peer(&mut self, id: ConnId, address: Option<SocketAddr>) {
        self.peers.set(id, address);
    }

    /// Removes the address. After the response to the first request only the log needs it.
    pub(crate) fn forget_peer(&mut self, id: ConnId) {
        if !logs_connections() {
            self.peers.take(id);
        }
    }

    /// Stores the code of a close frame that was sent or received. The first code is kept.
    pub(crate) fn note_close_code(&mut self, id: ConnId, code: CloseCode) {
        self.peers.note_close_code(id, code);
    }

    /// Logs the start of a connection.
    pub(crate) fn log_accepted(&self, id: ConnId) {
        tracing::debug!(
            target: LOG_TARGET,
            conn = %self.global_id(id),
            peer = %self.shown_peer(id),
            "accepted"
        );
    }

    /// Logs the end of a connection, and removes the address of its peer.
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

/// The id of a connection among those of all shards, in the form of log lines and the API:
/// `SHARD-SLOT-USE`.
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

/// A peer in log lines: without a port if that is 0, and `unknown` if there is no address.
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
