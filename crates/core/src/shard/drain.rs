//! The end of a shard's service.

use super::Shard;
use super::drain_schedule::Drain;
use crate::conn::id::ConnId;
use crate::protocol::Protocol;
use crate::ring::Ring;

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// Has the connections leave, as far as the time that has passed allows.
    pub(super) fn drain(&mut self) {
        if let Some(over) = self.out.drain.take() {
            self.ring.stop_listening();
            self.accepts.listening = false;
            let slots = self.out.conns.len();
            let seed = fastrand::u32(..);
            self.drain = Some(Drain::new(self.out.now, over, self.out.linger, slots, seed));
        }
        let Some(drain) = &mut self.drain else { return };
        let (due, over) = (drain.due(self.out.now), drain.over(self.out.now));
        for index in due {
            if let Some(id) = self.out.conns.at(index) {
                self.leave(id);
            }
        }
        if over || self.is_empty() && self.protocol.may_end() {
            self.out.stopped = true;
        }
    }

    pub(super) fn leave(&mut self, id: ConnId) {
        if self.out.is_open(id) {
            let state = self.states[id.index() as usize].as_mut().expect("open");
            self.protocol.leave(id, state, &mut self.out);
        }
    }
}
