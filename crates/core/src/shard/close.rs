//! From the peer's last byte, or ours, to a free slot.

use std::mem;

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::conn::id::ConnId;
use crate::conn::{CloseReason, Flag, State};
use crate::pool::NONE;
use crate::protocol::Protocol;
use crate::ring::{Op, OpKind, Ring, ShutdownHow, ShutdownStatus, Token};

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// The peer has sent FIN. The bytes that are queued for it are still sent.
    pub(super) fn peer_ended(&mut self, conn: ConnId) {
        let slot = &self.out.conns[conn];
        match slot.state {
            State::Open if !slot.queue.is_empty() => self.out.close(conn, CloseReason::PeerClosed),
            // The FIN is found again when everything is sent.
            State::Closing if !slot.queue.is_empty() => {}
            _ => self.out.abort(conn, CloseReason::PeerClosed),
        }
    }

    /// An operation on the socket failed: the connection is over.
    pub(super) fn failed(&mut self, conn: ConnId, errno: i32) {
        let reason = CloseReason::of_errno(errno);
        if reason == CloseReason::Failed {
            tracing::warn!(
                errno,
                conn = conn.index(),
                "an operation failed; closing its connection"
            );
        }
        self.out.abort(conn, reason);
    }

    /// Everything is sent: sends FIN, and discards input until the peer's FIN.
    pub(super) fn finish(&mut self, conn: ConnId) {
        self.out.conns[conn].state = State::Lingering;
        self.begin_shutdown(conn, ShutdownHow::Write);
        self.wait(conn);
    }

    fn begin_shutdown(&mut self, conn: ConnId, how: ShutdownHow) {
        let slot = &mut self.out.conns[conn];
        let token = Token { kind: OpKind::Shutdown, id: conn };
        if self.ring.begin_shutdown(slot.socket, how, token) == ShutdownStatus::Pending {
            slot.in_flight.begin(OpKind::Shutdown);
        }
    }

    pub(super) fn on_shutdown_done(&mut self, conn: ConnId, result: Result<u32, i32>) {
        if result.is_ok() {
            return;
        }
        // Tries again if the connection's end depends on it. A failed FIN is not repeated: the linger
        // timeout ends the connection without it.
        let slot = &mut self.out.conns[conn];
        slot.flags.clear(Flag::ShutDown);
        if slot.state == State::Terminating {
            // In a tick: the machine has nothing left to do it with now.
            self.out.timers.set(conn.index(), 1);
        }
    }

    /// Ends the operations in flight, then closes the socket.
    pub(super) fn terminate(&mut self, conn: ConnId) {
        let slot = &mut self.out.conns[conn];
        let socket = slot.socket;
        slot.flags.clear(Flag::Unread);
        if slot.in_flight.is_empty() {
            self.push(conn, OpKind::Close, Op::Close(socket));
        } else if slot.in_flight.needs_shutdown() && !slot.flags.set(Flag::ShutDown) {
            self.begin_shutdown(conn, ShutdownHow::Both);
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        let slot = &mut self.out.conns[conn];
        let (tail, reason) = (mem::replace(&mut slot.tail, NONE), slot.reason);
        self.out.addresses.leave(slot.place);
        if tail != NONE {
            self.spill.remove(tail);
        }
        self.out.timers.clear(conn.index());
        self.out.session_timers.clear(conn.index());
        self.out.conns.free(conn);
        // A connect that failed has no state.
        if let Some(state) = self.states.remove(conn) {
            let counters = &self.out.counters;
            counters.closed[reason as usize].add(1);
            counters.open.set(counters.open.get() - 1);
            self.stage.closed(conn);
            self.protocol.closed(conn, state, reason, &mut self.out);
        }
    }
}
