//! The messages of Phoenix sessions, in order.
//!
//! A message that must wait is stored here, and the input of its connection is held: for the next turn
//! if it needs a signature check, or for an answer to an earlier message. The messages of a session that
//! polls wait in its POST meanwhile.

use std::collections::{HashMap, VecDeque};

use murre_codec::Kind;
use murre_core::ConnId;

use super::super::Wires;
use super::super::next_turn::{PAUSED_KEPT, continue_waiting};
use super::actions::{self, Acted, act};
use super::{dialect, refuse};
use crate::hub::{Hub, Outlet, Session};
use crate::protocols::json::Validator;
use crate::protocols::phoenix::decode::{self, BadMessage, Message};
use crate::protocols::phoenix::refs::{Asked, Request};
use crate::protocols::phoenix::{binary, supabase};

/// The input of a shard's Phoenix sessions.
#[derive(Default)]
pub(crate) struct Incoming {
    validator: Validator,
    /// The messages that wait, by slot. There is at most one for each connection, whose input is held.
    paused: HashMap<u32, Paused>,
    /// Connections whose messages are handled again in the next turn.
    next_turn: VecDeque<ConnId>,
}

/// The reason for a message beyond those that may wait for the backend.
const TOO_MANY_WAIT: &str = "too many messages wait";

/// A session whose input waits.
struct Paused {
    session: Session,
    /// The message that has not been handled; none if the session waits for answers before its next
    /// message.
    message: Option<(Kind, Vec<u8>)>,
}

impl Incoming {
    /// Handles a whole message of a session.
    pub(crate) fn message(
        &mut self,
        session: Session,
        kind: Kind,
        bytes: &[u8],
        hub: &mut Hub,
        wires: &mut Wires<'_>,
    ) {
        let conn = session.conn;
        debug_assert!(!self.paused.contains_key(&conn.index()), "its input is held");
        let message = match self.read(session, kind, bytes) {
            Ok(message) => message,
            Err(why) => {
                hub.count_refused();
                return refuse(session, why, wires);
            }
        };
        if !admit(session, &message, hub, wires) {
            return;
        }
        let channel = channel_of(session, &message);
        if hub.waits_for_backend(session, channel) {
            if hub.let_message_wait(session, channel, (kind, bytes), false).is_err() {
                let join_ref = message.join_ref.json();
                actions::refuse(session, join_ref, &message, TOO_MANY_WAIT, hub, wires);
            }
            return;
        }
        let acted = act(session, &message, hub, wires);
        hub.dispatch(wires);
        if acted == Acted::Asked {
            // There is room, as the backend is asked only then.
            let _ =
                hub.let_message_wait(session, channel_of(session, &message), (kind, bytes), true);
            return;
        }
        let message = (acted != Acted::Now).then(|| (kind, bytes.to_vec()));
        if message.is_none() && !hub.must_wait(session) {
            return;
        }
        // The answer to its join may have come in the meantime, so such a message is handled again.
        self.paused.insert(conn.index(), Paused { session, message });
        wires.out.hold(conn);
        match acted {
            Acted::NextTurn => self.next_turn.push_back(conn),
            Acted::Now | Acted::Asked | Acted::AfterJoin => self.proceed(conn, hub, wires),
        }
    }

    fn read<'b>(
        &mut self,
        session: Session,
        kind: Kind,
        bytes: &'b [u8],
    ) -> Result<Message<'b>, BadMessage> {
        let dialect = dialect(session);
        match kind {
            Kind::Text => decode::text(bytes, dialect, &mut self.validator),
            Kind::Binary if dialect.is_v1() => Err(BadMessage::Form),
            Kind::Binary if dialect.is_supabase() && supabase::is_broadcast(bytes) => {
                supabase::read(bytes, &mut self.validator)
            }
            Kind::Binary => binary::read(bytes),
        }
    }

    /// Whether no session is paused.
    pub(crate) fn is_idle(&self) -> bool {
        self.paused.is_empty()
    }

    /// Continues a session that may have waited for an answer, which is queued now.
    pub(crate) fn resume(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        if !self.paused.is_empty() {
            self.proceed(conn, hub, wires);
        }
        self.answered(conn, hub, wires);
    }

    /// Handles the messages of a session that waited for the backend, until one must wait again.
    fn answered(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        let Some(session) = hub.session(conn) else { return };
        while wires.is_open(conn)
            && let Some((kind, bytes)) = hub.take_message(session)
        {
            let message = self.read(session, kind, &bytes).expect("it was read before");
            let acted = act(session, &message, hub, wires);
            hub.dispatch(wires);
            let channel = channel_of(session, &message);
            if acted == Acted::Now {
                hub.settle(session, channel);
                continue;
            }
            let _ = hub.let_message_wait(session, channel, (kind, &bytes), true);
            if acted == Acted::NextTurn {
                self.next_turn.push_back(conn);
            }
            if acted != Acted::Asked {
                // The reply to the join, or the next turn, resumes it.
                return;
            }
        }
    }

    /// Continues the sessions that waited for a new turn of the shard.
    pub(crate) fn turn(&mut self, hub: &mut Hub, wires: &mut Wires<'_>) {
        continue_waiting(
            self,
            |incoming| &mut incoming.next_turn,
            |incoming, conn| incoming.resume(conn, hub, wires),
        );
    }

    /// Handles the message that waits, if it need not wait any more.
    fn proceed(&mut self, conn: ConnId, hub: &mut Hub, wires: &mut Wires<'_>) {
        let slot = conn.index();
        let Some(paused) = self.paused.get_mut(&slot).filter(|paused| paused.session.conn == conn)
        else {
            return;
        };
        let session = paused.session;
        if let Some((kind, bytes)) = paused.message.take() {
            let message = self.read(session, kind, &bytes).expect("it was read before");
            let acted = act(session, &message, hub, wires);
            hub.dispatch(wires);
            if acted == Acted::Asked {
                let _ = hub.let_message_wait(
                    session,
                    channel_of(session, &message),
                    (kind, &bytes),
                    true,
                );
            } else if acted != Acted::Now {
                if acted == Acted::NextTurn {
                    self.next_turn.push_back(conn);
                }
                self.paused.insert(slot, Paused { session, message: Some((kind, bytes)) });
                return;
            }
        }
        if !hub.must_wait(session) {
            self.forget(conn);
            wires.release(conn);
        }
    }

    /// Whether the next message of a session has to wait.
    pub(crate) fn is_paused(&self, conn: ConnId) -> bool {
        self.paused.contains_key(&conn.index())
    }

    /// Removes the message of a session that has ended.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if !self.paused.is_empty() {
            self.paused.remove(&conn.index());
            self.paused.shrink_to(PAUSED_KEPT);
        }
    }

    /// The number of sessions that wait.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn paused(&self) -> usize {
        self.paused.len()
    }
}

/// The channel of a message's topic; empty if there can be none.
fn channel_of<'m>(session: Session, message: &'m Message<'_>) -> &'m str {
    dialect(session).channel(&message.topic).unwrap_or_default()
}

/// Counts a message against the rate of the session. Returns whether it may be handled.
fn admit(session: Session, message: &Message<'_>, hub: &mut Hub, wires: &mut Wires<'_>) -> bool {
    if !wires.is_open(session.conn) {
        return false;
    }
    hub.admit_as(session, wires, || {
        let (join_ref, reference) = (message.join_ref.json(), message.reference.json());
        let topic = &*message.topic;
        let request = Request { asked: Asked::Push, join_ref, reference, topic, replaces: None };
        request.id()
    })
}
