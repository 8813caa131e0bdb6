//! What the connections of a shard speak.

use std::net::SocketAddr;
use std::time::Instant;

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

/// A protocol over byte streams. The shard tells it what happened; it answers through [`Outbox`].
///
/// [`Serve`](crate::Serve) is the one of a server. A load generator has others.
pub trait Protocol {
    /// What the protocol remembers of a connection. It is paid for every one of them.
    type State;
    /// What other threads may leave for it in the shard's [`Mailbox`](crate::Mailbox).
    type Mail: Send + 'static;

    /// A connection was accepted, from `peer`; or one that was asked for is made: then there is no
    /// `peer`. Nobody remembers the address but who is told of it here. It may be closed at once.
    fn opened(&mut self, id: ConnId, peer: Option<SocketAddr>, out: &mut Outbox) -> Self::State;

    /// A connection that was asked for could not be made, for the reason `errno`.
    fn refused(&mut self, _id: ConnId, _errno: i32, _out: &mut Outbox) {}

    /// Bytes arrived. Consumes some from the front of `input` and returns how many; the rest is
    /// offered again with more behind it, so what cannot be complete yet is left alone.
    ///
    /// Stops early unless [`Outbox::takes_input`]: the rest is offered again once what is queued has
    /// been sent and the connection is not held any more. The peer is not read meanwhile.
    fn received(
        &mut self,
        id: ConnId,
        state: &mut Self::State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize;

    /// Everything that was queued for the connection has been sent.
    fn drained(&mut self, _id: ConnId, _state: &mut Self::State, _out: &mut Outbox) {}

    /// The timer of the connection ran out.
    fn expired(&mut self, id: ConnId, state: &mut Self::State, out: &mut Outbox);

    /// The timer that was set by [`Outbox::set_session_timer`] ran out.
    fn session_expired(&mut self, _id: ConnId, _state: &mut Self::State, _out: &mut Outbox) {}

    /// The shard is being drained: say goodbye.
    fn leave(&mut self, id: ConnId, _state: &mut Self::State, out: &mut Outbox) {
        out.close(id, CloseReason::Draining);
    }

    /// The shard is being drained and has no connections any more. Whether it may end; asked again
    /// until the drain's time is over.
    fn may_end(&mut self) -> bool {
        true
    }

    /// The connection is over. Called once for every [`opened`](Protocol::opened), after the last
    /// completion.
    fn closed(&mut self, id: ConnId, state: Self::State, reason: CloseReason, out: &mut Outbox);

    /// Something was in the mailbox.
    fn mail(&mut self, mail: Self::Mail, out: &mut Outbox);

    /// Called once in every turn, after everything else.
    fn turn(&mut self, _out: &mut Outbox) {}

    /// When there should be a turn at the latest, whether or not anything happens.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
