//! Timers that run out.

use super::Shard;
use crate::conn::id::ConnId;
use crate::conn::{CloseReason, State};
use crate::outbox::Outbox;
use crate::protocol::Protocol;
use crate::ring::Ring;

/// A turn deals with so many expired timers at most; the rest are due in the next. What is queued
/// for them takes memory, and the allocator keeps what a burst of it took.
const EXPIRED_MAX: usize = 256;

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// Tells the protocol whose timers ran out, a slice of the connections at a time.
    pub(super) fn expire(&mut self) {
        for _ in 0..EXPIRED_MAX {
            while self.expired.is_empty() {
                let Outbox { conns, timers, now, due, .. } = &mut self.out;
                *due = timers.next();
                let swept = timers.sweep(*now, |index| self.expired.extend(conns.at(index)));
                if !swept {
                    return;
                }
            }
            let id = self.expired.pop().expect("just made sure");
            // It may have gone since, or been heard of.
            if self.out.conns.get(id).is_some() && !self.out.timers.is_set(id.index()) {
                self.expired(id);
            }
        }
    }

    /// Tells the protocol whose sessions' timers ran out; of many, the rest in the next turn.
    pub(super) fn expire_sessions(&mut self) {
        for _ in 0..EXPIRED_MAX {
            let Some(index) = self.out.session_timers.expire(self.out.now) else { return };
            let open = self.out.conns.at(index).filter(|&id| self.out.is_open(id));
            if let Some(id) = open {
                let state = self.states[index as usize].as_mut().expect("open");
                self.protocol.session_expired(id, state, &mut self.out);
            }
        }
    }

    fn expired(&mut self, id: ConnId) {
        match self.out.conns.get(id).expect("there while it has a timer").state {
            State::Open => {
                let state = self.states[id.index() as usize].as_mut().expect("open");
                self.protocol.expired(id, state, &mut self.out);
            }
            // The machine stood still or is overloaded: the peer may have done its part.
            State::Closing | State::Lingering if self.out.behind(id) => {
                self.out.timers.set(id.index(), 1);
            }
            // The peer takes too long to read our last bytes or to close its side.
            State::Closing | State::Lingering => self.out.abort(id, CloseReason::Finished),
            // It could not be shut down.
            State::Terminating => self.out.mark(id),
            State::Free | State::Reserved => {}
        }
    }
}
