//! The end of a shard's service.

use super::Shard;
use super::drain_schedule::DrainSchedule;
use crate::byte_stage::ByteStage;
use crate::conn::id::ConnId;
use crate::protocol::Protocol;
use crate::ring::Ring;

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// Asks the protocol to end the connections that are due, and ends the shard when the last is gone.
    pub(super) fn drain(&mut self) {
        if let Some(over) = self.out.drain.take() {
            self.ring.stop_listening();
            self.accepts.listening = false;
            let slots = self.out.conns.len();
            let seed = fastrand::u32(..);
            self.drain = Some(DrainSchedule::new(self.out.now, over, self.out.linger, slots, seed));
        }
        let Some(drain) = &mut self.drain else { return };
        let (due, over) = (drain.due(self.out.now), drain.over(self.out.now));
        for index in due {
            if let Some(conn) = self.out.conns.at(index) {
                self.leave(conn);
            }
        }
        if over || self.is_empty() && self.protocol.may_end() {
            self.out.stopped = true;
        }
    }

    pub(super) fn leave(&mut self, conn: ConnId) {
        if self.out.is_open(conn) {
            self.protocol.leave(conn, &mut self.states[conn], &mut self.out);
        }
    }
}
