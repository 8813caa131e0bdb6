//! Commands of sessions: the check of each against the rules, and its call of the router.

use murre_core::{RateDecision, ShownPeer};
use murre_router::Ticket;
use murre_router::channels::{Direction, HistoryQuery, Payload, Publisher, Start, Subscription};
use murre_router::presence::Meta;

use super::answers;
use super::auth::{LEEWAY_SECONDS, Right, UnixSeconds, Verdict};
use super::calls::Waiting;
use super::consult::{Consulted, Refusal};
use super::output::DisconnectReason;
use super::pending::Recipient;
use super::{
    About, Audience, Command, Error, ErrorCode, Flow, Hub, Outlet, Reply, RequestId, SERVER,
    Session, unix_seconds,
};
use crate::backend::CallResult;
use crate::log::connections as log;

impl Hub {
    /// Counts a command against the session's rate. Returns whether it may be executed; if not, the
    /// session has been told.
    pub(crate) fn admit(
        &mut self,
        session: Session,
        request: &RequestId,
        out: &mut impl Outlet,
    ) -> bool {
        self.admit_as(session, out, || request.clone())
    }

    /// [`admit`](Self::admit) for a protocol whose request ids cost an allocation.
    pub(crate) fn admit_as(
        &mut self,
        session: Session,
        out: &mut impl Outlet,
        request: impl FnOnce() -> RequestId,
    ) -> bool {
        let decision = self.count_command(session, out);
        if decision == RateDecision::Allow {
            return true;
        }
        if decision == RateDecision::Refuse {
            let user = self.sessions.user(session.conn.index());
            log::too_many_commands(self.connection_id(session.conn), user);
        }
        self.refuse(session, &request(), ErrorCode::TooFast.into(), out);
        if decision == RateDecision::Disconnect {
            out.end(session, DisconnectReason::TooFast.into());
        }
        false
    }

    /// Counts the request of a session that is one request, such as a poll.
    ///
    /// # Errors
    /// `TooFast`, which the session has not been told.
    pub(crate) fn admit_request(
        &mut self,
        session: Session,
        out: &impl Outlet,
    ) -> Result<(), ErrorCode> {
        match self.count_command(session, out) {
            RateDecision::Allow => Ok(()),
            RateDecision::Refuse | RateDecision::Disconnect => {
                self.counters.refused.add(1);
                Err(ErrorCode::TooFast)
            }
        }
    }

    fn count_command(&mut self, session: Session, out: &impl Outlet) -> RateDecision {
        self.refresh_clock(out);
        self.counters.commands.add(1);
        let now = self.since(out);
        self.config.commands.take(self.sessions.bucket(session), now)
    }

    /// Executes a command of a session that was [admitted](Self::admit), or tells the session why it
    /// is refused.
    pub(crate) fn handle(
        &mut self,
        session: Session,
        request: RequestId,
        command: Command<'_>,
        out: &mut impl Outlet,
    ) -> Flow {
        if self.config.backend.is_some()
            && let Some(name) = command.subject()
            && (self.calls.is_busy(session.conn, name) || self.reads_two_pages(session, &command))
        {
            self.let_wait(session, name, request, &command, out);
            return Flow::Continue;
        }
        self.run_or_wait(session, request, command, false, out)
    }

    /// Executes a command, or lets it wait for the backend. `again`: it has waited before, and with
    /// `Flow::Retry` it waits again, before all others.
    pub(super) fn run_or_wait(
        &mut self,
        session: Session,
        request: RequestId,
        command: Command<'_>,
        again: bool,
        out: &mut impl Outlet,
    ) -> Flow {
        let renews = matches!(command, Command::Subscribe { channel, token: None, .. }
            if self.channels.is_subscribed(session.conn.index(), channel));
        let consulted = match renews {
            true => Consulted::Rules,
            false => self.consult(session, &command, None, out),
        };
        let approval = match consulted {
            Consulted::Rules => None,
            Consulted::Allowed(result) => Some(result),
            Consulted::Asked => {
                if let Some((name, owned)) = command.subject().zip(command.to_owned()) {
                    let waiting = Waiting::Command(request, owned);
                    self.calls.wait(session.conn, name, waiting, true);
                }
                return Flow::Continue;
            }
            Consulted::Refused(Refusal::Disconnect { code, reason }) => {
                self.end_as_told(session, code, &reason, out);
                return Flow::Continue;
            }
            Consulted::Refused(why) => {
                self.refuse(session, &request, why.error(command.about()), out);
                return Flow::Continue;
            }
        };
        // A refusal needs the request id, which most commands pass on. A check of a token that must wait
        // needs the command.
        let (named, subject) = (request.clone(), command.subject());
        let retried = if again { subject.zip(command.to_owned()) } else { None };
        let done = self.execute_approved(session, request, command, approval, out);
        match (done, retried) {
            (Ok(Flow::Retry), Some((name, owned))) => {
                self.calls.wait(session.conn, name, Waiting::Command(named, owned), true);
                Flow::Retry
            }
            (Ok(flow), _) => flow,
            (Err(why), _) => {
                self.refuse(session, &named, why, out);
                Flow::Continue
            }
        }
    }

