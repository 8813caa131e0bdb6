//! What a protocol can do: queue bytes, close connections, set timers. It cannot reach the ring,
//! so it cannot block.

use std::collections::VecDeque;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::addresses::{Addresses, Excess};
use crate::admission::{Admission, Gate};
use crate::conn::id::ConnId;
use crate::conn::send_queue::SendPool;
use crate::conn::session_timers::SessionTimers;
use crate::conn::slab::Slab;
use crate::conn::timers::Timers;
use crate::conn::{CloseReason, Conn, Mark, State};
use crate::counters::Counters;
use crate::peers::Peers;

/// One shard's connections, as a protocol may use them.
pub struct Outbox {
    pub(crate) conns: Slab,
    pub(crate) sends: SendPool,
    pub(crate) timers: Timers,
    pub(crate) session_timers: SessionTimers,
    pub(crate) counters: Arc<Counters>,
    /// Connections with something to send or to finish, each once.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections that are held no longer, each once.
    pub(crate) released: Vec<ConnId>,
    pub(crate) connects: VecDeque<Connect>,
    pub(crate) now: Instant,
    pub(crate) due: Instant,
    pub(crate) send_bytes_max: u32,
    pub(crate) congested_bytes: u32,
    pub(crate) linger: Duration,
    pub(crate) retry_after: u16,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) peers: Peers,
    /// The number of this shard.
    pub(crate) shard: u16,
    pub(crate) gate: Arc<Gate>,
    /// Connections of this turn that were refused as they came.
    pub(crate) turned_away: u32,
    pub(crate) stopped: bool,
    pub(crate) drain: Option<Duration>,
    pub(crate) draining: bool,
    /// A drain follows; see [`Outbox::is_ready`].
    pub(crate) unready: bool,
}

/// A connection that a protocol asked for.
pub(crate) struct Connect {
    pub(crate) id: ConnId,
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
}

/// What became of bytes to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Queued {
    /// They will be sent, or the connection will end.
    Yes,
    /// The connection is gone or going. Not an error: it can happen at any time.
    Gone,
    /// The peer reads too slowly. It is being closed, and these bytes are dropped.
    SlowConsumer,
}

impl Outbox {
    /// Queues bytes that several connections may share.
    pub fn send(&mut self, id: ConnId, frame: &Bytes) -> Queued {
        self.queue(id, |conn, sends| sends.push(&mut conn.queue, frame))
    }

    /// Lets `write` append to the connection's own buffer of bytes to send.
    pub fn write(&mut self, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> Queued {
        self.queue(id, |conn, sends| sends.write(&mut conn.queue, write))
    }

    /// The same for an answer to the peer's own input. The bound of the queue does not apply: the
    /// caller bounds what it takes of the input instead, by [`congested`](Outbox::congested) and by how
    /// many answers are to come.
    pub fn write_answer(&mut self, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> Queued {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.state == State::Open) else {
            return Queued::Gone;
        };
        self.sends.write(&mut conn.queue, write);
        self.mark(id);
        Queued::Yes
    }

    /// Lets `write` append to the connection's own buffer, and queues shared bytes behind it: one
    /// answer, whose head cannot make a slow consumer of who has yet to get its body.
    pub fn write_and_send(
        &mut self,
        id: ConnId,
        write: impl FnOnce(&mut Vec<u8>),
        frame: &Bytes,
    ) -> Queued {
        self.queue(id, |conn, sends| {
            sends.write(&mut conn.queue, write);
            sends.push(&mut conn.queue, frame);
        })
    }

    /// Lets `write` append the last bytes of the connection, sends what is queued, then closes. The
    /// bound of the queue does not apply, because nothing can follow.
    pub fn close_with(
        &mut self,
        id: ConnId,
        reason: CloseReason,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.state == State::Open {
            self.sends.write(&mut conn.queue, write);
            self.close(id, reason);
        }
    }

    /// The abort is the last resort: a protocol that queues nothing while the connection is
    /// [`congested`](Outbox::congested) never meets it, however long its messages are.
    fn queue(&mut self, id: ConnId, add: impl FnOnce(&mut Conn, &mut SendPool)) -> Queued {
        let Some(conn) = self.conns.get_mut(id) else { return Queued::Gone };
        if conn.state != State::Open {
            return Queued::Gone;
        }
        if conn.queue.bytes() > self.send_bytes_max {
            self.abort(id, CloseReason::SlowConsumer);
            return Queued::SlowConsumer;
        }
        add(conn, &mut self.sends);
        self.mark(id);
        Queued::Yes
    }

    /// Whether so much is queued that the connection's input should not be worked on further:
    /// [`ShardConfig::congested_bytes`](crate::ShardConfig::congested_bytes), or the bound of the queue
    /// where that is lower.
    pub fn congested(&self, id: ConnId) -> bool {
        let enough = self.congested_bytes.min(self.send_bytes_max).max(1);
        self.conns.get(id).is_some_and(|conn| conn.queue.bytes() >= enough)
    }

    /// Stops the connection's input: until [`release`](Outbox::release) the protocol is offered none,
    /// the socket is not polled, and what has been received stays where it is.
    ///
    /// A held connection can still be written to and closed. That its peer has gone is noticed only
    /// when it is released or something is sent to it.
    pub fn hold(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.state == State::Open) {
            conn.marks.set(Mark::Held);
        }
    }

