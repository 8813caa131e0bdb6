//! From queued bytes to bytes that the kernel has taken.

use std::mem;

use nix::errno::Errno;

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::conn::id::ConnId;
use crate::conn::send_queue::SendPool;
use crate::conn::{Conn, Flag, State};
use crate::outbox::Outbox;
use crate::protocol::Protocol;
use crate::ring::{Op, OpKind, Ring, SendData, Token};

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// Sends the bytes that this turn queued, and takes the connections that it closed one step further.
    pub(super) fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.out.dirty);
        for conn in dirty.drain(..) {
            let Shard { out: Outbox { conns, sends, .. }, stage, ring, .. } = self;
            let Some(slot) = conns.get_mut(conn) else { continue };
            slot.flags.clear(Flag::Dirty);
            match slot.state {
                State::Closing if slot.queue.is_empty() => self.send_last(conn),
                State::Open | State::Closing => send(conn, slot, sends, stage, ring),
                State::Terminating => self.terminate(conn),
                State::Free | State::Reserved | State::Lingering => {}
            }
        }
        // None of these schedules a flush, so the list stays empty and its memory is used again.
        debug_assert!(self.out.dirty.is_empty());
        self.out.dirty = dirty;
    }

    /// Everything that was queued is sent: sends what the byte stage ends the connection with, then FIN.
    fn send_last(&mut self, conn: ConnId) {
        match self.stage.end(conn) {
            Some(data) => {
                let slot = &mut self.out.conns[conn];
                slot.queue.replace(0, data.len());
                let socket = slot.socket;
                self.push(conn, OpKind::Send, Op::Send { socket, data, at: 0 });
            }
            None => self.finish(conn),
        }
    }

    pub(super) fn sent(&mut self, conn: ConnId, data: SendData, at: u32, result: Result<u32, i32>) {
        let slot = &mut self.out.conns[conn];
        let (socket, state, len) = (slot.socket, slot.state, data.len());
        let is_reading = slot.is_reading();
        let sent = match result {
            Ok(sent) => sent,
            Err(errno) if matches!(Errno::from_raw(errno), Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => {
                slot.queue.done(len - at);
                self.out.sends.recycle(data);
                return self.failed(conn, errno);
            }
        };
        let sends_on = matches!(state, State::Open | State::Closing);
        let is_partial = at + sent < len && sends_on;
        slot.queue.done(if is_partial { sent } else { len - at });
        if sent > 0 {
            slot.flags.set(Flag::Progressed);
        }
        let has_waiting = slot.queue.has_waiting();
        self.out.counters.bytes_out.add(u64::from(sent));
        // Any progress restarts the linger timer.
        if sent > 0 && state == State::Closing {
            self.out.set_timer_after(conn, self.out.linger);
        }
        if is_partial {
            self.out.counters.sends_short.add(1);
            return self.push(conn, OpKind::Send, Op::Send { socket, data, at: at + sent });
        }
        self.out.counters.sends.add(1);
        self.out.sends.recycle(data);
        match state {
            State::Open if !has_waiting => {
                self.protocol.drained(conn, &mut self.states[conn], &mut self.out);
                if !is_reading {
                    self.resume(conn);
                }
            }
            State::Open | State::Closing => self.out.schedule_flush(conn),
            _ => {}
        }
    }
}

/// Hands the connection's next piece to the kernel, one at a time: two could overtake each other.
fn send<R: Ring, B: ByteStage>(
    conn: ConnId,
    slot: &mut Conn,
    sends: &mut SendPool,
    stage: &mut B,
    ring: &mut R,
) {
    if slot.in_flight.has(OpKind::Send) {
        return;
    }
    let mut queued = 0;
    let piece = stage.take(conn, || {
        let data = sends.take(&mut slot.queue)?;
        queued = data.len();
        Some(data)
    });
    let Some(data) = piece else { return };
    slot.queue.replace(queued, data.len());
    slot.in_flight.begin(OpKind::Send);
    let send = Op::Send { socket: slot.socket, data, at: 0 };
    ring.push(send, Token { kind: OpKind::Send, id: conn });
}
