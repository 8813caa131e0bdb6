//! Whether the backend decides about a command, and the call that asks it.
//!
//! A command that asks is not executed. Once its answer is there it is handed in again, and
//! [`Hub::consult`] returns the answer. So a command that waited sees the rules and the user of that time,
//! and asks again if the user is another one.

use std::time::Instant;

use hyper::header::HeaderMap;
use murre_core::ConnId;
use murre_router::channels::{Form, Payload};
use murre_router::presence::Meta;
use serde_json::value::RawValue;

use super::answers::{self, REFRESH_SOON};
use super::auth::{Right, UnixSeconds, User, Verifier};
use super::calls::CallOut;
use super::event::Event;
use super::rules::{Access, Permission};
use super::{About, Command, Error, ErrorCode, Hub, Outlet, Session};
use crate::backend::{Answer, Call, CallKind, CallRequest, CallResult, Encoding, Failure, RawJson};

/// What a session that the backend has admitted is known by. A session without it costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admitted {
    /// `meta` of the connect call, which later calls get.
    pub(crate) meta: Option<Box<RawValue>>,
    /// `info` of the connect call: the session's metadata as a member of any channel.
    pub(crate) info: Option<Meta>,
    /// `data` of the connect call, until the session is told.
    pub(crate) data: Option<Payload>,
    /// The header fields of the client's request that calls get.
    pub(crate) fields: HeaderMap,
    /// Whether the expiry of the user is the backend's, so that a refresh call is made.
    pub(crate) refreshes: bool,
}

/// The backend's part in a decision.
pub(crate) enum Consulted<'c> {
    /// The rules alone decide.
    Rules,
    /// It consents.
    Allowed(Box<CallResult>),
    /// It is asked. The command is handed in again once the answer is there.
    Asked,
    Refused(Refusal<'c>),
}

/// Why a command is refused that the backend decides about.
pub(crate) enum Refusal<'c> {
    Error(Error<'c>),
    /// The application's own sentence.
    Application(ErrorCode, Box<str>),
    /// The session ends.
    Disconnect {
        code: u32,
        reason: Box<str>,
    },
}

/// The user of a connect answer, and what later calls need.
pub(crate) struct Connected {
    pub(crate) user: Option<User>,
    pub(crate) admitted: Admitted,
}

/// The session that a connect answer describes.
///
/// # Errors
/// Its rights cannot be used.
fn connected(
    result: &CallResult,
    verifier: &mut Verifier,
    fields: HeaderMap,
) -> Result<Connected, Refusal<'static>> {
    let CallResult { user, expire_at, channels, subs, meta, info, data, .. } = result;
    let raw = |json: &Option<RawJson>| json.as_ref().map(|json| json.0.clone());
    let Ok(grants) = verifier.grants(raw(channels).as_deref(), raw(subs).as_deref()) else {
        return Err(Refusal::Error(ErrorCode::BackendFailed.into()));
    };
    let expires = expire_at.and_then(UnixSeconds::new);
    let user = user.clone().map(|name| User { name: name.into(), expires, grants });
    let refreshes = user.as_ref().is_some_and(|user| user.expires.is_some());
    let info = info.as_deref().map(Meta::new);
    let data = data.clone().map(answers::payload);
    let admitted = Admitted { meta: raw(meta), info, data, fields, refreshes };
    Ok(Connected { user, admitted })
}

/// Requests of one address that are asked about at once on a shard, while many calls wait.
const SHARE: usize = 64;

/// What is asked.
struct Question<'c, 'd> {
    kind: CallKind,
    /// The channel or the service.
    name: &'c str,
    payload: Option<&'d Payload>,
    /// Data of a protocol that has more than the command, as JSON.
    data: Option<&'d [u8]>,
}

impl Refusal<'_> {
    /// The refusal as an error about a channel or a service.
    pub(crate) fn error<'e>(&'e self, about: Option<About<'e>>) -> Error<'e> {
        match self {
            Refusal::Error(error) => *error,
            Refusal::Application(code, sentence) => {
                let detail = Some(&**sentence).filter(|sentence| !sentence.is_empty());
                Error { code: *code, detail, about }
            }
            Refusal::Disconnect { reason, .. } => {
                let detail = Some(&**reason).filter(|reason| !reason.is_empty());
                Error { code: ErrorCode::Disconnected, detail, about }
            }
        }
    }
}

