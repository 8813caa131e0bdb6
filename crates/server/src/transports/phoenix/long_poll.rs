//! Phoenix Channels over long polls (`lib/phoenix/transports/long_poll.ex`). The HTTP status of an answer is
//! 200, but for requests that are none of the protocol: clients read the status in the body.

use std::borrow::Cow;
use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use murre_codec::Kind;
use murre_codec::http::{Request, Response};
use murre_core::{ConnId, Origins, Outbox};

use super::super::{PHOENIX_V1_POLL, PHOENIX_V2_POLL, Wires};
use super::handshake::{dialect, token_of};
use super::long_poll_requests::Asked;
use super::long_poll_sessions::{FORBIDDEN, GONE, UNAVAILABLE};
use super::long_poll_token::PollToken;
use crate::hub::Hub;
use crate::hub::auth::User;
use crate::log::connections as log;

/// The field that names a session, since Phoenix 1.9; before it is in the query.
const SESSION_FIELD: &str = "x-phoenix-longpoll-token";
/// The field with the token of a user: the option `authToken` of the client.
const AUTH_FIELD: &str = "x-phoenix-authtoken";

/// The session that a request names. The last parameter counts: the client appends its own to those of
/// the application, which may have one of the same name.
fn session_token(request: &Request<'_, '_>) -> Option<PollToken> {
    if let Some(field) = request.header(SESSION_FIELD) {
        return PollToken::read(str::from_utf8(field).ok()?);
    }
    let (_, query) = request.target.split_once('?')?;
    PollToken::read(query.rsplit('&').find_map(|item| item.strip_prefix("token="))?)
}

/// Whether a request begins a session.
pub(crate) fn begins(request: &Request<'_, '_>) -> bool {
    request.method == "GET" && session_token(request).is_none()
}

/// The token of the user who begins a session.
pub(crate) fn user_token<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    let token = match request.header(AUTH_FIELD) {
        Some(field) => String::from_utf8_lossy(field),
        None => token_of(request)?,
    };
    // A session that another server had, such as one of Phoenix itself, names no user.
    let names_session = ["phx.", "SFMyNTY."].iter().any(|prefix| token.starts_with(prefix));
    (!names_session).then_some(token)
}

/// Handles a request. Returns the answer, or nothing if it comes later. `user` is that of a request that
/// begins a session, or whose token was refused.
pub(crate) fn request(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Result<Option<User>, Response>,
    origins: &Origins,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Option<Response> {
    let at_once = |body: &'static [u8]| Some(response(body.to_vec()));
    let asked = match request.method {
        "OPTIONS" => return Some(preflight(request)),
        "GET" | "POST" if !origins.allow(request) => return at_once(FORBIDDEN),
        "GET" => Asked::Get,
        "POST" => match messages(request) {
            Some(messages) => Asked::Post(messages),
            None => return Some(Response::text(400, "the body is not one message a line\n")),
        },
        _ => return Some(Response::text(400, "this path takes GET, POST and OPTIONS\n")),
    };
    match (session_token(request), asked) {
        (None, Asked::Get) => Some(begin(conn, request, user, hub, wires)),
        (Some(token), asked) if token.shard < hub.config().shards => {
            wires.transports.phoenix.requests.ask(conn, request, token, asked);
            None
        }
        (Some(_), Asked::Get) => at_once(UNAVAILABLE),
        _ => at_once(GONE),
    }
}

fn begin(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Result<Option<User>, Response>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Response {
    let refused = |body: &[u8], out: &Outbox| {
        let response = response(body.to_vec());
        log::session_refused(conn, request, &response, out);
        response
    };
    let (Ok(user), Some(dialect)) = (user, dialect(request)) else {
        return refused(FORBIDDEN, wires.out);
    };
    let wire = if dialect.is_v1() { PHOENIX_V1_POLL } else { PHOENIX_V2_POLL };
    let Wires { out, transports } = wires;
    let opened = match out.is_draining() {
        true => None,
        false => transports.phoenix.polls.open(conn, wire, out),
    };
    let Some((session, token)) = opened else { return refused(UNAVAILABLE, out) };
    log::session_begins(conn, request, "phoenix long poll", user.as_ref(), out);
    hub.open(session, user);
    let body = format!(r#"{{"status":410,"token":"{}","messages":[]}}"#, token.text());
    response(body.into_bytes())
}

/// The messages of one POST. A body of 64 KiB has fewer, if they say anything.
const MESSAGES_MAX: usize = 4096;

/// The messages of a POST: one a line, binary ones in base64, or the whole body of clients before Phoenix
/// 1.7. `None` if they cannot be read.
fn messages(request: &Request<'_, '_>) -> Option<VecDeque<(Kind, Bytes)>> {
    let is_lines = request
        .header("content-type")
        .is_some_and(|value| value.starts_with(b"application/x-ndjson"));
    let text = str::from_utf8(request.body).ok()?;
    // All share one copy of the body.
    let body = Bytes::copy_from_slice(request.body);
    let message = |line: &str| match line.as_bytes().first() {
        Some(b'[' | b'{') => Some((Kind::Text, body.slice_ref(line.as_bytes()))),
        _ => Some((Kind::Binary, STANDARD.decode(line).ok()?.into())),
    };
    match is_lines {
        true => {
            let lines = str::from_utf8(&body).ok()?.lines().map(str::trim_ascii);
            let messages = lines.filter(|line| !line.is_empty()).map(message);
            let messages: Option<VecDeque<_>> =
                messages.take(MESSAGES_MAX.saturating_add(1)).collect();
            messages.filter(|messages| messages.len() <= MESSAGES_MAX)
        }
        false if text.is_empty() => Some(VecDeque::new()),
        false => Some(VecDeque::from([(Kind::Text, Bytes::copy_from_slice(text.as_bytes()))])),
    }
}

/// A response with this body, for pages of every origin: a request of an origin that is not allowed is
/// answered with 403 in the body.
pub(super) fn response(body: Vec<u8>) -> Response {
    let content_type = "application/json; charset=utf-8";
    Response { content_type, ..Response::text(200, body) }
        .with("Cache-Control", "no-store")
        .with("Access-Control-Allow-Origin", "*")
}

/// The answer to a browser that asks before it sends the request of a page.
fn preflight(request: &Request<'_, '_>) -> Response {
    let asked = request.header("access-control-request-headers");
    let asked = asked.and_then(|fields| str::from_utf8(fields).ok());
    let is_list = |fields: &&str| {
        fields.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_, ".contains(&byte))
    };
    Response::text(200, "")
        .with("Access-Control-Allow-Origin", "*")
        .with("Access-Control-Allow-Headers", asked.filter(is_list).unwrap_or_default())
        .with("Access-Control-Allow-Methods", "get, post, options")
        .with("Access-Control-Max-Age", "3600")
}
