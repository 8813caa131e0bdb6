//! From a readable socket to bytes that the protocol has consumed.

use std::collections::VecDeque;
use std::mem;

use nix::errno::Errno;

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::conn::id::ConnId;
use crate::conn::{Flag, State};
use crate::outbox::Outbox;
use crate::pool::NONE;
use crate::protocol::Protocol;
use crate::ring::{HANG_UP, Lease, Op, OpKind, Ring, Socket};

/// Connections that a turn reads of those whose peers have hung up.
const HUNG_UP_MAX: usize = 16;
/// The lists of unread connections keep capacity for this many; a burst's memory is freed.
const UNREAD_KEPT: usize = 256;
/// The timer of a connection that was held runs for at least this many ticks: time to read the input that
/// arrived meanwhile.
const RESUMED_TICKS: u16 = 2;

/// Received bytes that the protocol has not consumed.
pub(super) struct Tail {
    bytes: Vec<u8>,
    /// The bytes at the front that the byte stage has opened.
    plain: usize,
}

/// The received bytes that are left: those from `start` to `end`, of which the first `plain` are opened.
struct Rest {
    start: usize,
    end: usize,
    plain: usize,
}

/// What is known of a socket's receive queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readable {
    /// The receive filled its buffer, so there may be more.
    Maybe,
    /// Only a poll can tell.
    Unknown,
}

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// Polls the socket, unless an operation that leads to input is in flight or the connection is held.
    pub(super) fn wait(&mut self, conn: ConnId) {
        let slot = &self.out.conns[conn];
        let waits = matches!(slot.state, State::Open | State::Lingering) && !slot.is_held();
        if waits && !slot.is_reading() {
            let socket = slot.socket;
            self.push(conn, OpKind::Poll, Op::Poll(socket));
        }
    }

    pub(super) fn ready(&mut self, conn: ConnId, result: Result<u32, i32>) {
        let slot = &self.out.conns[conn];
        match (slot.state, result) {
            // It is polled again when it is released.
            (State::Open, Ok(_)) if slot.is_held() => {}
            (State::Open | State::Lingering, Ok(events)) if events & HANG_UP != 0 => {
                self.read_later(conn);
            }
            (State::Open | State::Lingering, Ok(_)) => self.read(conn),
            (State::Open | State::Lingering, Err(errno)) => self.failed(conn, errno),
            _ => {}
        }
    }

    /// Receives into a buffer, or queues for one. Connections that wait for a buffer already come first.
    fn read(&mut self, conn: ConnId) {
        let lease = if self.starved.is_empty() { self.ring.lease() } else { None };
        let slot = &mut self.out.conns[conn];
        match lease {
            Some(lease) => {
                let socket = slot.socket;
                self.receive(conn, socket, lease);
            }
            None => {
                slot.flags.set(Flag::Unread);
                self.out.counters.starved.add(1);
                self.starved.push_back(conn);
            }
        }
    }

    /// The peer has hung up: its last bytes are read when there is time.
    fn read_later(&mut self, conn: ConnId) {
        self.out.conns[conn].flags.set(Flag::Unread);
        self.hung_up.push_back(conn);
    }

    fn receive(&mut self, conn: ConnId, socket: Socket, lease: Lease) {
        self.out.counters.lent.add(1);
        self.push(conn, OpKind::Recv, Op::Recv(socket, lease));
    }

    /// Gives buffers to connections that wait for one, then to some whose peers have hung up.
    pub(super) fn feed(&mut self) {
        let mut starved = mem::take(&mut self.starved);
        self.feed_some(&mut starved, usize::MAX);
        self.starved = starved;
        let mut hung_up = mem::take(&mut self.hung_up);
        self.feed_some(&mut hung_up, HUNG_UP_MAX);
        self.hung_up = hung_up;
    }

    fn feed_some(&mut self, unread: &mut VecDeque<ConnId>, most: usize) {
        let mut fed = 0;
        while fed < most
            && let Some(&conn) = unread.front()
        {
            let slot = self.out.conns.get_mut(conn).filter(|slot| slot.flags.has(Flag::Unread));
            let Some(slot) = slot else {
                unread.pop_front();
                continue;
            };
            if slot.is_held() {
                slot.flags.clear(Flag::Unread);
                unread.pop_front();
                continue;
            }
            let Some(lease) = self.ring.lease() else { return };
            unread.pop_front();
            slot.flags.clear(Flag::Unread);
            let socket = slot.socket;
            self.receive(conn, socket, lease);
            fed += 1;
        }
        unread.shrink_to(UNREAD_KEPT);
    }

    pub(super) fn received(&mut self, conn: ConnId, lease: &Lease, result: Result<u32, i32>) {
        let slot = &self.out.conns[conn];
        let (state, is_held) = (slot.state, slot.is_held());
        match result {
            Ok(0) => self.peer_ended(conn),
            Ok(len) if state == State::Open => {
                self.out.counters.receives.add(1);
                self.out.counters.bytes_in.add(u64::from(len));
                if is_held {
                    return self.keep(conn, lease, len as usize);
                }
                self.consume(conn, lease, len as usize);
                let is_full = len as usize == self.ring.buffer(lease).len();
                self.go_on(conn, if is_full { Readable::Maybe } else { Readable::Unknown });
            }
            // The input of a closing connection is discarded.
            Ok(_) => self.wait(conn),
            Err(errno) => match Errno::from_raw(errno) {
                Errno::EAGAIN | Errno::EINTR => self.wait(conn),
                _ => self.failed(conn, errno),
            },
        }
    }

    /// Keeps bytes whose receive was in flight when the connection was held.
    fn keep(&mut self, conn: ConnId, lease: &Lease, len: usize) {
        let bytes = &self.ring.buffer(lease)[..len];
        let slot = &mut self.out.conns[conn];
        match slot.tail {
            NONE => slot.tail = self.spill.insert(Tail { bytes: bytes.to_vec(), plain: 0 }),
            tail => self.spill.get_mut(tail).bytes.extend_from_slice(bytes),
        }
    }

    /// Offers the received bytes to the protocol, behind those that it has left before.
    fn consume(&mut self, conn: ConnId, lease: &Lease, len: usize) {
        let tail = mem::replace(&mut self.out.conns[conn].tail, NONE);
        let bytes = &mut self.ring.buffer(lease)[..len];
        if tail != NONE {
            self.spill.get_mut(tail).bytes.extend_from_slice(bytes);
            return self.consume_tail(conn, tail);
        }
        let Shard { stage, protocol, states, out, .. } = self;
        if let Some(rest) = offer(conn, bytes, 0, stage, protocol, &mut states[conn], out) {
            let tail = Tail { bytes: bytes[rest.start..rest.end].to_vec(), plain: rest.plain };
            self.out.conns[conn].tail = self.spill.insert(tail);
        }
    }

    fn consume_tail(&mut self, conn: ConnId, tail: u32) {
        let Shard { stage, protocol, states, out, spill, .. } = self;
        let Tail { bytes, plain } = spill.get_mut(tail);
        match offer(conn, bytes, *plain, stage, protocol, &mut states[conn], out) {
            None => drop(spill.remove(tail)),
            Some(rest) => {
                bytes.truncate(rest.end);
                bytes.drain(..rest.start);
                *plain = rest.plain;
                out.conns[conn].tail = tail;
            }
        }
    }

    /// Reads on, unless the connection is held or the peer first has to take queued bytes.
    fn go_on(&mut self, conn: ConnId, readable: Readable) {
        if self.out.congested(conn) {
            self.out.counters.paused.add(1);
        } else if readable == Readable::Maybe && self.out.takes_input(conn) {
            self.read(conn);
        } else {
            self.wait(conn);
        }
    }

    /// Resumes connections that are no longer held. Those that are released meanwhile are resumed in the
    /// next turn.
    pub(super) fn resume_released(&mut self) {
        for conn in mem::take(&mut self.out.released) {
            let Some(slot) = self.out.conns.get_mut(conn) else { continue };
            slot.flags.clear(Flag::Released);
            if slot.state == State::Open && !slot.is_held() {
                slot.flags.set(Flag::Resumed);
                self.out.counters.resumed.add(1);
                // The input of the time in which it was held has yet to be read: the peer is not late.
                self.out.timers.defer(conn.index(), RESUMED_TICKS);
                self.resume(conn);
            }
        }
    }

    /// Goes on with the input of a connection whose queue has been sent, or which is no longer held,
    /// unless another reason to wait remains.
    pub(super) fn resume(&mut self, conn: ConnId) {
        // Nearly always its poll is in flight, which needs one look at the slot.
        if self.out.conns[conn].is_reading() || !self.out.takes_input(conn) {
            return;
        }
        let tail = mem::replace(&mut self.out.conns[conn].tail, NONE);
        if tail != NONE {
            self.consume_tail(conn, tail);
        }
        self.go_on(conn, Readable::Unknown);
    }
}

/// Opens received bytes, of which the first `plain` are opened already, and offers them to the protocol.
/// `None` if nothing is left, or the connection has ended.
fn offer<P: Protocol, B: ByteStage>(
    conn: ConnId,
    bytes: &mut [u8],
    plain: usize,
    stage: &mut B,
    protocol: &mut P,
    state: &mut P::State,
    out: &mut Outbox,
) -> Option<Rest> {
    let opened = match stage.open(conn, bytes, plain) {
        Ok(opened) => opened,
        Err(reason) => {
            out.drop_waiting(conn);
            out.close(conn, reason);
            return None;
        }
    };
    if opened.answers {
        out.schedule_flush(conn);
    }
    let mut start = 0;
    if opened.plain > 0 {
        start = protocol.received(conn, state, &mut bytes[..opened.plain], out);
        out.conns[conn].flags.clear(Flag::Resumed);
    }
    let is_left = start < opened.len && out.conns[conn].state == State::Open;
    is_left.then(|| Rest { start, end: opened.len, plain: opened.plain - start })
}