    /// Lets a command wait behind others about the same, or refuses it if too many wait.
    fn let_wait(
        &mut self,
        session: Session,
        name: &str,
        request: RequestId,
        command: &Command<'_>,
        out: &mut impl Outlet,
    ) {
        let Some(owned) = command.to_owned() else { return };
        if self.calls.has_room(session.conn, owned.bytes()) {
            let waiting = Waiting::Command(request, owned);
            self.calls.wait(session.conn, name, waiting, false);
        } else {
            let why = Error { about: command.about(), ..ErrorCode::TooMany.into() };
            self.refuse(session, &request, why, out);
        }
    }

    /// Whether a command asks for a page of history while its session waits for another one, which a
    /// command that waited for the backend has asked for.
    fn reads_two_pages(&self, session: Session, command: &Command<'_>) -> bool {
        matches!(command, Command::History { .. })
            && self.reading_history.contains_key(&session.conn.index())
    }

    /// Executes a command that the backend is not asked about, and leaves it to the caller to tell the
    /// session of an error.
    ///
    /// # Errors
    /// The reason why the command is refused. The command has changed nothing.
    pub(crate) fn execute<'c>(
        &mut self,
        session: Session,
        request: RequestId,
        command: Command<'c>,
        out: &mut impl Outlet,
    ) -> Result<Flow, Error<'c>> {
        let consent = self.take_consent(session, &command);
        self.execute_approved(session, request, command, consent, out)
    }

    /// [`execute`](Self::execute) with the backend's consent, which takes the place of the rule.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub(crate) fn execute_approved<'c>(
        &mut self,
        session: Session,
        request: RequestId,
        command: Command<'c>,
        approval: Option<Box<CallResult>>,
        out: &mut impl Outlet,
    ) -> Result<Flow, Error<'c>> {
        self.refresh_clock(out);
        let slot = session.conn.index();
        match command {
            Command::Subscribe { channel, start, token, presence } => {
                self.check_presence(slot, channel, &presence)?;
                let renews = self.channels.is_subscribed(slot, channel);
                let mut info = None;
                if let Some(token) = token {
                    let of = (channel, start);
                    let flow = self.subscribe_with_token(session, request, of, token, out)?;
                    if flow == Flow::Retry {
                        return Ok(flow);
                    }
                } else {
                    if approval.is_none() && !renews {
                        self.allow_channel(slot, channel, Right::Subscribe)?;
                    }
                    let result = approval.map(|result| *result).unwrap_or_default();
                    let expires = result.expire_at;
                    if expires.is_some_and(|at| at.saturating_add(LEEWAY_SECONDS) <= unix_seconds())
                    {
                        let about = About::Channel(channel);
                        return Err(Error::from(ErrorCode::TokenExpired).about(about));
                    }
                    let recipient = Recipient::Session(session, request);
                    let ticket = self.subscribe(session, channel, start, recipient)?;
                    if let Some(data) = result.data {
                        self.pending.add_data(ticket, answers::payload(data));
                    }
                    if let Some(expires) = expires.and_then(UnixSeconds::new) {
                        self.subscription_tokens.insert(slot, channel, Some(expires));
                    }
                    info = result.info;
                }
                self.begin_presence(session, channel, presence, info, renews);
            }
            Command::Unsubscribe { channel } => {
                let about = About::Channel(channel);
                self.channels.unsubscribe(slot, channel).map_err(|why| error(why, about))?;
                self.subscription_tokens.remove(slot, channel);
                self.leave_presence(session, channel);
                out.reply(session, &request, Reply::Unsubscribed { channel });
            }
            Command::Publish { channel, payload, to } => {
                let payload = match approval {
                    Some(result) => answers::replaced(payload, result.data),
                    None => {
                        self.allow_channel(slot, channel, Right::Publish)?;
                        payload
                    }
                };
                self.counters.published.add(1);
                let ticket = (request != RequestId::None)
                    .then(|| self.pending.issue(channel, Recipient::Session(session, request)));
                let origin = self.origin(session.conn);
                self.publish(
                    channel,
                    payload,
                    Publisher { origin, ticket, except: to == Audience::Others },
                )?;
            }
            Command::History { channel, query } => {
                self.allow_channel(slot, channel, Right::History)?;
                self.read(session, channel, query, Recipient::Session(session, request))?;
            }
            Command::Await { channel, start } => {
                match approval {
                    None => self.allow_channel(slot, channel, Right::Subscribe)?,
                    Some(result) if self.config.has_presence(channel) => {
                        let info = result.info.as_deref().map(Meta::new);
                        self.member_choices.set_info(slot, channel, info);
                    }
                    Some(_) => {}
                }
                let query = HistoryQuery {
                    start,
                    limit: if start == Start::Head { 0 } else { u32::MAX },
                    bytes_max: self.config.channels.slice_bytes,
                    direction: Direction::Forward,
                };
                self.read(session, channel, query, Recipient::Poll(session, request))?;
            }
            Command::Presence { channel, query } => {
                self.read_presence(session, request, channel, Some(query))?;
            }
            Command::PresenceStats { channel } => {
                self.read_presence(session, request, channel, None)?;
            }
            Command::PresenceUpdate { channel, meta } => {
                self.update_presence(session, channel, meta)?;
                out.reply(session, &request, Reply::PresenceUpdated { channel });
            }
            Command::PresenceLeave { channel } => {
                self.hide_presence(session, channel)?;
                out.reply(session, &request, Reply::PresenceLeft { channel });
            }
            Command::Ping => {
                let connection = self.connection_id(session.conn).to_string();
                out.reply(session, &request, Reply::Pong { connection: &connection });
            }
            Command::Authenticate { token } => match self.verify(token, session.conn, out) {
                Verdict::Good(user) => {
                    let (name, expires) = (&user.name, user.expires.map(UnixSeconds::get));
                    out.reply(session, &request, Reply::Authenticated { user: name, expires });
                    log::authenticated(self.connection_id(session.conn), &user);
                    self.authenticate(session, user, out);
                }
                Verdict::Bad(why) => return Err(why.into()),
                Verdict::TooMany => {
                    let conn = self.connection_id(session.conn);
                    log::too_many_bad_tokens(conn, ShownPeer(None));
                    return Err(ErrorCode::TooFast.into());
                }
                Verdict::NotNow => return Ok(Flow::Retry),
            },
            Command::Serve { service } => {
                self.allow_service(slot, service, |rules| rules.serve)?;
                let about = About::Service(service);
                self.services.serve(slot, service).map_err(|why| error(why, about))?;
                out.reply(session, &request, Reply::Serving { service });
            }
            Command::Unserve { service } => {
                let about = About::Service(service);
                self.services.unserve(slot, service).map_err(|why| error(why, about))?;
                out.reply(session, &request, Reply::Unserving { service });
            }
            Command::Call { channel, .. } => {
                let Some(result) = approval else {
                    return Err(Error::from(ErrorCode::NotAllowed).about(About::Channel(channel)));
                };
                let payload = answers::response(result.data);
                let reply = Reply::Response { service: channel, payload: &payload };
                out.reply(session, &request, reply);
            }
            Command::Request { service, payload, timeout_ms } => {
                if let Some(result) = approval {
                    let payload = answers::response(result.data);
                    out.reply(session, &request, Reply::Response { service, payload: &payload });
                    return Ok(Flow::Continue);
                }
                self.allow_service(slot, service, |rules| rules.request)?;
                let about = About::Service(service);
                let refused = |code| Error::from(code).about(about);
                self.config.limits.payload(&payload).map_err(refused)?;
                let ticket = self.pending.issue(service, Recipient::Session(session, request));
                let deadline = self.now.saturating_add(u64::from(timeout_ms));
                let asked = self.services.request(slot, ticket, service, payload, deadline);
                self.release_ticket_on_error(Some(ticket), asked, about)?;
            }
            Command::Respond { request, answer } => {
                let unknown = ErrorCode::UnknownRequest;
                let request = request.parse().map_err(|_| unknown)?;
                if let Ok(payload) = &answer {
                    self.config.limits.payload(payload)?;
                }
                let answer = answer.map_err(Box::from);
                self.services.reply(slot, request, answer).map_err(|_| unknown)?;
            }
        }
        Ok(Flow::Continue)
    }

    /// Publishes to a channel, after the checks of name and payload. All publications of sessions and of
    /// the server come through here.
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace`, `BadPublication`, `Overloaded`. The ticket is released.
    pub(super) fn publish<'c>(
        &mut self,
        channel: &'c str,
        payload: Payload,
        publisher: Publisher,
    ) -> Result<(), Error<'c>> {
        let about = About::Channel(channel);
        let checked = self.config.rules(channel);
        let checked = checked.and_then(|_| self.config.limits.payload(&payload));
        let ticket = publisher.ticket;
        if let Err(code) = checked {
            ticket.into_iter().for_each(|ticket| _ = self.pending.take(ticket));
            return Err(Error::from(code).about(about));
        }
        let published = self.channels.publish(channel, payload, publisher, self.now);
        self.release_ticket_on_error(ticket, published, about)
    }

    /// Publishes as the server itself. A publication that is refused is lost.
    pub(crate) fn publish_as_server(&mut self, channel: &str, payload: Payload, out: &impl Outlet) {
        self.refresh_clock(out);
        let publisher = Publisher { origin: SERVER, ticket: None, except: false };
        let _ = self.publish(channel, payload, publisher);
    }

    /// The subscription of a session to a channel, if it has one.
    pub(crate) fn subscription(&self, session: Session, channel: &str) -> Option<Subscription> {
        self.channels.subscription(session.conn.index(), channel)
    }

    /// The number of subscriptions of a session, including pending ones.
    pub(crate) fn subscription_count(&self, session: Session) -> usize {
        self.channels.subscriptions(session.conn.index()).count()
    }

    /// Whether the server has keys for tokens. Without keys every token would be refused.
    pub(crate) fn has_keys(&self) -> bool {
        !self.config.keys.is_empty() || self.config.keys_wanted.is_some()
    }

    pub(super) fn subscribe<'c>(
        &mut self,
        session: Session,
        channel: &'c str,
        start: Start,
        recipient: Recipient,
    ) -> Result<Ticket, Error<'c>> {
        let ticket = self.pending.issue(channel, recipient);
        let slot = session.conn.index();
        let subscribed = self.channels.subscribe(slot, channel, start, ticket, self.now);
        self.release_ticket_on_error(Some(ticket), subscribed, About::Channel(channel))?;
        Ok(ticket)
    }

    /// Asks for a page of history. A session waits for one page at a time.
    fn read<'c>(
        &mut self,
        session: Session,
        channel: &'c str,
        query: HistoryQuery,
        recipient: Recipient,
    ) -> Result<(), Error<'c>> {
        let slot = session.conn.index();
        let ticket = self.pending.issue(channel, recipient);
        let asked = self.channels.history(channel, query, ticket, self.now);
        self.release_ticket_on_error(Some(ticket), asked, About::Channel(channel))?;
        let before = self.reading_history.insert(slot, ticket);
        assert!(before.is_none(), "the session's input waits for the page before");
        Ok(())
    }

    /// Releases the ticket of a command that the router has refused at once.
    fn release_ticket_on_error<'c, E: Into<ErrorCode>>(
        &mut self,
        ticket: Option<Ticket>,
        done: Result<(), E>,
        about: About<'c>,
    ) -> Result<(), Error<'c>> {
        done.map_err(|why| {
            ticket.into_iter().for_each(|ticket| _ = self.pending.take(ticket));
            error(why, about)
        })
    }

    /// Tells a session that its command is refused, and counts it.
    pub(crate) fn refuse(
        &self,
        session: Session,
        request: &RequestId,
        why: Error<'_>,
        out: &mut impl Outlet,
    ) {
        self.counters.refused.add(1);
        out.reply(session, request, Reply::Error(why));
    }

    /// Counts a command that the session's protocol could not decode and has refused.
    pub(crate) fn count_refused(&self) {
        self.counters.refused.add(1);
    }
}

fn error<'c>(why: impl Into<ErrorCode>, about: About<'c>) -> Error<'c> {
    Error::from(why.into()).about(about)
}