    /// Has the input of a held connection go on at the end of this turn, unless it is held again by
    /// then, or once it is not congested.
    pub fn release(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.held()) else { return };
        conn.marks.clear(Mark::Held);
        if !conn.marks.set(Mark::Released) {
            self.released.push(id);
        }
    }

    /// Whether the connection's input is held.
    pub fn is_held(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(Conn::held)
    }

    /// Whether the connection was held at any time since the protocol was last offered its input. The
    /// hold may have delayed the input that the protocol is offered now.
    pub fn was_held(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.marks.has(Mark::Resumed))
    }

    /// Whether the protocol is to take more of the connection's input: it is open, not congested and
    /// not held.
    pub fn takes_input(&self, id: ConnId) -> bool {
        self.is_open(id) && !self.is_held(id) && !self.congested(id)
    }

    /// Whether so much is queued that whoever queues more has a slow consumer.
    pub fn over_bound(&self, id: ConnId) -> bool {
        self.queued(id) > self.send_bytes_max
    }

    /// Bytes that are queued for the connection and have not left.
    pub fn queued(&self, id: ConnId) -> u32 {
        self.conns.get(id).map_or(0, |conn| conn.queue.bytes())
    }

    /// Whether something is queued and nothing was taken of it since this was asked the last time, or
    /// since the connection was opened. The kernel takes the next piece when a third of its own
    /// buffer is free.
    pub fn stands_still(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.queue.is_empty()) else {
            return false;
        };
        let took = conn.marks.has(Mark::Took);
        conn.marks.clear(Mark::Took);
        !took
    }

    /// The connection that has the slot `index` now.
    pub fn at(&self, index: u32) -> Option<ConnId> {
        self.conns.at(index)
    }

    /// Whether the connection is open: neither gone nor going.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.state == State::Open)
    }

    /// From here on the connection speaks WebSocket.
    pub(crate) fn begin_websocket(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.marks.set(Mark::WebSocket);
        }
    }

    /// Whether the connection speaks WebSocket.
    pub fn is_websocket(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.marks.has(Mark::WebSocket))
    }

    /// Sends what is queued, then closes. Nothing more is queued, and no input is passed on.
    pub fn close(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.state != State::Open {
            return;
        }
        conn.state = State::Closing;
        conn.reason = reason;
        self.set_timer_after(id, self.linger);
        self.mark(id);
    }

    /// Drops what is queued and closes.
    pub fn abort(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.state {
            State::Open => conn.reason = reason,
            State::Closing | State::Lingering => {}
            State::Free | State::Reserved | State::Terminating => return,
        }
        conn.state = State::Terminating;
        self.sends.clear(&mut conn.queue);
        self.timers.clear(id.index());
        self.mark(id);
    }

    /// Drops what waits behind the piece that is being sent, whole [`write`](Outbox::write)s and
    /// [`send`](Outbox::send)s only: what follows is understood.
    pub fn drop_waiting(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.state == State::Open) {
            self.sends.clear(&mut conn.queue);
        }
    }

    /// A number that all connections of the peer's address share, and few of others; `None` if the
    /// address is not counted.
    pub fn address(&self, id: ConnId) -> Option<u32> {
        self.conns.get(id)?.place.key()
    }

    /// Counts the connection as one of `ip`, or as nobody's, and no longer as what it was counted
    /// before.
    ///
    /// # Errors
    /// Why it is not to be served. It is counted until it is closed all the same.
    pub fn count_as(&mut self, id: ConnId, ip: Option<IpAddr>) -> Result<(), Excess> {
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        self.addresses.leave(mem::take(&mut conn.place));
        let Some(ip) = ip else { return Ok(()) };
        let (place, counted) = self.addresses.enter(ip, self.now);
        conn.place = place;
        if let Err(excess) = counted {
            self.counters.refused[excess as usize].add(1);
        }
        counted
    }

    /// The connection, which has just come, is refused: it does not count as one that was let in.
    pub(crate) fn turned_away(&mut self) {
        self.turned_away += 1;
    }

    /// Lists the connection for the flush at the end of the turn.
    pub(crate) fn mark(&mut self, id: ConnId) {
        let conn = self.conns.get_mut(id).expect("marked while it is there");
        if !conn.marks.set(Mark::Dirty) {
            self.dirty.push(id);
        }
    }

    /// Has [`expired`](crate::Protocol::expired) called in `ticks` ticks, or up to one later; in
    /// place of the timer that was set before.
    pub fn set_timer(&mut self, id: ConnId, ticks: u16) {
        if self.is_open(id) {
            self.timers.set(id.index(), ticks);
        }
    }

    pub(crate) fn set_timer_after(&mut self, id: ConnId, span: Duration) {
        self.timers.set(id.index(), self.ticks(span));
    }

    /// Forgets the connection's timer.
    pub fn clear_timer(&mut self, id: ConnId) {
        if self.is_open(id) {
            self.timers.clear(id.index());
        }
    }

    /// Has [`session_expired`](crate::Protocol::session_expired) called in the first turn after `span`,
    /// in place of the session's timer that was set before. It does not touch the connection's own
    /// timer. A session takes memory for this only while it is set, about 100 bytes.
    pub fn set_session_timer(&mut self, id: ConnId, span: Duration) {
        if self.is_open(id) {
            match self.now.checked_add(span) {
                Some(end) => self.session_timers.set(id.index(), end),
                // A span beyond what the clock can count does not end.
                None => self.session_timers.clear(id.index()),
            }
        }
    }

    /// Forgets the timer of the connection's session.
    pub fn clear_session_timer(&mut self, id: ConnId) {
        if self.conns.get(id).is_some() {
            self.session_timers.clear(id.index());
        }
    }

    /// How many ticks cover `span`, at least one.
    pub fn ticks(&self, span: Duration) -> u16 {
        let ticks = span.as_nanos().div_ceil(self.timers.tick().as_nanos());
        u16::try_from(ticks).unwrap_or(u16::MAX).max(1)
    }

    /// The time at which this turn began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// In [`expired`](crate::Protocol::expired): when the timer was to be looked at. Later than
    /// that is the shard's own delay.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// In [`expired`](crate::Protocol::expired): whether the peer may have said something that the
    /// shard has not come to, because its input is yet to be read or the shard itself is late: the
    /// machine stood still, or is overloaded. Then silence says nothing of the peer.
    pub fn behind(&self, id: ConnId) -> bool {
        let late = self.now.saturating_duration_since(self.due) >= self.timers.tick();
        late || self.conns.get(id).is_some_and(Conn::unread)
    }

    /// Connects to `to`, from the address `from` if given. `opened` or `refused` follows. `None`
    /// when every slot is taken.
    pub fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> Option<ConnId> {
        let id = self.conns.reserve()?;
        self.connects.push_back(Connect { id, to, from });
        Some(id)
    }

    /// How many slots are taken: open connections, and those that are coming or going.
    pub fn live(&self) -> u32 {
        self.conns.used()
    }

    /// What the shard counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Stops accepting, has [`leave`](crate::Protocol::leave) called for every connection in slices
    /// spread over `over`, and ends the shard when the last is gone, or soon after that time.
    pub fn drain(&mut self, over: Duration) {
        self.drain = Some(over);
        self.draining = true;
    }

    /// After how many seconds the client of a connection that is sent away is to come back: from one
    /// to [`ShardConfig::retry_after`](crate::ShardConfig::retry_after), evenly spread over the
    /// connections, so that those who take it literally do not come back together. 0 where that is.
    pub fn retry_after(&self, id: ConnId) -> u32 {
        // Multiplying by 2^32 / golden ratio spreads neighbours over the upper bits.
        let use_of_slot = id.index().wrapping_add(id.generation().wrapping_mul(0x85EB_CA6B));
        let spread = use_of_slot.wrapping_mul(2_654_435_769) >> 16;
        let most = u32::from(self.retry_after);
        (spread * most).div_ceil(1 << 16).max(1).min(most)
    }

    /// Whether new connections are let in. Those that are there stay, whatever it says.
    pub fn admits(&self) -> bool {
        self.gate.admission() == Admission::Open
    }

    /// Whether balancers may send new connections here: no drain is in progress or about to begin
    /// ([`ServerConfig::drain_delay`](crate::ServerConfig::drain_delay)). A handler that answers health
    /// checks answers 503 otherwise.
    pub fn is_ready(&self) -> bool {
        !self.draining && !self.unready
    }

    /// Whether the shard is being drained.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Ends the shard after this turn, whoever is still connected.
    pub fn stop(&mut self) {
        self.stopped = true;
    }
}
