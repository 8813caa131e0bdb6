//! What a protocol can do: queue bytes, close connections, set timers. It cannot reach the ring, so it
//! cannot block.

use std::collections::VecDeque;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::addresses::{AddressPlace, Addresses, Excess};
use crate::admission::{Admission, Gate};
use crate::conn::id::ConnId;
use crate::conn::peer_table::Peers;
use crate::conn::send_queue::SendPool;
use crate::conn::session_timers::SessionTimers;
use crate::conn::slab::Slab;
use crate::conn::timers::Timers;
use crate::conn::{CloseReason, Conn, Flag, State};
use crate::counters::Counters;
use crate::shard::config::ShardConfig;

/// The connections of one shard, as a protocol may use them.
///
/// A [`ConnId`] may be stale at any time: methods that change a connection do nothing then, and methods
/// that ask about one answer as for a connection without queue, timer or input.
pub struct Outbox {
    pub(crate) conns: Slab,
    pub(crate) sends: SendPool,
    pub(crate) timers: Timers,
    pub(crate) session_timers: SessionTimers,
    pub(crate) counters: Arc<Counters>,
    /// Connections with bytes to send, or whose end has to go on, each once.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections that are no longer held, each once.
    pub(crate) released: Vec<ConnId>,
    pub(crate) connects: VecDeque<Connect>,
    pub(crate) now: Instant,
    pub(crate) due: Instant,
    max_send_bytes: u32,
    congested_bytes: u32,
    pub(crate) linger: Duration,
    retry_after: u16,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) peers: Peers,
    /// The number of this shard.
    pub(crate) shard: u16,
    pub(crate) gate: Arc<Gate>,
    /// Connections that were refused on arrival in this turn.
    pub(crate) turned_away: u32,
    pub(crate) stopped: bool,
    /// A drain that has yet to begin, and how long it may take.
    pub(crate) drain: Option<Duration>,
    draining: bool,
    /// A drain follows; see [`Outbox::is_ready`].
    pub(crate) unready: bool,
}

/// A connection that a protocol asked for.
pub(crate) struct Connect {
    pub(crate) conn: ConnId,
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
}

/// What became of bytes that were to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Queued {
    /// They will be sent, or the connection will end.
    Yes,
    /// The connection is closed or closing, which can happen at any time and is no error.
    Gone,
    /// The peer reads too slowly: its queue exceeds [`ShardConfig::max_send_bytes`]. The connection is
    /// being aborted, and these bytes are dropped.
    SlowConsumer,
}

impl Outbox {
    /// An outbox without connections.
    pub(crate) fn new(config: &ShardConfig, now: Instant) -> Self {
        Outbox {
            conns: Slab::new(config.max_conns),
            sends: SendPool::default(),
            timers: Timers::new(config.max_conns, config.tick, config.slices, now),
            session_timers: SessionTimers::default(),
            counters: Arc::default(),
            dirty: Vec::new(),
            released: Vec::new(),
            connects: VecDeque::new(),
            now,
            due: now,
            max_send_bytes: config.max_send_bytes,
            congested_bytes: config.congested_bytes,
            linger: config.linger,
            retry_after: config.retry_after,
            addresses: Arc::clone(&config.addresses),
            peers: Peers::default(),
            shard: config.index,
            gate: Arc::clone(&config.gate),
            turned_away: 0,
            stopped: false,
            drain: None,
            draining: false,
            unready: false,
        }
    }

    /// Queues bytes that several connections may share.
    pub fn send(&mut self, conn: ConnId, frame: &Bytes) -> Queued {
        self.queue(conn, |slot, sends| sends.push(&mut slot.queue, frame))
    }

    /// Queues the bytes that `write` appends to the connection's own buffer. `write` must only append.
    pub fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> Queued {
        self.queue(conn, |slot, sends| sends.write(&mut slot.queue, write))
    }

