//! Events of the router, passed on to sessions as replies and pushes.

use murre_router::channels::{ChannelError, Event, HistoryPage, Origin, Position, Recovery, Start};
use murre_router::services::ServiceEvent;
use murre_router::{Member, Ticket};

use super::pending::{PendingCommand, Recipient};
use super::{
    About, Error, ErrorCode, Hub, Outlet, Page, Push, Reply, RequestId, Session, origin, slot_of,
};

/// Number of commands of one session that wait for answers of the router at most.
const PENDING_MAX: u32 = 256;

impl Hub {
    /// Passes the router's events on to the sessions of this shard.
    pub(crate) fn dispatch(&mut self, out: &mut impl Outlet) {
        loop {
            while let Some(event) = self.channels.event() {
                match event {
                    Event::Subscribed { ticket, recovery, .. } => {
                        self.subscribed(ticket, recovery, out);
                    }
                    Event::Withdrawn { ticket, .. } => {
                        let PendingCommand { name, recipient, .. } = self.take_pending(ticket, out);
                        let why =
                            Error::from(ErrorCode::NotSubscribed).about(About::Channel(&name));
                        self.tell_error(recipient, why, out);
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
                    Event::Refused { member, ticket, error } => {
                        self.refused(member, ticket, error, out);
                    }
                    Event::Readable { member } => self.readable.push(member),
                }
            }
            // Pulls come last, so that a member learns of all its subscriptions before it gets the
            // publications that it has missed.
            let Some(member) = self.readable.pop() else { break };
            self.pull(member, out);
        }
        self.dispatch_presence(out);
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
                if let Some((session, request)) = self.take_recipient(ticket, out) {
                    let reply = Reply::Response { service: &service, payload: &payload };
                    out.reply(session, &request, reply);
                }
            }
            ServiceEvent::Failed { ticket, service, error, .. } => {
                let recipient = self.take_pending(ticket, out).recipient;
                self.tell_error(
                    recipient,
                    Error::from(&error).about(About::Service(&service)),
                    out,
                );
            }
        }
    }

    /// Removes a command whose outcome has arrived, and resumes the session's input if it waited for
    /// that.
    fn take_pending(&mut self, ticket: Ticket, out: &mut impl Outlet) -> PendingCommand {
        let command = self.pending.take(ticket);
        if let Recipient::Session(session, _) = command.recipient
            && self.pending.of(session) == PENDING_MAX / 2
        {
            out.resume(session);
        }
        command
    }

    /// Whether the next command of a session has to wait, for a page of history or because many of its
    /// commands wait for answers. [`Outlet::resume`] reports when to ask again.
    pub(crate) fn must_wait(&self, session: Session) -> bool {
        let reading_history = self.reading_history.contains_key(&session.conn.index());
        reading_history || self.pending.of(session) >= PENDING_MAX
    }

    /// Removes a command, and returns the session that gets its outcome, if that has not ended.
    fn take_recipient(
        &mut self,
        ticket: Ticket,
        out: &mut impl Outlet,
    ) -> Option<(Session, RequestId)> {
        match self.take_pending(ticket, out).recipient {
            Recipient::Session(session, request) => {
                self.is_there(session, out).then_some((session, request))
            }
            _ => None,
        }
    }

    /// Whether a session is still open. By now another connection may have its slot, or the connection
    /// another session.
    pub(super) fn is_there(&self, session: Session, out: &impl Outlet) -> bool {
        let same = out.at(session.conn.index()) == Some(session.conn);
        same && self.sessions.of(session.conn) == Some(session)
    }

    fn subscribed(&mut self, ticket: Ticket, recovery: Option<Recovery>, out: &mut impl Outlet) {
        let PendingCommand { name, recipient, data } = self.take_pending(ticket, out);
        let (Recipient::Session(session, request) | Recipient::Poll(session, request)) = recipient
        else {
            return;
        };
        if self.is_there(session, out) {
            let reply = Reply::Subscribed { channel: &name, recovery, data: data.as_deref() };
            out.reply(session, &request, reply);
            self.readable.push(session.conn.index());
        }
    }

    pub(super) fn published(
        &mut self,
        ticket: Ticket,
        outcome: Result<Option<Position>, ChannelError>,
        out: &mut impl Outlet,
    ) {
        let PendingCommand { name, recipient, .. } = self.take_pending(ticket, out);
        match (recipient, outcome) {
            (Recipient::Session(session, request), Ok(position)) => {
                if self.is_there(session, out) {
                    out.reply(session, &request, Reply::Published { channel: &name, position });
                }
            }
            (Recipient::Control(asked), outcome) => {
                // The caller may have given up.
                let _ = asked.send(outcome.map_err(ErrorCode::from));
            }
            (recipient, Err(why)) => {
                let why = Error::from(ErrorCode::from(why)).about(About::Channel(&name));
                self.tell_error(recipient, why, out);
            }
            (Recipient::Poll(..) | Recipient::Counts(..) | Recipient::Nobody, Ok(_)) => {}
        }
    }

    /// Tells a session that the owner of a channel has refused its publication, which has no request id.
    fn publication_refused(
        &self,
        publisher: Origin,
        channel: &str,
        why: ChannelError,
        out: &mut impl Outlet,
    ) {
        let conn = out.at(slot_of(publisher)).filter(|&conn| origin(self.shard, conn) == publisher);
        if let Some(session) = conn.and_then(|conn| self.sessions.of(conn)) {
            let why = Error::from(ErrorCode::from(why)).about(About::Channel(channel));
            self.refuse(session, &RequestId::None, why, out);
        }
    }

    fn history(&mut self, ticket: Ticket, page: &HistoryPage, out: &mut impl Outlet) {
        let PendingCommand { name, recipient, .. } = self.take_pending(ticket, out);
        let (session, request, waits) = match recipient {
            Recipient::Session(session, request) => (session, request, false),
            Recipient::Poll(session, request) => (session, request, true),
            Recipient::Control(_) | Recipient::Counts(..) | Recipient::Nobody => return,
        };
        self.reading_history.remove(&session.conn.index());
        if !self.is_there(session, out) {
            return;
        }
        if waits && page.publications.is_empty() && page.recovered == Some(true) {
            let start = Start::After(page.position);
            let recipient = Recipient::Poll(session, request.clone());
            match self.subscribe(session, &name, start, recipient) {
                Ok(_) => self.join_presence(session, &name, None),
                Err(why) => self.refuse(session, &request, why, out),
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

    /// Tells a session that the owner of a channel has refused its subscription, by its member, or its query
    /// of history.
    fn refused(
        &mut self,
        member: Option<Member>,
        ticket: Ticket,
        why: ChannelError,
        out: &mut impl Outlet,
    ) {
        let PendingCommand { name, recipient, .. } = self.take_pending(ticket, out);
        let (Recipient::Session(session, _) | Recipient::Poll(session, _)) = recipient else {
            return;
        };
        match member {
            None => _ = self.reading_history.remove(&session.conn.index()),
            Some(_) if self.is_there(session, out) => {
                self.subscription_tokens.remove(session.conn.index(), &name);
                self.leave_presence(session, &name);
            }
            Some(_) => {}
        }
        let why = Error::from(ErrorCode::from(why)).about(About::Channel(&name));
        self.tell_error(recipient, why, out);
        out.resume(session);
    }

    fn tell_error(&mut self, recipient: Recipient, why: Error<'_>, out: &mut impl Outlet) {
        // The control plane waits for nothing else that can fail.
        if let Recipient::Session(session, request) | Recipient::Poll(session, request) = recipient
            && self.is_there(session, out)
        {
            self.refuse(session, &request, why, out);
        }
    }
}
