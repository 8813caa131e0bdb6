//! From a readable socket to bytes that the protocol has consumed.

use std::collections::VecDeque;
use std::mem;

use nix::errno::Errno;

use super::Shard;
use crate::conn::id::ConnId;
use crate::conn::{Mark, State};
use crate::pool::NONE;
use crate::protocol::Protocol;
use crate::ring::{HANG_UP, Lease, Op, OpKind, Ring, Socket};

/// Of the connections whose peers have hung up, a turn reads so many.
const LEAVING_MAX: usize = 16;
/// The lists of those who wait to be read keep room for so many; what a burst took goes back.
const UNREAD_KEPT: usize = 256;
/// The timer of a connection that was held runs for so many ticks at least: time to read what came.
const RESUMED_TICKS: u16 = 2;

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// Waits for input, if nothing is in flight that will lead to it and the connection is not held.
    pub(super) fn wait(&mut self, id: ConnId) {
        let conn = self.out.conns.get(id).expect("there while it waits");
        let waits = matches!(conn.state, State::Open | State::Lingering) && !conn.held();
        if waits && !conn.reading() {
            let socket = conn.socket;
            self.push(id, OpKind::Poll, Op::Poll(socket));
        }
    }

    pub(super) fn ready(&mut self, id: ConnId, result: Result<u32, i32>) {
        let conn = self.out.conns.get(id).expect("there while it waits");
        match (conn.state, result) {
            // It is polled again when it is released.
            (State::Open, Ok(_)) if conn.held() => {}
            (State::Open | State::Lingering, Ok(events)) if events & HANG_UP != 0 => {
                self.leaves(id);
            }
            (State::Open | State::Lingering, Ok(_)) => self.read(id),
            (State::Open | State::Lingering, Err(errno)) => self.failed(id, errno),
            _ => {}
        }
    }

    /// Receives what is there, or waits for a buffer to receive it into.
    fn read(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it reads");
        let socket = conn.socket;
        // Whoever waits for a buffer already comes first.
        let lease = if self.starved.is_empty() { self.ring.lease() } else { None };
        match lease {
            Some(lease) => self.receive(id, socket, lease),
            None => {
                conn.marks.set(Mark::Unread);
                self.out.counters.starved.add(1);
                self.starved.push_back(id);
            }
        }
    }

    /// Its peer has hung up: what it has said is read when there is time.
    fn leaves(&mut self, id: ConnId) {
        let conn = self.out.conns.get_mut(id).expect("there while it reads");
        conn.marks.set(Mark::Unread);
        self.leaving.push_back(id);
    }

    fn receive(&mut self, id: ConnId, socket: Socket, lease: Lease) {
        self.out.counters.lent.add(1);
        self.push(id, OpKind::Recv, Op::Recv(socket, lease));
    }

    /// Gives buffers to those who wait for one, and then to some of those who leave.
    pub(super) fn feed(&mut self) {
        let mut starved = mem::take(&mut self.starved);
        self.feed_some(&mut starved, usize::MAX);
        self.starved = starved;
        let mut leaving = mem::take(&mut self.leaving);
        self.feed_some(&mut leaving, LEAVING_MAX);
        self.leaving = leaving;
    }

    fn feed_some(&mut self, unread: &mut VecDeque<ConnId>, most: usize) {
        let mut fed = 0;
        while fed < most
            && let Some(&id) = unread.front()
        {
            let conn = self.out.conns.get_mut(id).filter(|conn| conn.marks.has(Mark::Unread));
            let Some(conn) = conn else {
                unread.pop_front();
                continue;
            };
            if conn.held() {
                conn.marks.clear(Mark::Unread);
                unread.pop_front();
                continue;
            }
            let Some(lease) = self.ring.lease() else { return };
            unread.pop_front();
            conn.marks.clear(Mark::Unread);
            let socket = conn.socket;
            self.receive(id, socket, lease);
            fed += 1;
        }
        unread.shrink_to(UNREAD_KEPT);
    }

    pub(super) fn received(&mut self, id: ConnId, lease: &Lease, result: Result<u32, i32>) {
        let conn = self.out.conns.get(id).expect("there while it receives");
        let (state, held) = (conn.state, conn.held());
        match result {
            Ok(0) => self.ended(id),
            Ok(len) if state == State::Open => {
                self.out.counters.receives.add(1);
                self.out.counters.bytes_in.add(u64::from(len));
                if held {
                    return self.keep(id, lease, len as usize);
                }
                self.consume(id, lease, len as usize);
                let full = len as usize == self.ring.buffer(lease).len();
                self.go_on(id, full);
            }
            // Thrown away.
            Ok(_) => self.wait(id),
            Err(errno) => match Errno::from_raw(errno) {
                Errno::EAGAIN | Errno::EINTR => self.wait(id),
                _ => self.failed(id, errno),
            },
        }
    }

    /// Keeps what was on its way when the connection was held.
    fn keep(&mut self, id: ConnId, lease: &Lease, len: usize) {
        let bytes = &self.ring.buffer(lease)[..len];
        let conn = self.out.conns.get_mut(id).expect("there while it receives");
        match conn.tail {
            NONE => conn.tail = self.spill.insert(bytes.to_vec()),
            tail => self.spill.get_mut(tail).extend_from_slice(bytes),
        }
    }

    /// Offers the protocol what was received, behind what it left the last time.
    fn consume(&mut self, id: ConnId, lease: &Lease, len: usize) {
        let conn = self.out.conns.get_mut(id).expect("there while it receives");
        let tail = mem::replace(&mut conn.tail, NONE);
        let bytes = &mut self.ring.buffer(lease)[..len];
        let state = self.states[id.index() as usize].as_mut().expect("open");
        if tail == NONE {
            let consumed = self.protocol.received(id, state, bytes, &mut self.out);
            let conn = self.out.conns.get_mut(id).expect("there while it receives");
            conn.marks.clear(Mark::Resumed);
            if consumed < len && conn.state == State::Open {
                conn.tail = self.spill.insert(bytes[consumed..].to_vec());
            }
        } else {
            self.spill.get_mut(tail).extend_from_slice(bytes);
            self.consume_tail(id, tail);
        }
    }

    fn consume_tail(&mut self, id: ConnId, tail: u32) {
        let state = self.states[id.index() as usize].as_mut().expect("open");
        let bytes = self.spill.get_mut(tail);
        let consumed = self.protocol.received(id, state, bytes, &mut self.out);
        let conn = self.out.conns.get_mut(id).expect("there while it receives");
        conn.marks.clear(Mark::Resumed);
        if consumed == bytes.len() || conn.state != State::Open {
            self.spill.remove(tail);
        } else {
            bytes.drain(..consumed);
            conn.tail = tail;
        }
    }

    /// Reads on, unless the peer is to take what is queued for it first, or the connection is held.
    fn go_on(&mut self, id: ConnId, more_is_there: bool) {
        if self.out.congested(id) {
            self.out.counters.paused.add(1);
        } else if more_is_there && self.out.takes_input(id) {
            self.read(id);
        } else {
            self.wait(id);
        }
    }

    /// Goes on with the input of connections that are held no longer. Those that this releases are
    /// for the next turn.
    pub(super) fn resume_released(&mut self) {
        for id in mem::take(&mut self.out.released) {
            let Some(conn) = self.out.conns.get_mut(id) else { continue };
            conn.marks.clear(Mark::Released);
            if conn.state == State::Open && !conn.held() {
                conn.marks.set(Mark::Resumed);
                self.out.counters.resumed.add(1);
                // What came meanwhile is yet to be read: its peer is not to be late because of that.
                self.out.timers.defer(id.index(), RESUMED_TICKS);
                self.resume(id);
            }
        }
    }

    /// What input waited for is over, its answers have been sent or it is held no longer: goes on with
    /// it, unless the other is not over.
    pub(super) fn resume(&mut self, id: ConnId) {
        if !self.out.takes_input(id) {
            return;
        }
        let conn = self.out.conns.get_mut(id).expect("it takes input");
        if conn.reading() {
            return;
        }
        let tail = mem::replace(&mut conn.tail, NONE);
        if tail != NONE {
            self.consume_tail(id, tail);
        }
        if self.out.conns.get(id).is_some() {
            self.go_on(id, false);
        }
    }
}
