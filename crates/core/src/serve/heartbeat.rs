//! Signs of life, and what becomes of a peer that gives none.

use murre_codec::encode;

use super::stage::WebSocket;
use super::{Handler, Serve};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// Anything that arrives is a sign of life; what we send is none. The timer runs on if the peer
    /// has yet to take something: somebody looks whether it does.
    pub(super) fn alive(
        &self,
        id: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        if std::mem::replace(&mut websocket.pinged, false) || out.queued(id) == 0 {
            out.set_timer(id, out.ticks(self.limits.look_interval()));
        }
    }

    /// The first timer of a WebSocket: those opened together are pinged at different times.
    pub(super) fn first_ping(&self, id: ConnId, out: &mut Outbox) {
        let ticks = u32::from(out.ticks(self.limits.look_interval()));
        out.set_timer(id, (ticks - spread(id, ticks / 2)) as u16);
    }

    /// Nothing has arrived for an interval: asks, and if it was asked already gives up. Or something is
    /// queued: gives up if none of it was taken.
    pub(super) fn silent(
        &mut self,
        id: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        // Then it is not read, so it cannot be heard.
        let deaf = !out.takes_input(id);
        if websocket.pinged && !deaf {
            return out.abort(id, CloseReason::IdleTimeout);
        }
        if out.stands_still(id) {
            return out.abort(id, CloseReason::TooSlow);
        }
        if deaf {
            return out.set_timer(id, out.ticks(self.limits.look_interval()));
        }
        websocket.pinged = true;
        self.counters.pings.add(1);
        // A ping that cannot be queued is the connection's end.
        let _ = out.send(id, &encode::PING);
        out.set_timer(id, out.ticks(self.limits.pong_timeout));
    }
}

/// A number below `range`, different for neighbouring slots.
pub(super) fn spread(id: ConnId, range: u32) -> u32 {
    // Multiplying by 2^32 / golden ratio spreads neighbouring slots over the upper bits.
    let spread = id.index().wrapping_mul(2_654_435_769);
    ((u64::from(range) * u64::from(spread)) >> 32) as u32
}