    /// [`write`](Outbox::write) for an answer to the peer's own input. The limit of the queue does not
    /// apply: the caller limits the input that it takes instead, by [`congested`](Outbox::congested) and
    /// by the number of pending answers.
    pub fn write_answer(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> Queued {
        let Some(slot) = self.conns.get_mut(conn).filter(|slot| slot.state == State::Open) else {
            return Queued::Gone;
        };
        self.sends.write(&mut slot.queue, write);
        self.schedule_flush(conn);
        Queued::Yes
    }

    /// [`write`](Outbox::write), and [`send`](Outbox::send) behind it: a head and its body count as one
    /// message against the limit of the queue.
    pub fn write_and_send(
        &mut self,
        conn: ConnId,
        write: impl FnOnce(&mut Vec<u8>),
        frame: &Bytes,
    ) -> Queued {
        self.queue(conn, |slot, sends| {
            sends.write(&mut slot.queue, write);
            sends.push(&mut slot.queue, frame);
        })
    }

    /// Queues the last bytes of the connection, which `write` appends, and closes it when all of its queue
    /// is sent. The limit of the queue does not apply, because nothing can follow.
    pub fn close_with(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(slot) = self.conns.get_mut(conn) else { return };
        if slot.state == State::Open {
            self.sends.write(&mut slot.queue, write);
            self.close(conn, reason);
        }
    }

    /// Aborts a slow consumer. A protocol that queues nothing while the connection is
    /// [`congested`](Outbox::congested) never causes that, however long its messages are.
    fn queue(&mut self, conn: ConnId, add: impl FnOnce(&mut Conn, &mut SendPool)) -> Queued {
        let Some(slot) = self.conns.get_mut(conn) else { return Queued::Gone };
        if slot.state != State::Open {
            return Queued::Gone;
        }
        if slot.queue.bytes() > self.max_send_bytes {
            self.abort(conn, CloseReason::SlowConsumer);
            return Queued::SlowConsumer;
        }
        add(slot, &mut self.sends);
        if !slot.flags.set(Flag::Dirty) {
            self.dirty.push(conn);
        }
        Queued::Yes
    }

    /// Whether the connection's queue has reached [`ShardConfig::congested_bytes`], or
    /// [`ShardConfig::max_send_bytes`] where that is lower. Its input is not read meanwhile.
    pub fn congested(&self, conn: ConnId) -> bool {
        let enough = self.congested_bytes.min(self.max_send_bytes).max(1);
        self.conns.get(conn).is_some_and(|slot| slot.queue.bytes() >= enough)
    }

    /// Stops the connection's input: until [`release`](Outbox::release) the protocol is offered none, the
    /// socket is not polled, and received bytes stay where they are.
    ///
    /// A held connection can still be written to and closed. The end of its peer is noticed only when it
    /// is released or bytes are sent to it.
    pub fn hold(&mut self, conn: ConnId) {
        if let Some(slot) = self.conns.get_mut(conn).filter(|slot| slot.state == State::Open) {
            slot.flags.set(Flag::Held);
        }
    }

    /// Resumes the input of a held connection at the end of this turn, unless it is held again by then,
    /// or when it is no longer congested.
    pub fn release(&mut self, conn: ConnId) {
        let Some(slot) = self.conns.get_mut(conn).filter(|slot| slot.is_held()) else { return };
        slot.flags.clear(Flag::Held);
        if !slot.flags.set(Flag::Released) {
            self.released.push(conn);
        }
    }

    /// Whether the connection's input is held.
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(Conn::is_held)
    }

