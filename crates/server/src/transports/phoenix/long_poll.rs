//! Phoenix Channels over long polls (`lib/phoenix/transports/long_poll.ex`). The HTTP status of an answer is
//! 200, but for requests that are none of the protocol: clients read the status in the body.

use std::borrow::Cow;

use murre_codec::http::{Request, Response};
use murre_core::{ConnId, Origins, Outbox};

use super::super::{PHOENIX_V1_POLL, PHOENIX_V2_POLL, Wires};
use super::handshake::{dialect, token_of};
use super::long_poll_body::PostBody;
use super::long_poll_requests::Asked;
use super::long_poll_sessions::{FORBIDDEN, GONE, LATE, UNAVAILABLE};
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

/// Whether a request is of a session that has begun.
pub(crate) fn continues(request: &Request<'_, '_>) -> bool {
    session_token(request).is_some()
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
    match request.method {
        "OPTIONS" => return Some(preflight(request)),
        "GET" | "POST" if !origins.allow(request) => return at_once(FORBIDDEN),
        "GET" | "POST" => {}
        _ => return Some(Response::text(400, "this path takes GET, POST and OPTIONS\n")),
    }
    let is_get = request.method == "GET";
    let token = session_token(request);
    if is_get && token.is_none() {
        return Some(begin(conn, request, user, hub, wires));
    }
    let shards = hub.config().shards;
    let Some(token) = token.filter(|token| token.shard < shards) else {
        return at_once(if is_get { UNAVAILABLE } else { GONE });
    };
    let requests = &mut wires.transports.phoenix.requests;
    let asked = if is_get {
        Asked::Get
    } else if !requests.has_room(request.body.len()) {
        return at_once(LATE);
    } else if let Some(body) = PostBody::read(request) {
        Asked::Post(body)
    } else {
        return Some(Response::text(400, "the body is not one message a line\n"));
    };
    requests.ask(conn, request, token, asked);
    None
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
