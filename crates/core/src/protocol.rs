//! The interface between a shard and the protocol of its connections.

use std::net::SocketAddr;
use std::time::Instant;

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

/// A protocol over byte streams. The shard calls it with what happened; it answers through [`Outbox`].
///
/// Every method runs on the shard's thread and must not block: no other connection is served meanwhile.
/// [`Serve`](crate::Serve) is the protocol of a server. A load generator has others.
pub trait Protocol {
    /// The protocol's state of a connection. Every connection takes memory for it, open or idle.
    type State;
    /// The mail that other threads may leave in the shard's [`Mailbox`](crate::Mailbox).
    type Mail: Send + 'static;

    /// A connection was accepted from `peer`, or one that [`Outbox::connect`] asked for is made; then
    /// `peer` is `None`. The shard does not store the address. The protocol may close the connection at
    /// once.
    fn opened(&mut self, conn: ConnId, peer: Option<SocketAddr>, out: &mut Outbox) -> Self::State;

    /// A connection that [`Outbox::connect`] asked for could not be made; `errno` says why.
    fn refused(&mut self, _conn: ConnId, _errno: i32, _out: &mut Outbox) {}

    /// Bytes arrived. The protocol consumes some from the front of `input` and returns how many. The rest
    /// is offered again with more behind it, so an incomplete item is simply not consumed.
    ///
    /// It must stop when [`Outbox::takes_input`] is no longer true. The rest is offered again when the
    /// queued bytes have been sent and the connection is not held; the socket is not read meanwhile.
    fn received(
        &mut self,
        conn: ConnId,
        state: &mut Self::State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize;

    /// All bytes that were queued for the connection have been sent.
    fn drained(&mut self, _conn: ConnId, _state: &mut Self::State, _out: &mut Outbox) {}

    /// The timer that [`Outbox::set_timer`] set has expired.
    fn expired(&mut self, conn: ConnId, state: &mut Self::State, out: &mut Outbox);

    /// The timer that [`Outbox::set_session_timer`] set has expired.
    fn session_expired(&mut self, _conn: ConnId, _state: &mut Self::State, _out: &mut Outbox) {}

    /// The shard is being drained: the protocol ends the connection, now or soon.
    fn leave(&mut self, conn: ConnId, _state: &mut Self::State, out: &mut Outbox) {
        out.close(conn, CloseReason::Draining);
    }

    /// The shard is being drained and has no connections left. Returns whether it may end; called again
    /// in each turn until the time of the drain is over.
    fn may_end(&mut self) -> bool {
        true
    }

    /// The connection is closed. Called once for every [`opened`](Protocol::opened), after the last
    /// completion.
    fn closed(&mut self, conn: ConnId, state: Self::State, reason: CloseReason, out: &mut Outbox);

    /// A mail arrived in the mailbox.
    fn mail(&mut self, mail: Self::Mail, out: &mut Outbox);

    /// Called once in every turn, after mail, completions and timers.
    fn turn(&mut self, _out: &mut Outbox) {}

    /// The time of the next turn at the latest, even if nothing happens; `None` is no limit.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
