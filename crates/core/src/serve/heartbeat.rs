//! Pings of WebSockets, and the time limits of silent peers.

use std::time::Duration;

use murre_codec::encode;

use super::stage::WebSocket;
use super::{Handler, Serve};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

/// The checks of a silent WebSocket: the time between two, and the number of them after which the server
/// pings the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checks {
    interval: Duration,
    count: u8,
}

impl Checks {
    /// The checks that lead to a ping after `ping_interval`, at least one every `slow_timeout`.
    pub(super) fn new(ping_interval: Duration, slow_timeout: Duration) -> Self {
        let slow = slow_timeout.as_millis().max(1);
        let count = ping_interval.as_millis().div_ceil(slow).clamp(1, CHECKS_MAX.into()) as u8;
        Checks { interval: ping_interval / u32::from(count), count }
    }
}

const CHECKS_MAX: u8 = 250;
/// In place of a number of silent checks: the server has pinged the peer.
const PINGED: u8 = u8::MAX;

impl<H: Handler> Serve<H> {
    fn checks(&self, websocket: &WebSocket<H::Session>) -> Checks {
        match self.handler.ping_interval(&websocket.session) {
            None => self.checks,
            Some(interval) => Checks::new(interval, self.limits.slow_timeout),
        }
    }

    /// Records that the peer is alive: any input proves it. The timer keeps running while bytes are
    /// queued, because it also checks whether the peer takes them.
    pub(super) fn alive(
        &self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        if std::mem::replace(&mut websocket.silent, 0) == PINGED || out.queued(conn) == 0 {
            out.set_timer(conn, out.ticks(self.checks(websocket).interval));
        }
    }

    /// Sets the first timer of a WebSocket. The delay differs by slot, so that WebSockets opened
    /// together are pinged at different times.
    pub(super) fn first_ping(
        &self,
        conn: ConnId,
        websocket: &WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        let ticks = u32::from(out.ticks(self.checks(websocket).interval));
        out.set_timer(conn, (ticks - spread(conn, ticks / 2)) as u16);
    }

    /// No input has arrived since the last check. After enough of them the server pings the peer. It
    /// closes the connection if the peer left the last ping unanswered or has taken no queued bytes.
    pub(super) fn silent(
        &mut self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        // The shard does not read the input of this connection now, so it would not see a pong.
        let is_unread = !out.takes_input(conn);
        if websocket.silent == PINGED && !is_unread {
            return out.abort(conn, CloseReason::IdleTimeout);
        }
        if out.stands_still(conn) {
            return out.abort(conn, CloseReason::TooSlow);
        }
        let Checks { interval, count } = self.checks(websocket);
        if is_unread {
            return out.set_timer(conn, out.ticks(interval));
        }
        websocket.silent += 1;
        if websocket.silent < count {
            return out.set_timer(conn, out.ticks(interval));
        }
        websocket.silent = PINGED;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A silent peer is pinged after the ping interval, however many checks there are before, and no two
    /// checks are further apart than the slow timeout.
    #[test]
    fn checks_make_up_the_interval() {
        let seconds = Duration::from_secs_f64;
        for (ping, slow, count) in
            [(25.0, 25.0, 1), (60.0, 25.0, 3), (10.0, 25.0, 1), (2.0, 0.3, 7), (3600.0, 0.1, 250)]
        {
            let checks = Checks::new(seconds(ping), seconds(slow));
            assert_eq!(checks.count, count);
            let sum = checks.interval * count.into();
            assert!(sum <= seconds(ping) && sum + seconds(0.001) > seconds(ping));
        }
    }
}
