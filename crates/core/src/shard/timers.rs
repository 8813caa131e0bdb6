//! Timers that expire.

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::conn::id::ConnId;
use crate::conn::{CloseReason, State};
use crate::outbox::Outbox;
use crate::protocol::Protocol;
use crate::ring::Ring;

/// Timers that a turn handles at most; the rest wait for the next. The bytes queued for them take
/// memory, and the allocator keeps what a burst of it took.
const EXPIRED_MAX: usize = 256;

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// Tells the protocol which timers have expired, a slice of the connections at a time.
    pub(super) fn expire(&mut self) {
        for _ in 0..EXPIRED_MAX {
            let Some(conn) = self.next_expired() else { return };
            // It may have closed, or have set another timer, since the sweep.
            if self.out.conns.get(conn).is_some() && !self.out.timers.is_set(conn.index()) {
                self.expired(conn);
            }
        }
    }

    /// A connection whose timer has expired. `None` when the sweep has caught up with the clock.
    fn next_expired(&mut self) -> Option<ConnId> {
        loop {
            if let Some(conn) = self.expired.pop() {
                return Some(conn);
            }
            let Outbox { conns, timers, now, due, .. } = &mut self.out;
            *due = timers.next();
            if !timers.sweep(*now, |index| self.expired.extend(conns.at(index))) {
                return None;
            }
        }
    }

    /// Tells the protocol which timers of sessions have expired.
    pub(super) fn expire_sessions(&mut self) {
        for _ in 0..EXPIRED_MAX {
            let Some(index) = self.out.session_timers.expire(self.out.now) else { return };
            let open = self.out.conns.at(index).filter(|&conn| self.out.is_open(conn));
            if let Some(conn) = open {
                self.protocol.session_expired(conn, &mut self.states[conn], &mut self.out);
            }
        }
    }

    fn expired(&mut self, conn: ConnId) {
        match self.out.conns[conn].state {
            State::Open => self.protocol.expired(conn, &mut self.states[conn], &mut self.out),
            // The machine stood still or is overloaded: the peer may have done its part.
            State::Closing | State::Lingering if self.out.behind(conn) => {
                self.out.timers.set(conn.index(), 1);
            }
            // The peer takes too long to read our last bytes or to close its side.
            State::Closing | State::Lingering => self.out.abort(conn, CloseReason::Finished),
            // The shutdown failed.
            State::Terminating => self.out.schedule_flush(conn),
            State::Free | State::Reserved => {}
        }
    }
}
