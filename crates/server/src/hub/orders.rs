//! Orders of the control plane: what it does to the sessions of a user, or to one session.
//!
//! An order visits the slots of the shard, a slice a turn, so that a user with many connections delays
//! nobody. It is about the sessions that are open when it begins; of those that begin later it may reach some.

use std::collections::VecDeque;

use murre_core::ConnId;
use tokio::sync::oneshot::Sender;

use super::auth::UnixSeconds;
use super::error::{Error, ErrorCode};
use super::output::{Disconnect, DisconnectReason};
use super::{Hub, Outlet, Session};

/// What is done to which sessions. The answer is the number of sessions to which it was done; none comes if
/// too many orders wait.
pub(crate) struct Order {
    pub(crate) sessions: Selection,
    pub(crate) action: Action,
    pub(crate) answer: Sender<u32>,
}

/// The sessions of one shard that an order is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    Connection(ConnId),
    /// All of a user except those of some connections.
    User {
        name: Box<str>,
        except: Box<[ConnId]>,
    },
}

/// What is done to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// End it, as an administrator does. `code` is the close code of WebSockets, and `reason` is told in place
    /// of the usual sentence.
    Disconnect { code: Option<u16>, reason: Option<Box<str>> },
    /// End its subscription to a channel; `None` is all its subscriptions.
    Unsubscribe { channel: Option<Box<str>>, reason: Option<Box<str>> },
    /// Its token expires at this time; `None` is never. Sessions without a user have none.
    Refresh { expires: Option<UnixSeconds> },
    /// Its token has expired.
    Expire,
}

/// The orders of a shard that wait or are being executed, oldest first.
#[derive(Default)]
pub(super) struct Orders(VecDeque<Progress>);

/// An order and how far it is.
struct Progress {
    order: Order,
    /// The slot that is visited next.
    slot: u32,
    /// The number of sessions so far.
    done: u32,
    /// The session in the slot before, and the channels from which it has yet to be unsubscribed.
    left: Option<(Session, Vec<Box<str>>)>,
}

/// Orders that wait at most. Each is a request to the API that somebody waits for.
const ORDERS_MAX: usize = 1024;
/// The work of one turn, in slots that are visited: about a millisecond.
const WORK_PER_TURN: u32 = 8192;
/// What an action counts for: it queues a message, and ends a subscription or a session.
const ACTION: u32 = 32;

impl Orders {
    /// Number of orders.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Hub {
    /// Takes an order, which is executed from the end of this turn on.
    pub(super) fn take_order(&mut self, order: Order) {
        let slot = match &order.sessions {
            Selection::Connection(conn) => conn.index(),
            Selection::User { .. } => 0,
        };
        // Without an answer the one who asked knows that the shard is overloaded.
        if self.orders.0.len() < ORDERS_MAX {
            self.orders.0.push_back(Progress { order, slot, done: 0, left: None });
        }
    }

    /// Executes orders for a slice of the turn. Returns whether some are left.
    pub(super) fn execute_orders(&mut self, out: &mut impl Outlet) -> bool {
        let mut work = WORK_PER_TURN;
        while let Some(mut progress) = self.orders.0.pop_front() {
            if !self.advance(&mut progress, &mut work, out) {
                self.orders.0.push_front(progress);
                return true;
            }
            // The one who asked may have given up.
            let _ = progress.order.answer.send(progress.done);
        }
        self.orders.0.shrink_to(0);
        false
    }

    /// Executes an order until it is done or the work of this turn is spent. Returns whether it is done.
    fn advance(&mut self, progress: &mut Progress, work: &mut u32, out: &mut impl Outlet) -> bool {
        let Progress { order: Order { sessions, action, .. }, slot, done, left } = progress;
        let end = match sessions {
            Selection::Connection(conn) => conn.index().saturating_add(1),
            Selection::User { .. } => self.sessions.slots(),
        };
        loop {
            if let Some((session, channels)) = left {
                while let Some(channel) = channels.pop() {
                    let Action::Unsubscribe { reason, .. } = action else { break };
                    self.unsubscribe_by_order(*session, &channel, reason.as_deref(), out);
                    if !spend(work, ACTION) {
                        return false;
                    }
                }
                *left = None;
            }
            if *slot >= end {
                return true;
            }
            let at = *slot;
            *slot = at.saturating_add(1);
            if let Some(session) = self.selected(sessions, at, out) {
                let (is_done, channels) = self.obey(session, action, out);
                *done = done.saturating_add(u32::from(is_done));
                *left = (!channels.is_empty()).then_some((session, channels));
                if !spend(work, ACTION) {
                    return false;
                }
            }
            if !spend(work, 1) {
                return false;
            }
        }
    }

    /// The session in a slot, if an order is about it.
    fn selected(&self, sessions: &Selection, slot: u32, out: &impl Outlet) -> Option<Session> {
        match sessions {
            Selection::Connection(conn) => {
                self.sessions.of(*conn).filter(|_| out.at(slot) == Some(*conn))
            }
            Selection::User { name, except } => {
                self.sessions.user(slot).filter(|user| *user.name == **name)?;
                let conn = out.at(slot).filter(|conn| !except.contains(conn))?;
                self.sessions.of(conn)
            }
        }
    }

    /// Does to a session what an order says. Returns whether that concerns the session, and the channels from
    /// which it must be unsubscribed.
    fn obey(
        &mut self,
        session: Session,
        action: &Action,
        out: &mut impl Outlet,
    ) -> (bool, Vec<Box<str>>) {
        // A session that is ending already counts for the order that ended it.
        if !out.is_open(session.conn) {
            return (false, Vec::new());
        }
        let slot = session.conn.index();
        match action {
            Action::Disconnect { code, reason } => {
                let reason = reason.as_deref();
                let why = DisconnectReason::Administrator;
                out.end(session, Disconnect { reason: why, code: *code, detail: reason });
                (true, Vec::new())
            }
            Action::Unsubscribe { channel: Some(channel), .. } => {
                let is_subscribed = self.channels.is_subscribed(slot, channel);
                let channels = is_subscribed.then(|| channel.clone());
                (is_subscribed, channels.into_iter().collect())
            }
            Action::Unsubscribe { channel: None, .. } => {
                let channels = self.channels.subscriptions(slot).map(Box::from);
                let channels = channels.collect::<Vec<Box<str>>>();
                (!channels.is_empty(), channels)
            }
            Action::Refresh { expires } => {
                (self.sessions.refresh(session.conn, *expires), Vec::new())
            }
            Action::Expire => {
                if self.sessions.user(slot).is_none() {
                    return (false, Vec::new());
                }
                self.counters.refused.add(1);
                out.end(session, DisconnectReason::TokenExpired.into());
                (true, Vec::new())
            }
        }
    }

    fn unsubscribe_by_order(
        &mut self,
        session: Session,
        channel: &str,
        reason: Option<&str>,
        out: &mut impl Outlet,
    ) {
        // The session may have ended since its channels were listed.
        if self.is_there(session, out) {
            let why = Error { detail: reason, ..ErrorCode::Unsubscribed.into() };
            self.end_subscription(session, channel, why, out);
        }
    }
}

/// Takes `price` from the work that is left in this turn. Returns whether some is left.
fn spend(work: &mut u32, price: u32) -> bool {
    *work = work.saturating_sub(price);
    *work > 0
}
