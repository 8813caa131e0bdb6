//! From queued bytes to bytes that the kernel has taken.

use std::mem;

use nix::errno::Errno;

use super::Shard;
use crate::conn::id::ConnId;
use crate::conn::{Mark, State};
use crate::protocol::Protocol;
use crate::ring::{Op, OpKind, Ring, SendData};

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// Sends what this turn queued, and takes what it closed one step further.
    pub(super) fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.out.dirty);
        for id in dirty.drain(..) {
            let Some(conn) = self.out.conns.get_mut(id) else { continue };
            conn.marks.clear(Mark::Dirty);
            match conn.state {
                State::Open => self.send(id),
                State::Closing if conn.queue.is_empty() => self.finish(id),
                State::Closing => self.send(id),
                State::Terminating => self.terminate(id),
                State::Free | State::Reserved | State::Lingering => {}
            }
        }
        // Nothing of the above marks a connection, so the list stays empty and is used again.
        debug_assert!(self.out.dirty.is_empty());
        self.out.dirty = dirty;
    }

    /// Hands the next piece to the kernel, one at a time: two could overtake each other.
    fn send(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it sends");
        if conn.in_flight.has(OpKind::Send) {
            return;
        }
        let socket = conn.socket;
        if let Some(data) = self.out.sends.take(&mut conn.queue) {
            self.push(id, OpKind::Send, Op::Send { socket, data, at: 0 });
        }
    }

    pub(super) fn sent(&mut self, id: ConnId, data: SendData, at: u32, result: Result<u32, i32>) {
        let conn = self.out.conns.get_mut(id).expect("there while it sends");
        let socket = conn.socket;
        let (len, going) = (data.len(), matches!(conn.state, State::Open | State::Closing));
        let sent = match result {
            Ok(sent) => sent,
            Err(errno) if matches!(Errno::from_raw(errno), Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => {
                conn.queue.done(len - at);
                self.out.sends.recycle(data);
                return self.failed(id, errno);
            }
        };
        self.out.counters.bytes_out.add(u64::from(sent));
        // Who takes our last bytes slowly takes them: each piece begins the time anew.
        if sent > 0 && conn.state == State::Closing {
            self.out.set_timer_after(id, self.out.linger);
        }
        let conn = self.out.conns.get_mut(id).expect("there while it sends");
        if sent > 0 {
            conn.marks.set(Mark::Took);
        }
        if at + sent < len && going {
            conn.queue.done(sent);
            self.out.counters.sends_short.add(1);
            return self.push(id, OpKind::Send, Op::Send { socket, data, at: at + sent });
        }
        conn.queue.done(len - at);
        self.out.counters.sends.add(1);
        self.out.sends.recycle(data);
        if !going {
            return;
        }
        let conn = self.out.conns.get(id).expect("there while it sends");
        if conn.queue.has_waiting() || conn.state == State::Closing {
            return self.out.mark(id);
        }
        let state = self.states[id.index() as usize].as_mut().expect("open");
        self.protocol.drained(id, state, &mut self.out);
        self.resume(id);
    }
}
