//! From the last byte to a free slot.

use std::mem;

use super::Shard;
use crate::conn::id::ConnId;
use crate::conn::{CloseReason, Mark, State};
use crate::pool::NONE;
use crate::protocol::Protocol;
use crate::ring::{Op, OpKind, Ring, ShutdownHow, ShutdownStatus, Token};

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// The peer has sent its last byte. What is queued for it is still sent.
    pub(super) fn ended(&mut self, id: ConnId) {
        let conn = self.out.conns.get(id).expect("there while it receives");
        match conn.state {
            State::Open if !conn.queue.is_empty() => self.out.close(id, CloseReason::PeerClosed),
            // It is found again when everything is sent.
            State::Closing if !conn.queue.is_empty() => {}
            _ => self.out.abort(id, CloseReason::PeerClosed),
        }
    }

    /// An operation on the socket failed: the connection is over.
    pub(super) fn failed(&mut self, id: ConnId, errno: i32) {
        let reason = CloseReason::of_errno(errno);
        if reason == CloseReason::Failed {
            tracing::warn!(errno, conn = id.index(), "closing a connection that the kernel failed");
        }
        self.out.abort(id, reason);
    }

    /// Everything is sent: FIN, and then the peer's last words are thrown away.
    pub(super) fn finish(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        conn.state = State::Lingering;
        self.shutdown(id, ShutdownHow::Write);
        self.wait(id);
    }

    fn shutdown(&mut self, id: ConnId, how: ShutdownHow) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        let token = Token { kind: OpKind::Shutdown, id };
        if self.ring.begin_shutdown(conn.socket, how, token) == ShutdownStatus::Pending {
            conn.in_flight.begin(OpKind::Shutdown);
        }
    }

    pub(super) fn shut_down(&mut self, id: ConnId, result: Result<u32, i32>) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        if result.is_ok() {
            return;
        }
        // Once more, if something still depends on it. A FIN that was not sent does not: the end of
        // the linger comes without it.
        conn.marks.clear(Mark::Shut);
        if conn.state == State::Terminating {
            // Not at once: the machine has nothing left to do it with.
            self.out.timers.set(id.index(), 1);
        }
    }

    /// Ends what is in flight, then the socket.
    pub(super) fn terminate(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it ends");
        let socket = conn.socket;
        conn.marks.clear(Mark::Unread);
        if conn.in_flight.is_empty() {
            self.push(id, OpKind::Close, Op::Close(socket));
        } else if conn.in_flight.waits() && !conn.marks.set(Mark::Shut) {
            self.shutdown(id, ShutdownHow::Both);
        }
    }

    pub(super) fn closed(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there until it is closed");
        let (tail, reason) = (mem::replace(&mut conn.tail, NONE), conn.reason);
        self.out.addresses.leave(conn.place);
        if tail != NONE {
            self.spill.remove(tail);
        }
        self.out.timers.clear(id.index());
        self.out.session_timers.clear(id.index());
        self.out.conns.free(id);
        // A connection that could not be made has no state.
        let state = self.states.get_mut(id.index() as usize).and_then(Option::take);
        if let Some(state) = state {
            let counters = &self.out.counters;
            counters.closed[reason as usize].add(1);
            counters.open.set(counters.open.get() - 1);
            self.protocol.closed(id, state, reason, &mut self.out);
        }
    }
}
