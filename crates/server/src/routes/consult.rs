//! Requests that wait for the backend: who their client is, and whether it may subscribe.
//!
//! A request is held until all of its calls are answered, and is then handed in again. So a refusal is an
//! HTTP answer, for a WebSocket, an event stream and a poll alike.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use murre_codec::handshake;
use murre_codec::http::{Request, Response};
use murre_core::{ConnId, Outbox};
use serde_json::{Map, Value};

use super::app::App;
use super::paths::{Route, Session};
use crate::backend::CallKind;
use crate::hub::auth::User;
use crate::hub::consult::{Admitted, Refusal};
use crate::hub::{Error, ErrorCode};
use crate::transports::phoenix::long_poll;
use crate::transports::{self, Cors};

/// The requests of a shard that the backend is asked about.
#[derive(Default)]
pub(super) struct Consultations {
    /// The outcome of the connect call of the request that comes next.
    pub(super) connected: Option<(ConnId, Result<Option<User>, Response>)>,
    /// Connections whose requests are tried again because too many calls were waiting.
    put_off: VecDeque<ConnId>,
    /// When they are tried again.
    again_at: Option<Instant>,
    /// When each of them was tried first.
    since: HashMap<ConnId, Instant>,
}

/// Requests that are tried again in one turn, and the time between two such turns.
const RELEASED_MAX: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);

impl Consultations {
    /// Releases requests that were put off, if it is time.
    pub(super) fn turn(&mut self, out: &mut Outbox) {
        if self.again_at.is_none_or(|at| out.now() < at) {
            return;
        }
        for conn in self.put_off.drain(..self.put_off.len().min(RELEASED_MAX)) {
            out.release(conn);
        }
        if self.put_off.is_empty() {
            self.since.retain(|conn, _| out.at(conn.index()) == Some(*conn));
            self.since.shrink_to(RELEASED_MAX);
        }
        let waiting = !self.put_off.is_empty() || !self.since.is_empty();
        self.again_at = if waiting { out.now().checked_add(PAUSE) } else { None };
    }

    /// The time of the next turn that requests need which were put off.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// The number of requests that wait; 0 when all have been answered.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.put_off.len() + self.since.len()
    }
}

impl App {
    /// Asks the backend what it decides about a request that would begin a session. Returns whether all of
    /// it is known; if not, the request is held.
    pub(super) fn consult(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        has_token: bool,
        out: &mut Outbox,
    ) -> bool {
        self.consultations.connected = None;
        self.hub.admit_next(None);
        let Some(backend) = self.hub.config().backend.clone() else { return true };
        // What is refused anyway is not asked about.
        let is_bad = has_token && self.user_of_token(conn).is_none();
        let is_malformed = request.wants_websocket() && handshake::check(request).is_err();
        if is_bad || is_malformed || out.is_draining() || !self.paths.origins.allow(request) {
            // No later request of the connection may get an answer that was for this one.
            self.hub.forget_request(conn);
            // Nobody is let in unasked.
            if out.is_draining() && !has_token && self.hub.asks_to_connect() {
                let refusal = out.unavailable(conn, "draining\n");
                self.consultations.connected = Some((conn, Err(refusal)));
            }
            return true;
        }
        let mut subscribes = false;
        let transport = match self.paths.route(request.path()) {
            Some(Route::WebSocket(Session::Hub)) => ("websocket", "murre.v1"),
            Some(Route::WebSocket(Session::Phoenix) | Route::Supabase) => ("websocket", "phoenix"),
            Some(Route::Events) => {
                subscribes = true;
                ("sse", "murre.v1")
            }
            Some(Route::Poll) => {
                subscribes = true;
                ("long_poll", "murre.v1")
            }
            Some(Route::PhoenixPoll) if long_poll::begins(request) => ("long_poll", "phoenix"),
            Some(Route::SupabaseApi) => ("http", "phoenix"),
            _ => return true,
        };
        let fields = passed_on(request, backend.headers());
        let mut admitted = Admitted { fields: fields.clone(), ..Admitted::default() };
        let mut connected = None;
        if !has_token && self.hub.asks_to_connect() {
            let data = parameters(request);
            let address = |conn: ConnId| out.at(conn.index()).filter(|at| *at == conn);
            let address = |conn| address(conn).and_then(|conn| out.address(conn));
            let asked = match self.hub.may_ask_to_connect(conn, address) {
                true => self.hub.consult_to_connect(conn, transport, &fields, &data, out.now()),
                false => Some(Err(Refusal::Error(ErrorCode::Overloaded.into()))),
            };
            let outcome = match asked {
                None => return false,
                Some(Ok(of)) => {
                    admitted = of.admitted;
                    Ok(of.user)
                }
                Some(Err(Refusal::Error(Error { code: ErrorCode::Overloaded, .. })))
                    if self.put_off(conn, out) =>
                {
                    return false;
                }
                Some(Err(refusal)) => Err(self.refusal(conn, request, refusal.error(None), out)),
            };
            self.consultations.since.remove(&conn);
            connected = Some(outcome);
        }
        if subscribes && !matches!(connected, Some(Err(_))) {
            let from_token = self.user_of_token(conn).cloned();
            let user = match &connected {
                Some(Ok(user)) => user.clone(),
                _ => from_token,
            };
            // A query that cannot be read is refused later.
            let mut waits = false;
            for channel in transports::channels_of(request) {
                let user = user.as_ref();
                let now = out.now();
                let asked =
                    self.hub.consult_to_subscribe(conn, &channel, user, &admitted, transport, now);
                match asked {
                    Ok(asked) => waits |= asked,
                    Err(code) => {
                        let refusal = self.refusal(conn, request, code.into(), out);
                        self.consultations.connected = Some((conn, Err(refusal)));
                        return true;
                    }
                }
            }
            if waits {
                return false;
            }
        }
        if admitted.data.is_some() && !can_be_greeted(transport) {
            admitted.data = None;
            backend.counts().have_no_effect(CallKind::Connect, "data");
        }
        self.consultations.connected = connected.map(|outcome| (conn, outcome));
        self.hub.admit_next(Some(admitted));
        true
    }

