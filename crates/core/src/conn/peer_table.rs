//! The addresses of peers, in a table beside the connections, whose own memory has no room for them.
//!
//! An address is kept until the first request of its connection has been answered, or, if connections are
//! logged, until the connection is closed.

use std::collections::HashMap;
use std::net::SocketAddr;

use murre_codec::CloseCode;

use super::id::ConnId;

/// The peers of a shard's connections, by slot.
#[derive(Default)]
pub(crate) struct Peers(HashMap<u32, Peer>);

/// The peer of one connection.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The code of the WebSocket's first close frame, from either side.
    pub(crate) close_code: Option<CloseCode>,
}

/// The table keeps capacity for this many after a burst.
const KEPT: usize = 256;

impl Peers {
    /// The address of a connection's peer, if it is still kept.
    pub(crate) fn address(&self, conn: ConnId) -> Option<SocketAddr> {
        self.0.get(&conn.index()).map(|peer| peer.address)
    }

    /// Stores the address of a connection's peer, in place of the one before.
    pub(crate) fn set(&mut self, conn: ConnId, address: Option<SocketAddr>) {
        match address {
            Some(address) => {
                self.0.insert(conn.index(), Peer { address, close_code: None });
            }
            None => {
                self.take(conn);
            }
        }
    }

    /// Stores the code of a close frame, unless there was one before.
    pub(crate) fn note_close_code(&mut self, conn: ConnId, code: CloseCode) {
        if let Some(peer) = self.0.get_mut(&conn.index()) {
            peer.close_code.get_or_insert(code);
        }
    }

    /// Removes and returns the peer of a connection.
    pub(crate) fn take(&mut self, conn: ConnId) -> Option<Peer> {
        if self.0.is_empty() {
            return None;
        }
        let peer = self.0.remove(&conn.index());
        // Only below a quarter, so that it does not grow again at once.
        if self.0.capacity() > KEPT && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(KEPT);
        }
        peer
    }
}
