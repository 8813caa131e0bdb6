//! Events of the router, passed on to sessions as replies and pushes.

use murre_router::Ticket;
use murre_router::channels::{Event, HistoryPage, Origin, Position, Recovery, Refused, Start};
use murre_router::services::ServiceEvent;

use super::pending::{self, Asker};
use super::{
    About, Error, ErrorCode, Hub, Outlet, Page, Push, Reply, RequestId, Session, origin, slot_of,
};

/// Commands of one session that wait for answers from other shards at most.
const PENDING_MAX: u32 = 256;

impl Hub {
    /// Passes on what the router has for this shard's sessions.
    pub(crate) fn dispatch(&mut self, out: &mut impl Outlet) {
        loop {
            while let Some(event) = self.channels.event() {
                match event {
                    Event::Subscribed { ticket, recovery, .. } => {
                        self.subscribed(ticket, recovery, out);
                    }
                    Event::Withdrawn { ticket, .. } => {
                        let pending::Command { name, asker } = self.take_pending(ticket, out);
                        let why =
                            Error::from(ErrorCode::NotSubscribed).about(About::Channel(&name));
                        self.tell_error(asker, why, out);
                    }
                    Event::Published { ticket: Some(ticket), outcome, .. } => {
                        self.published(ticket, outcome, out);
                    }
                    Event::Published { ticket: None, origin, channel, outcome } => {
                        if let Err(why) = outcome {
                            self.publication_refused(origin, &channel, why, out);
                        }
                    }
                    Event::History { ticket, page } => self.history(ticket, &page, out),
                    Event::Readable { member } => self.readable.push(member),
                }
            }
            // Only now: a member hears that each of its subscriptions has begun before it hears what it
            // has missed there.
            let Some(member) = self.readable.pop() else { break };
            self.pull(member, out);
        }
        while let Some(event) = {
            let takes = |member| out.at(member).is_none_or(|conn| !out.congested(conn));
            self.services.event(takes)
        } {
            self.service_event(event, out);
        }
    }

    fn service_event(
        &mut self,
        event: ServiceEvent<murre_router::channels::Payload>,
        out: &mut impl Outlet,
    ) {
        match event {
            ServiceEvent::Request { member, request, service, payload } => {
                if let Some(session) = out.at(member).and_then(|conn| self.sessions.of(conn)) {
                    let push = Push::Request { request, service: &service, payload: &payload };
                    out.push(session, push);
                }
            }
            ServiceEvent::Response { ticket, service, payload, .. } => {
                if let Some((session, request)) = self.asker(ticket, out) {
                    let reply = Reply::Response { service: &service, payload: &payload };
                    out.reply(session, &request, reply);
                }
            }
            ServiceEvent::Failed { ticket, service, why, .. } => {
                let asker = self.take_pending(ticket, out).asker;
                self.tell_error(asker, Error::from(&why).about(About::Service(&service)), out);
            }
        }
    }

    /// Takes a command whose outcome is here. The input of its session may go on because of that.
    fn take_pending(&mut self, ticket: Ticket, out: &mut impl Outlet) -> pending::Command {
        let command = self.pending.take(ticket);
        if let Asker::Session(session, _) = command.asker
            && self.pending.of(session) == PENDING_MAX / 2
        {
            out.resume(session);
        }
        command
    }

    /// Whether the next command of a session has to wait, because its answers are not here yet: a page
    /// of history, or many others. [`Outlet::resume`] says when to ask again.
    pub(crate) fn must_wait(&self, session: Session) -> bool {
        let reading = self.reading.contains_key(&session.conn.index());
        reading || self.pending.of(session) >= PENDING_MAX
    }

    /// The session that a ticket's outcome is for, if it is still there.
    fn asker(&mut self, ticket: Ticket, out: &mut impl Outlet) -> Option<(Session, RequestId)> {
        match self.take_pending(ticket, out).asker {
            Asker::Session(session, request) => {
                self.is_there(session, out).then_some((session, request))
            }
            _ => None,
        }
    }

    /// Whether a session has not ended: another connection may have its slot, or the connection
    /// another session.
    fn is_there(&self, session: Session, out: &impl Outlet) -> bool {
        let same = out.at(session.conn.index()) == Some(session.conn);
        same && self.sessions.of(session.conn) == Some(session)
    }

    fn subscribed(&mut self, ticket: Ticket, recovery: Option<Recovery>, out: &mut impl Outlet) {
        let pending::Command { name, asker } = self.take_pending(ticket, out);
        let (Asker::Session(session, request) | Asker::Waiter(session, request)) = asker else {
            return;
        };
        if self.is_there(session, out) {
            out.reply(session, &request, Reply::Subscribed { channel: &name, recovery });
            self.readable.push(session.conn.index());
        }
    }

    pub(super) fn published(
        &mut self,
        ticket: Ticket,
        outcome: Result<Option<Position>, Refused>,
        out: &mut impl Outlet,
    ) {
        let pending::Command { name, asker } = self.take_pending(ticket, out);
        match (asker, outcome) {
            (Asker::Session(session, request), Ok(position)) => {
                if self.is_there(session, out) {
                    out.reply(session, &request, Reply::Published { channel: &name, position });
                }
            }
            (Asker::Control(asked), outcome) => {
                // The caller may not wait any more.
                let _ = asked.send(outcome.map_err(ErrorCode::from));
            }
            (asker, Err(why)) => {
                let why = Error::from(ErrorCode::from(why)).about(About::Channel(&name));
                self.tell_error(asker, why, out);
            }
            (Asker::Waiter(..) | Asker::Nobody, Ok(_)) => {}
        }
    }

    /// The owner of a channel has refused a publication that has no request id.
    fn publication_refused(
        &self,
        publisher: Origin,
        channel: &str,
        why: Refused,
        out: &mut impl Outlet,
    ) {
        let conn = out.at(slot_of(publisher)).filter(|&conn| origin(self.shard, conn) == publisher);
        if let Some(session) = conn.and_then(|conn| self.sessions.of(conn)) {
            let why = Error::from(ErrorCode::from(why)).about(About::Channel(channel));
            self.refuse(session, &RequestId::None, why, out);
        }
    }

    fn history(&mut self, ticket: Ticket, page: &HistoryPage, out: &mut impl Outlet) {
        let pending::Command { name, asker } = self.take_pending(ticket, out);
        let (session, request, waits) = match asker {
            Asker::Session(session, request) => (session, request, false),
            Asker::Waiter(session, request) => (session, request, true),
            Asker::Control(_) | Asker::Nobody => return,
        };
        self.reading.remove(&session.conn.index());
        if !self.is_there(session, out) {
            return;
        }
        if waits && page.publications.is_empty() && page.recovered == Some(true) {
            let start = Start::After(page.position);
            let asker = Asker::Waiter(session, request.clone());
            if let Err(why) = self.subscribe(session, &name, start, asker) {
                self.refuse(session, &request, why, out);
            }
            return;
        }
        let HistoryPage { position, recovered, ref publications, more } = *page;
        let page = match recovered {
            // As with a subscription, nothing old follows a position that is lost.
            Some(false) if waits => Page { position, recovered, publications: &[], more: false },
            _ => Page { position, recovered, publications, more },
        };
        out.reply(session, &request, Reply::History { channel: &name, page });
        out.resume(session);
    }

    fn tell_error(&mut self, asker: Asker, why: Error<'_>, out: &mut impl Outlet) {
        // The control plane waits for nothing else that can fail.
        if let Asker::Session(session, request) | Asker::Waiter(session, request) = asker
            && self.is_there(session, out)
        {
            self.refuse(session, &request, why, out);
        }
    }
}
