//! Answers of the backend, and the commands that waited for them.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use murre_core::ConnId;
use murre_router::channels::{Form, Payload};
use murre_router::presence::Meta;

use super::auth::UnixSeconds;
use super::calls::{Answered, Waiting};
use super::consult::Admitted;
use super::event::Event;
use super::output::{Disconnect, DisconnectReason};
use super::{ErrorCode, Flow, Hub, Outlet, Push, Session, unix_seconds};
use crate::backend::{Answer, CallId, Data, Failure};

/// The times after which a session is asked about again when its refresh call has failed, and when too many
/// calls waited, in seconds. They differ from session to session, so that those which expire together are not
/// asked about together again.
const REFRESH_AGAIN: RangeInclusive<u64> = 30..=60;
pub(super) const REFRESH_SOON: RangeInclusive<u64> = 2..=5;

impl Hub {
    /// Handles the answer of a call.
    pub(super) fn backend_answers(&mut self, id: CallId, answer: Answer, out: &mut impl Outlet) {
        let expires = self.call_deadline(out.now());
        match self.calls.answered(id, answer, expires) {
            Answered::Late => self.count_late(),
            Answered::NotYet => {}
            Answered::Request(conn) => self.answered_requests.push(conn),
            Answered::Session(conn, name) => self.proceed(conn, &name, true, out),
            Answered::Refresh(conn, user, answer) => {
                self.refreshed(conn, user.as_deref(), answer, out);
            }
        }
    }

    /// The time at which the shard gives up a call of this time, or an answer that nobody has taken. The
    /// worker, which has the exact time, answers before.
    pub(super) fn call_deadline(&self, now: Instant) -> Instant {
        let timeout = self.config.backend.as_ref().map(|backend| backend.timeout());
        let timeout = timeout.unwrap_or_default().saturating_add(GRACE);
        now.checked_add(timeout).unwrap_or(now)
    }

    fn count_late(&self) {
        if let Some(backend) = &self.config.backend {
            backend.counts().is_late();
        }
    }

    /// Fails the calls whose deadline has passed. The answers that come for them are late.
    pub(super) fn fail_overdue_calls(&mut self, out: &mut impl Outlet) {
        while let Some(id) = self.calls.overdue(out.now()) {
            self.backend_answers(id, Answer::Failed(Failure::Timeout), out);
        }
    }

    /// Takes the next request whose calls are all answered.
    pub(crate) fn take_answered_request(&mut self) -> Option<ConnId> {
        self.answered_requests.pop()
    }

    /// Handles commands that waited for the backend, or for an answer before them.
    pub(crate) fn proceed_all(&mut self, conn: ConnId, out: &mut impl Outlet) {
        if !self.calls.is_empty() {
            for name in self.calls.ready(conn) {
                self.proceed(conn, &name, false, out);
            }
        }
    }

    /// Handles the commands that wait for the backend's answer about a channel or service, until one of
    /// them asks again.
    /// `resumes`: a message is left to its protocol.
    fn proceed(&mut self, conn: ConnId, name: &str, resumes: bool, out: &mut impl Outlet) {
        while let Some(session) = self.sessions.of(conn).filter(|_| out.is_open(conn)) {
            let reading = self.reading_history.contains_key(&conn.index());
            let mut has_message = false;
            let mut takes = |waiting: &Waiting| match waiting {
                // As with commands that do not wait, the next one follows the page of history.
                Waiting::Command(..) => !reading,
                Waiting::Message(..) => {
                    has_message = true;
                    false
                }
            };
            let next = self.calls.next(conn, name, &mut takes);
            if has_message && resumes {
                out.resume(session);
            }
            let Some(Waiting::Command(request, command)) = next else { return };
            let flow = self.run_or_wait(session, request, command.command(), true, out);
            self.dispatch(out);
            if flow == Flow::Retry {
                // It is the first of the waiting commands again.
                self.retried.push(conn);
                self.active = true;
                return;
            }
            self.calls.settle(conn, name);
        }
    }

    /// Handles the commands that waited for another turn because of their tokens. Returns whether some still do.
    pub(super) fn proceed_retried(&mut self, out: &mut impl Outlet) -> bool {
        for conn in std::mem::take(&mut self.retried) {
            self.proceed_all(conn, out);
        }
        !self.retried.is_empty()
    }

    /// A message that had waited for the backend's answer about a channel has been handled: the answer counts
    /// for no other one.
    pub(crate) fn settle(&mut self, session: Session, name: &str) {
        self.calls.settle(session.conn, name);
    }

    /// Takes the next message of a session that waited for the backend's answer about this.
    pub(crate) fn take_message(
        &mut self,
        session: Session,
    ) -> Option<(murre_codec::Kind, Box<[u8]>)> {
        if self.calls.is_empty() {
            return None;
        }
        let conn = session.conn;
        let is_message = |waiting: &Waiting| matches!(waiting, Waiting::Message(..));
        for name in self.calls.ready(conn) {
            if let Some(Waiting::Message(bytes, kind)) = self.calls.next(conn, &name, is_message) {
                return Some((kind, bytes));
            }
        }
        None
    }

    /// Whether messages of a session about a channel wait for the backend.
    pub(crate) fn waits_for_backend(&self, session: Session, name: &str) -> bool {
        self.calls.is_busy(session.conn, name)
    }

