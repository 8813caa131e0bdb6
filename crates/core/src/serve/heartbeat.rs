//! Pings of WebSockets, and the time limits of silent peers.

use murre_codec::encode;

use super::stage::WebSocket;
use super::{Handler, Serve};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// Records that the peer is alive: any input proves it. The timer keeps running while bytes are
    /// queued, because it also checks whether the peer takes them.
    pub(super) fn alive(
        &self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        if std::mem::replace(&mut websocket.pinged, false) || out.queued(conn) == 0 {
            out.set_timer(conn, out.ticks(self.limits.look_interval()));
        }
    }

    /// Sets the first timer of a WebSocket. The delay differs by slot, so that WebSockets opened
    /// together are pinged at different times.
    pub(super) fn first_ping(&self, conn: ConnId, out: &mut Outbox) {
        let ticks = u32::from(out.ticks(self.limits.look_interval()));
        out.set_timer(conn, (ticks - spread(conn, ticks / 2)) as u16);
    }

    /// No input has arrived for an interval. Pings the peer, or closes the connection if the peer
    /// left the last ping unanswered or has taken no queued bytes.
    pub(super) fn silent(
        &mut self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        // The shard does not read the input of this connection now, so it would not see a pong.
        let is_unread = !out.takes_input(conn);
        if websocket.pinged && !is_unread {
            return out.abort(conn, CloseReason::IdleTimeout);
        }
        if out.stands_still(conn) {
            return out.abort(conn, CloseReason::TooSlow);
        }
        if is_unread {
            return out.set_timer(conn, out.ticks(self.limits.look_interval()));
        }
        websocket.pinged = true;
        self.counters.pings.add(1);
        // If the ping cannot be queued, the connection ends anyway.
        let _ = out.send(conn, &encode::PING);
        out.set_timer(conn, out.ticks(self.limits.pong_timeout));
    }
}

/// A number below `range` that differs between neighbouring slots.
pub(super) fn spread(conn: ConnId, range: u32) -> u32 {
    // Multiplying by 2^32 / golden ratio spreads neighbouring slots over the upper bits.
    let spread = conn.index().wrapping_mul(2_654_435_769);
    ((u64::from(range) * u64::from(spread)) >> 32) as u32
}