    /// Whether the connection was held at any time since the protocol was last offered its input. The
    /// hold may have delayed the input that the protocol is offered now.
    pub fn was_held(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|slot| slot.flags.has(Flag::Resumed))
    }

    /// Whether the protocol may take more of the connection's input: it is open, not congested and not
    /// held.
    pub fn takes_input(&self, conn: ConnId) -> bool {
        self.is_open(conn) && !self.is_held(conn) && !self.congested(conn)
    }

    /// Whether the queue exceeds [`ShardConfig::max_send_bytes`], so that queueing more would abort the
    /// connection.
    pub fn over_bound(&self, conn: ConnId) -> bool {
        self.queued(conn) > self.max_send_bytes
    }

    /// Bytes that are queued for the connection or being sent.
    pub fn queued(&self, conn: ConnId) -> u32 {
        self.conns.get(conn).map_or(0, |slot| slot.queue.bytes())
    }

    /// Whether bytes are queued and the peer has taken none of them since the last call, or since the
    /// connection was opened. The kernel takes the next piece when a third of its own buffer is free.
    pub fn stands_still(&mut self, conn: ConnId) -> bool {
        let Some(slot) = self.conns.get_mut(conn).filter(|slot| !slot.queue.is_empty()) else {
            return false;
        };
        let progressed = slot.flags.has(Flag::Progressed);
        slot.flags.clear(Flag::Progressed);
        !progressed
    }

    /// The connection that has slot `index` now.
    pub fn at(&self, index: u32) -> Option<ConnId> {
        self.conns.at(index)
    }

    /// Whether the connection is open: neither closed nor closing.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|slot| slot.state == State::Open)
    }

    /// Records that the connection speaks WebSocket from now on.
    pub(crate) fn begin_websocket(&mut self, conn: ConnId) {
        if let Some(slot) = self.conns.get_mut(conn) {
            slot.flags.set(Flag::WebSocket);
        }
    }

    /// Whether the connection speaks WebSocket.
    pub fn is_websocket(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|slot| slot.flags.has(Flag::WebSocket))
    }

    /// Sends the queued bytes, then closes. From now on nothing more can be queued, and the protocol is
    /// offered no input.
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(slot) = self.conns.get_mut(conn) else { return };
        if slot.state != State::Open {
            return;
        }
        slot.state = State::Closing;
        slot.reason = reason;
        self.set_timer_after(conn, self.linger);
        self.schedule_flush(conn);
    }

    /// Drops the queued bytes and closes.
    pub fn abort(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(slot) = self.conns.get_mut(conn) else { return };
        match slot.state {
            State::Open => slot.reason = reason,
            State::Closing | State::Lingering => {}
            State::Free | State::Reserved | State::Terminating => return,
        }
        slot.state = State::Terminating;
        self.sends.clear(&mut slot.queue);
        self.timers.clear(conn.index());
        self.schedule_flush(conn);
    }

    /// Drops the queued bytes behind the piece that is being sent. That piece ends where a
    /// [`write`](Outbox::write) or a [`send`](Outbox::send) ended, so the peer can parse what follows.
    pub fn drop_waiting(&mut self, conn: ConnId) {
        if let Some(slot) = self.conns.get_mut(conn).filter(|slot| slot.state == State::Open) {
            self.sends.clear(&mut slot.queue);
        }
    }

    /// A number that all connections of the peer's address share, and few of other addresses; `None` if
    /// the address is not counted.
    pub fn address(&self, conn: ConnId) -> Option<u32> {
        self.conns.get(conn)?.place.key()
    }

    /// Counts the connection as one of `ip` until it closes, or not at all for `None`, and no longer as
    /// one of the address it was counted for before.
    ///
    /// # Errors
    /// The limit of the address that the connection exceeds. It is counted all the same.
    pub fn count_as(&mut self, conn: ConnId, ip: Option<IpAddr>) -> Result<(), Excess> {
        let now = self.now;
        self.count(conn, ip, |addresses, ip| addresses.enter(ip, now))
    }

    /// [`count_as`](Outbox::count_as) for a session on a connection that is open already, so that the rate
    /// of new connections does not apply.
    pub(crate) fn count_session_as(
        &mut self,
        conn: ConnId,
        ip: Option<IpAddr>,
    ) -> Result<(), Excess> {
        self.count(conn, ip, Addresses::enter_open)
    }

    fn count(
        &mut self,
        conn: ConnId,
        ip: Option<IpAddr>,
        enter: impl FnOnce(&Addresses, IpAddr) -> (AddressPlace, Result<(), Excess>),
    ) -> Result<(), Excess> {
        let Some(slot) = self.conns.get_mut(conn) else { return Ok(()) };
        self.addresses.leave(mem::take(&mut slot.place));
        let Some(ip) = ip else { return Ok(()) };
        let (place, counted) = enter(&self.addresses, ip);
        slot.place = place;
        if let Err(excess) = counted {
            self.counters.refused[excess as usize].add(1);
        }
        counted
    }

    /// Records that a connection is refused on arrival, so that it does not count against the rate of
    /// accepts.
    pub(crate) fn turned_away(&mut self) {
        self.turned_away += 1;
    }

    /// Lists the connection for the flush at the end of the turn.
    pub(crate) fn schedule_flush(&mut self, conn: ConnId) {
        if !self.conns[conn].flags.set(Flag::Dirty) {
            self.dirty.push(conn);
        }
    }

    /// Sets the connection's timer, in place of the one it had: [`expired`](crate::Protocol::expired) is
    /// called in `ticks` ticks, or up to one later.
    pub fn set_timer(&mut self, conn: ConnId, ticks: u16) {
        if self.is_open(conn) {
            self.timers.set(conn.index(), ticks);
        }
    }

    pub(crate) fn set_timer_after(&mut self, conn: ConnId, span: Duration) {
        self.timers.set(conn.index(), self.ticks(span));
    }

    /// Clears the connection's timer.
    pub fn clear_timer(&mut self, conn: ConnId) {
        if self.is_open(conn) {
            self.timers.clear(conn.index());
        }
    }

    /// Sets the timer of the connection's session, in place of the one it had:
    /// [`session_expired`](crate::Protocol::session_expired) is called in the first turn after `span`. The
    /// connection's own timer is not affected. While it is set the timer takes about 100 bytes.
    pub fn set_session_timer(&mut self, conn: ConnId, span: Duration) {
        if self.is_open(conn) {
            match self.now.checked_add(span) {
                Some(end) => self.session_timers.set(conn.index(), end),
                // The clock cannot count to the end, so the timer never expires.
                None => self.session_timers.clear(conn.index()),
            }
        }
    }

    /// Clears the timer of the connection's session.
    pub fn clear_session_timer(&mut self, conn: ConnId) {
        if self.conns.get(conn).is_some() {
            self.session_timers.clear(conn.index());
        }
    }

    /// How many ticks cover `span`, from 1 to 65,535.
    pub fn ticks(&self, span: Duration) -> u16 {
        let ticks = span.as_nanos().div_ceil(self.timers.tick().as_nanos());
        u16::try_from(ticks).unwrap_or(u16::MAX).max(1)
    }

    /// The time at which this turn began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// In [`expired`](crate::Protocol::expired): when the timer was due. The shard is late by the time
    /// from then to [`now`](Outbox::now).
    pub fn due(&self) -> Instant {
        self.due
    }

    /// In [`expired`](crate::Protocol::expired): whether the peer may have sent bytes that the shard has
    /// not handled, because the connection has yet to be read or the shard is late by a tick (the machine
    /// stood still, or is overloaded). Then the peer's silence proves nothing.
    pub fn behind(&self, conn: ConnId) -> bool {
        let late = self.now.saturating_duration_since(self.due) >= self.timers.tick();
        late || self.conns.get(conn).is_some_and(Conn::is_unread)
    }

    /// Begins a connection to `to`, from the local address `from` if given;
    /// [`opened`](crate::Protocol::opened) or [`refused`](crate::Protocol::refused) follows. `None` when
    /// every slot is taken.
    pub fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> Option<ConnId> {
        let conn = self.conns.reserve()?;
        self.connects.push_back(Connect { conn, to, from });
        Some(conn)
    }

    /// Takes a slot for a session without a socket, whose requests come on several connections. Nothing is
    /// sent or received on it. Until [`free_slot`](Outbox::free_slot) it counts as a connection of the shard
    /// and of the address of `conn`, and the shard does not end. `None` when every slot is taken, or the
    /// address has as many connections as it may.
    pub fn take_slot(&mut self, conn: ConnId) -> Option<ConnId> {
        let place = self.conns.get(conn)?.place;
        if self.addresses.enter_at(place).is_err() {
            self.addresses.leave(place);
            return None;
        }
        let Some(session) = self.conns.reserve() else {
            self.addresses.leave(place);
            return None;
        };
        self.conns[session].place = place;
        Some(session)
    }

    /// Frees a slot that [`take_slot`](Outbox::take_slot) has taken.
    pub fn free_slot(&mut self, session: ConnId) {
        let slot = &self.conns[session];
        debug_assert!(slot.state == State::Reserved && slot.in_flight.is_empty());
        self.addresses.leave(slot.place);
        self.conns.free(session);
    }

    /// How many slots are taken: by open and closing connections, by accepts and connects in flight, and by
    /// sessions without a socket.
    pub fn live(&self) -> u32 {
        self.conns.used()
    }

    /// The shard's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Drains the shard: it stops accepting, [`leave`](crate::Protocol::leave) is called for every
    /// connection, spread over the time `over`, and the shard ends when the last is closed, or
    /// [`ShardConfig::linger`] after that time.
    pub fn drain(&mut self, over: Duration) {
        self.drain = Some(over);
        self.draining = true;
    }

    /// The seconds after which the client of a refused or drained connection should come back: from 1 to
    /// [`ShardConfig::retry_after`], evenly spread over the connections, so that clients do not come back
    /// together. 0 where the setting is 0.
    pub fn retry_after(&self, conn: ConnId) -> u32 {
        // Multiplying by 2^32 / golden ratio spreads neighbours over the upper bits.
        let use_of_slot = conn.index().wrapping_add(conn.generation().wrapping_mul(0x85EB_CA6B));
        let spread = use_of_slot.wrapping_mul(2_654_435_769) >> 16;
        let most = u32::from(self.retry_after);
        (spread * most).div_ceil(1 << 16).max(1).min(most)
    }

    /// Whether the first request of a new connection is served; see [`Admission`].
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

    /// Ends the shard after this turn, even with open connections.
    pub fn stop(&mut self) {
        self.stopped = true;
    }
}