    /// Lets a message wait for the backend's answer about a channel: as the first if it has just asked.
    ///
    /// # Errors
    /// `TooMany`: the session has as many waiting messages as it may have.
    pub(crate) fn let_message_wait(
        &mut self,
        session: Session,
        name: &str,
        (kind, bytes): (murre_codec::Kind, &[u8]),
        first: bool,
    ) -> Result<(), ErrorCode> {
        if !first && !self.calls.has_room(session.conn, bytes.len()) {
            return Err(ErrorCode::TooMany);
        }
        self.calls.wait(session.conn, name, Waiting::Message(bytes.into(), kind), first);
        Ok(())
    }

    /// Ends a session as the application says. Codes that are not the application's become 4000.
    pub(crate) fn end_as_told(
        &self,
        session: Session,
        code: u32,
        reason: &str,
        out: &mut impl Outlet,
    ) {
        let code = u16::try_from(code).ok().filter(|code| APPLICATION_CODES.contains(code));
        let detail = Some(reason).filter(|reason| !reason.is_empty());
        let why = DisconnectReason::Application;
        self.counters.refused.add(1);
        out.end(session, Disconnect { reason: why, code, detail });
    }

    /// Says what calls need of the session that is opened next.
    pub(crate) fn admit_next(&mut self, admitted: Option<Admitted>) {
        self.admits_next = admitted;
    }

    /// Keeps what calls of a session need, which has been opened.
    pub(super) fn admitted(&mut self, conn: ConnId) {
        self.greeting = None;
        let Some(mut admitted) = self.admits_next.take() else { return };
        self.greeting = admitted.data.take().map(|data| (conn, data));
        let Admitted { meta, info, fields, refreshes, .. } = &admitted;
        if meta.is_some() || info.is_some() || *refreshes || !fields.is_empty() {
            self.admitted.insert(conn.index(), Box::new(admitted));
        }
    }

    /// Tells a session that has just begun the data of its connect answer, if it has some.
    pub(crate) fn greet(&mut self, session: Session, out: &mut impl Outlet) {
        if let Some((_, data)) = self.greeting.take().filter(|(conn, _)| *conn == session.conn) {
            out.push(session, Push::Connected { data: &data });
        }
    }

    fn refreshed(
        &mut self,
        conn: ConnId,
        user: Option<&str>,
        answer: Answer,
        out: &mut impl Outlet,
    ) {
        let session = self.sessions.of(conn).filter(|_| out.at(conn.index()) == Some(conn));
        let refreshes = self.admitted.get(&conn.index()).is_some_and(|of| of.refreshes);
        // It may have presented a token in the meantime, or be the next poll of a proxy's connection.
        let is_same = self.sessions.user(conn.index()).map(|user| &*user.name) == user;
        let Some(session) = session.filter(|_| refreshes && is_same) else {
            return self.count_late();
        };
        let expires_at = match answer {
            Answer::Result(mut result) if !result.expired => {
                if let Some(admitted) = self.admitted.get_mut(&conn.index()) {
                    admitted.meta = result.meta.take().map(|meta| meta.0).or(admitted.meta.take());
                    let info = result.info.as_deref().map(Meta::new);
                    admitted.info = info.or(admitted.info.take());
                }
                match result.expire_at {
                    // A time that has passed would be asked about again at once.
                    Some(at) if at <= unix_seconds() => None,
                    Some(at) => Some(UnixSeconds::new(at)),
                    None => Some(None),
                }
            }
            Answer::Result(_) => None,
            Answer::Disconnect { code, reason } => {
                return self.end_as_told(session, code, &reason, out);
            }
            Answer::Error { .. } | Answer::Failed(_) => {
                return self.postpone_expiry(session, &REFRESH_AGAIN);
            }
        };
        match expires_at {
            Some(expires) => {
                self.sessions.refresh(session.conn, expires);
            }
            None => {
                self.counters.refused.add(1);
                out.end(session, DisconnectReason::TokenExpired.into());
            }
        }
    }

    /// Asks again later about a session whose refresh call has no answer.
    pub(super) fn postpone_expiry(&mut self, session: Session, after: &RangeInclusive<u64>) {
        let place = u64::from(session.conn.index()).checked_rem(after.clone().count() as u64);
        let seconds = after.start().saturating_add(place.unwrap_or(0));
        let later = unix_seconds().saturating_add(seconds);
        self.sessions.refresh(session.conn, UnixSeconds::new(later));
    }
}

/// The time for the worker's answer to arrive.
const GRACE: Duration = Duration::from_secs(1);

/// The close codes of applications (RFC 6455 section 7.4.2).
const APPLICATION_CODES: RangeInclusive<u16> = 4000..=4999;

/// The payload that the application has put in the place of another one, whose event stays.
pub(super) fn replaced(before: Payload, data: Option<Data>) -> Payload {
    let Some(data) = data else { return before };
    let after = payload(data);
    match Event::of(&before) {
        Some(event) => event.payload(after.form, after.data()),
        None => after,
    }
}

/// The response of the application to a request. Without data it is `null`.
pub(super) fn response(data: Option<Data>) -> Payload {
    data.map_or_else(|| Payload::new(Form::Json, &b"null"[..]), payload)
}

/// The payload that data of the application is.
pub(super) fn payload(data: Data) -> Payload {
    match data {
        Data::Json(bytes) => Payload::new(Form::Json, bytes),
        Data::Binary(bytes) => Payload::new(Form::Binary, bytes),
    }
}