impl<'c> From<Answer> for Consulted<'c> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Result(result) => Consulted::Allowed(result),
            Answer::Error { code, message } => {
                Consulted::Refused(Refusal::Application(error_code(code), message))
            }
            Answer::Disconnect { code, reason } => {
                Consulted::Refused(Refusal::Disconnect { code, reason })
            }
            Answer::Failed(why) => Consulted::Refused(Refusal::Error(ErrorCode::from(why).into())),
        }
    }
}

impl Answer {
    /// Whether the application consents.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn consent<'a>(&'a self, about: About<'a>) -> Result<(), Error<'a>> {
        let (code, text) = match self {
            Answer::Result(_) => return Ok(()),
            Answer::Error { code, message } => (error_code(*code), &**message),
            Answer::Disconnect { reason, .. } => (ErrorCode::Disconnected, &**reason),
            Answer::Failed(why) => (ErrorCode::from(*why), ""),
        };
        let detail = Some(text).filter(|text| !text.is_empty());
        Err(Error { code, detail, about: Some(about) })
    }
}

/// The hub's name for an error of the application. 103 is Centrifugo's "permission denied".
fn error_code(code: u32) -> ErrorCode {
    match code {
        103 => ErrorCode::NotAllowed,
        _ => ErrorCode::Refused,
    }
}

impl From<Failure> for ErrorCode {
    fn from(why: Failure) -> Self {
        match why {
            Failure::Overloaded => ErrorCode::Overloaded,
            _ => ErrorCode::BackendFailed,
        }
    }
}