    /// Puts a request off for which there is no room. Returns whether it may still wait.
    fn put_off(&mut self, conn: ConnId, out: &Outbox) -> bool {
        let Some(backend) = &self.hub.config().backend else { return false };
        let patience = backend.timeout();
        let Consultations { put_off, since, again_at, .. } = &mut self.consultations;
        let since = since.entry(conn).or_insert(out.now());
        let waits = out.now().saturating_duration_since(*since) < patience;
        if waits {
            put_off.push_back(conn);
            *again_at = again_at.or_else(|| out.now().checked_add(PAUSE));
        }
        waits
    }

    fn refusal(
        &self,
        conn: ConnId,
        request: &Request<'_, '_>,
        why: Error<'_>,
        out: &Outbox,
    ) -> Response {
        let cors = Cors::of(request, &self.paths.origins).unwrap_or_default();
        let response = transports::refusal(why, &cors);
        match response.status {
            503 => response.with("Retry-After", &out.retry_after(conn).to_string()),
            _ => response,
        }
    }

    /// The request has been answered, or its session has begun: drops what the backend said.
    pub(super) fn consulted(&mut self, conn: ConnId) {
        if self.hub.config().backend.is_some() {
            self.hub.admit_next(None);
            self.hub.forget_request(conn);
        }
    }
}

/// Whether sessions of this transport and protocol are told the data of a connect answer.
fn can_be_greeted(transport: (&str, &str)) -> bool {
    matches!(transport, ("websocket" | "sse", "murre.v1"))
}

/// The header fields of a request that the application wants.
fn passed_on(request: &Request<'_, '_>, names: &[HeaderName]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for name in names {
        let values = request.headers_named(name.as_str());
        for value in values.filter_map(|value| HeaderValue::from_bytes(value).ok()) {
            // It is full after 32,768 fields, more than a head has.
            let _ = fields.try_append(name, value);
        }
    }
    fields
}

/// The parameters of the query as a JSON object, without the token. Of several values of one name the last
/// counts.
fn parameters(request: &Request<'_, '_>) -> Vec<u8> {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key != "token");
    let pairs = pairs.map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())));
    Value::Object(pairs.collect::<Map<_, _>>()).to_string().into_bytes()
}
