//! Broadcasts of Supabase's clients over HTTP, as `send()` of a channel that has not been joined, and
//! `httpSend()`.
//!
//! The request is a session for as long as it is handled, so what it publishes is checked and counted as
//! that of any session. All messages are checked before the first is published.

use std::borrow::Cow;

use murre_codec::http::{Request, Response};
use murre_core::{ConnId, Origins};
use murre_router::channels::Payload;

use super::super::{Cors, Wires, json_response, token};
use crate::hub::auth::User;
use crate::hub::event::{BAD_EVENT, Event};
use crate::hub::rules::PhoenixPush;
use crate::hub::{Audience, Command, ErrorCode, Hub, RequestId, Session, Wire};
use crate::protocols::murre_v1::errors::Code;
use crate::protocols::phoenix::errors::reason;
use crate::protocols::phoenix::rest::{self, BadMember, BadRequest, RestBroadcast};
use crate::protocols::phoenix::supabase::names_user;

/// The path of these requests below that of the sockets.
pub(crate) const API_PATH: &str = "/api/broadcast";

/// The fields that a page may send: those of `realtime-js` and `supabase-js`.
pub(crate) const FIELDS: &str = "Authorization, apikey, Content-Type, x-client-info";

/// The token of a request: `Authorization: Bearer TOKEN`, or the field `apikey`, if it names a user.
pub(crate) fn user_token<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    let key = request.header("apikey").map(String::from_utf8_lossy);
    [token(request), key].into_iter().flatten().find(|token| names_user(token))
}

/// Why a request is refused.
enum Refused {
    Bad(BadRequest),
    /// A message cannot be published.
    Message(ErrorCode),
}

impl From<BadRequest> for Refused {
    fn from(why: BadRequest) -> Self {
        Refused::Bad(why)
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Refused::Message(code)
    }
}

/// Handles a POST to `path` below [`API_PATH`], of a user or of nobody in particular. Returns the answer.
pub(crate) fn request(
    conn: ConnId,
    request: &Request<'_, '_>,
    path: &str,
    user: Option<User>,
    origins: &Origins,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Response {
    let Some(cors) = Cors::of(request, origins) else { return Cors::refused() };
    match broadcast(conn, request, path, user, hub, wires) {
        Ok(()) => cors.add_to(Response::text(202, "")),
        Err(Refused::Bad(why)) => bad_request(why, &cors),
        Err(Refused::Message(code)) => {
            let status = match Code::Hub(code).status() {
                400 => 422,
                status => status,
            };
            let response = error(status, reason(code), None, &cors);
            match status {
                503 => response.with("Retry-After", &wires.out.retry_after(conn).to_string()),
                _ => response,
            }
        }
    }
}

/// Reads, checks and publishes the messages of a request.
fn broadcast(
    conn: ConnId,
    request: &Request<'_, '_>,
    path: &str,
    user: Option<User>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Refused> {
    let read = match path {
        "" | "/" => rest::several(request.body),
        path => {
            let (private, media_type) = (request.query("private"), request.header("content-type"));
            rest::single(path, private, media_type, request.body).map(|one| vec![one])
        }
    };
    let broadcasts = read.inspect_err(|_| hub.count_refused())?;
    let session = Session { conn, wire: Wire::ONE_REQUEST };
    hub.open(session, user);
    let published = publish(session, &broadcasts, hub, wires);
    hub.close(conn, wires);
    published
}

fn publish(
    session: Session,
    broadcasts: &[RestBroadcast<'_>],
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Refused> {
    let mut checked = Vec::with_capacity(broadcasts.len());
    for broadcast in broadcasts {
        hub.admit_request(session, wires)?;
        let payload = payload(session, broadcast, hub).inspect_err(|_| hub.count_refused());
        checked.push((&*broadcast.channel, payload?));
    }
    for (channel, payload) in checked {
        let command = Command::Publish { channel, payload, to: Audience::Everybody };
        let published = hub.execute(session, RequestId::None, command, wires);
        published.map_err(|why| {
            hub.count_refused();
            why.code
        })?;
    }
    Ok(())
}

/// The payload of a broadcast that may be published.
fn payload(session: Session, broadcast: &RestBroadcast<'_>, hub: &Hub) -> Result<Payload, Refused> {
    let RestBroadcast { channel, event, form, data, is_private, place } = broadcast;
    let Some(event) = Event::new(event) else {
        let bad = BadMember { place: *place, name: "event", why: BAD_EVENT };
        return Err(BadRequest::Member(bad).into());
    };
    let payload = event.payload(*form, data);
    hub.may_publish(session, channel, &payload)?;
    // Where the application decides about broadcasts, it is asked about those of joined topics.
    let push = hub.config().namespaces.rules(channel).phoenix_push;
    let is_asked = matches!(push, PhoenixPush::Request | PhoenixPush::Backend);
    let lacks_user = *is_private && hub.user(session.conn).is_none();
    if is_asked || lacks_user {
        return Err(ErrorCode::NotAllowed.into());
    }
    Ok(payload)
}

fn bad_request(why: BadRequest, cors: &Cors) -> Response {
    match why {
        BadRequest::Path => error(404, "the path is /api/broadcast/TOPIC/events/EVENT", None, cors),
        BadRequest::MediaType => {
            let why = "Content-Type is application/json or application/octet-stream";
            error(415, why, None, cors)
        }
        BadRequest::NotJson => error(400, "the body is not JSON", None, cors),
        BadRequest::Member(member) => {
            let why = format!("{}: {}", member.name, member.why);
            error(422, &why, Some(member), cors)
        }
    }
}

/// An answer in the form of Supabase's server: `{"message":TEXT}`, with `errors` about a member.
fn error(status: u16, message: &str, member: Option<BadMember>, cors: &Cors) -> Response {
    let mut body = b"{\"message\":".to_vec();
    serde_json::to_writer(&mut body, message).expect("a vector takes all there is");
    if let Some(member) = member {
        body.extend_from_slice(b",\"errors\":");
        member.write_errors(&mut body);
    }
    body.push(b'}');
    json_response(status, body, cors)
}