impl Hub {
    /// Whether the backend decides about a command, and what it says. `data` is for the backend beside what
    /// the command has, as JSON.
    pub(crate) fn consult<'c>(
        &mut self,
        session: Session,
        command: &Command<'c>,
        data: Option<&[u8]>,
        out: &impl Outlet,
    ) -> Consulted<'c> {
        let Some(backend) = &self.config.backend else { return Consulted::Rules };
        let (slot, conn) = (session.conn.index(), session.conn);
        let user = self.sessions.user(slot);
        let question = |kind, name: &'c str, payload| Question { kind, name, payload, data };
        let asks = |right, channel| {
            let is_subscribed = || self.channels.is_subscribed(slot, channel);
            let rules = self.config.rules(channel);
            rules.is_ok_and(|rules| {
                rules.permission(right, channel, user, is_subscribed) == Permission::Ask
            })
        };
        let question = match command {
            Command::Subscribe { channel, token: None, .. } | Command::Await { channel, .. }
                if asks(Right::Subscribe, channel) =>
            {
                question(CallKind::Subscribe, channel, None)
            }
            Command::Publish { channel, payload, .. } if asks(Right::Publish, channel) => {
                question(CallKind::Publish, channel, Some(payload))
            }
            Command::Request { service, payload, .. }
                if self.config.rules(service).is_ok_and(|r| r.request == Access::Backend) =>
            {
                question(CallKind::Rpc, service, Some(payload))
            }
            Command::Call { channel, payload } => question(CallKind::Rpc, channel, Some(payload)),
            _ => return Consulted::Rules,
        };
        let about = match command {
            Command::Request { .. } => About::Service(question.name),
            _ => About::Channel(question.name),
        };
        let name = user.map(|user| &*user.name);
        if let Some(answer) = self.calls.take(conn, question.name, question.kind, name) {
            return match answer.into() {
                Consulted::Refused(Refusal::Error(error)) => {
                    Consulted::Refused(Refusal::Error(error.about(about)))
                }
                consulted => consulted,
            };
        }
        let refused =
            |code: ErrorCode| Consulted::Refused(Refusal::Error(Error::from(code).about(about)));
        if !backend.makes(question.kind) {
            return refused(ErrorCode::NotAllowed);
        }
        if let Some(payload) = question.payload
            && let Err(code) = self.config.limits.payload(payload)
        {
            return refused(code);
        }
        if let Some(data) = data
            && let Err(code) = self.config.limits.size(data.len())
        {
            return refused(code);
        }
        let bytes = command.to_owned().map_or(0, |command| command.bytes());
        if !self.calls.has_room(conn, bytes) {
            return refused(ErrorCode::TooMany);
        }
        let admitted = self.admitted.get(&slot).cloned().unwrap_or_default();
        let user = user.cloned();
        let transport = out.transport(session);
        let asked =
            self.ask(conn, &question, user.as_ref(), &admitted, transport, false, out.now());
        match asked {
            Ok(()) => Consulted::Asked,
            Err(why) => refused(why.into()),
        }
    }

    /// The consent that the request of a session has got for a subscription.
    pub(super) fn take_consent(
        &mut self,
        session: Session,
        command: &Command<'_>,
    ) -> Option<Box<CallResult>> {
        let (Command::Subscribe { channel, .. } | Command::Await { channel, .. }) = command else {
            return None;
        };
        let user = self.sessions.user(session.conn.index()).map(|user| &*user.name);
        match self.calls.take(session.conn, channel, CallKind::Subscribe, user)? {
            Answer::Result(result) => Some(result),
            _ => None,
        }
    }

    /// Queues a call, and records that it is out.
    #[allow(clippy::too_many_arguments, reason = "all of it is in the call")]
    fn ask(
        &mut self,
        conn: ConnId,
        question: &Question<'_, '_>,
        user: Option<&User>,
        admitted: &Admitted,
        (transport, protocol): (&'static str, &'static str),
        is_request: bool,
        now: Instant,
    ) -> Result<(), Failure> {
        let Some(backend) = &self.config.backend else { return Err(Failure::Unreachable) };
        let Question { kind, name, payload, data } = *question;
        let client = self.connection_id(conn).to_string();
        let json = |bytes| serde_json::from_slice::<&RawValue>(bytes).ok();
        let binary = payload.is_some_and(|payload| payload.form == Form::Binary);
        let event = payload.and_then(Event::of).map(Event::name);
        let is_rpc = kind == CallKind::Rpc;
        let names_nobody = kind == CallKind::Connect;
        let request = CallRequest {
            client: &client,
            transport,
            encoding: if binary { Encoding::Binary } else { Encoding::Json },
            name: (kind == CallKind::Connect).then_some(protocol),
            user: (!names_nobody).then(|| user.map_or("", |user| &*user.name)),
            channel: (!name.is_empty()).then_some(name),
            method: is_rpc.then_some(event.unwrap_or(name)),
            event: event.filter(|_| !is_rpc),
            data: match payload {
                Some(payload) if !binary => json(payload.data()),
                _ => data.and_then(json),
            },
            b64data: payload.filter(|_| binary).map(|payload| base64_of(payload.data())),
            meta: admitted.meta.as_deref(),
            ..CallRequest::default()
        };
        let body = request.bytes();
        let deadline = now.checked_add(backend.timeout()).unwrap_or(now);
        let id = self.calls.next_id();
        let fields = admitted.fields.clone();
        let call = Call { id, shard: self.shard, kind, fields, body, deadline };
        backend.submit(call)?;
        self.counters.backend_calls.add(1);
        self.active = true;
        let user = user.map(|user| &*user.name);
        let refreshed = user.filter(|_| kind == CallKind::Refresh).map(Box::from);
        let out = CallOut { conn, kind, name: name.into(), refreshed };
        let gives_up = self.call_deadline(now);
        self.calls.begin(id, out, user, is_request, gives_up);
        Ok(())
    }

    /// Asks whether the session of a user whose expiry has passed goes on. Returns whether it is asked.
    pub(super) fn ask_to_refresh(&mut self, session: Session, out: &impl Outlet) -> bool {
        let slot = session.conn.index();
        let makes = |kind| self.config.backend.as_ref().is_some_and(|backend| backend.makes(kind));
        let Some(admitted) = self.admitted.get(&slot).filter(|admitted| admitted.refreshes) else {
            return false;
        };
        if !makes(CallKind::Refresh) {
            return false;
        }
        let (admitted, user) = (admitted.clone(), self.sessions.user(slot).cloned());
        let kind = CallKind::Refresh;
        let question = Question { kind, name: "", payload: None, data: None };
        let transport = out.transport(session);
        let conn = session.conn;
        let asked =
            self.ask(conn, &question, user.as_ref(), &admitted, transport, false, out.now());
        if asked.is_err() {
            // It is asked later.
            self.postpone_expiry(session, &REFRESH_SOON);
        }
        true
    }

    /// Whether requests without a token are asked about.
    pub(crate) fn asks_to_connect(&self) -> bool {
        self.config.backend.as_ref().is_some_and(|backend| backend.makes(CallKind::Connect))
    }

    /// Whether it may be asked who the client of a request is. If many calls wait, the requests of one address
    /// have a share of them only, so that others are asked about, too.
    pub(crate) fn may_ask_to_connect(
        &self,
        conn: ConnId,
        address: impl Fn(ConnId) -> Option<u32>,
    ) -> bool {
        let backend = self.config.backend.as_ref();
        if self.calls.is_busy(conn, "")
            || !backend.is_some_and(|backend| backend.is_crowded(CallKind::Connect))
        {
            return true;
        }
        let Some(own) = address(conn) else { return true };
        let same = self.calls.requests().filter(|other| address(*other) == Some(own));
        same.take(SHARE).count() < SHARE
    }

    /// Asks who the client of a request is, which is held until the answer is there: `None`. `data` is
    /// JSON.
    ///
    /// # Errors
    /// The answer refuses, or cannot be used, or the call cannot be made.
    pub(crate) fn consult_to_connect(
        &mut self,
        conn: ConnId,
        transport: (&'static str, &'static str),
        fields: &HeaderMap,
        data: &[u8],
        now: Instant,
    ) -> Option<Result<Connected, Refusal<'static>>> {
        if let Some(answer) = self.calls.answer(conn, "", None) {
            return Some(match answer {
                Answer::Result(result) => connected(result, &mut self.verifier, fields.clone()),
                Answer::Error { code, message } => {
                    Err(Refusal::Application(error_code(*code), message.clone()))
                }
                Answer::Disconnect { code, reason } => {
                    Err(Refusal::Disconnect { code: *code, reason: reason.clone() })
                }
                Answer::Failed(why) => Err(Refusal::Error(ErrorCode::from(*why).into())),
            });
        }
        if self.calls.is_out(conn, "") {
            return None;
        }
        let admitted = Admitted { fields: fields.clone(), ..Admitted::default() };
        let kind = CallKind::Connect;
        let question = Question { kind, name: "", payload: None, data: Some(data) };
        let asked = self.ask(conn, &question, None, &admitted, transport, true, now);
        asked.err().map(|why| Err(Refusal::Error(ErrorCode::from(why).into())))
    }

    /// Drops what the backend has said to a request that is answered, or whose session has begun.
    pub(crate) fn forget_request(&mut self, conn: ConnId) {
        self.calls.forget_request(conn);
    }

    /// Asks whether the client of a request may subscribe to a channel, if the backend decides about it.
    /// Returns whether the request must wait for an answer; [`may_subscribe`](Self::may_subscribe) has it
    /// then.
    ///
    /// # Errors
    /// The call cannot be made.
    pub(crate) fn consult_to_subscribe(
        &mut self,
        conn: ConnId,
        channel: &str,
        user: Option<&User>,
        admitted: &Admitted,
        transport: (&'static str, &'static str),
        now: Instant,
    ) -> Result<bool, ErrorCode> {
        let rules = self.config.rules(channel);
        let name = user.map(|user| &*user.name);
        let asks = rules.is_ok_and(|rules| {
            rules.permission(Right::Subscribe, channel, user, || false) == Permission::Ask
        });
        if !asks || self.calls.answer(conn, channel, name).is_some() {
            return Ok(false);
        }
        if self.calls.is_out(conn, channel) {
            return Ok(true);
        }
        let kind = CallKind::Subscribe;
        let question = Question { kind, name: channel, payload: None, data: None };
        self.ask(conn, &question, user, admitted, transport, true, now)?;
        Ok(true)
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
