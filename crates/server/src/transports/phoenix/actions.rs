//! The effect of each message of a client (`handle_in` in Phoenix's `lib/phoenix/socket.ex`).
//!
//! A message of a topic counts only if its join ref is that of the client's current join, or null: a
//! client that has joined again may still have messages of the join before on their way.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_codec::Kind;
use murre_router::channels::{Form, Payload, Position, Start, Subscription};
use murre_router::presence::Meta;

use super::super::{Transport, Transports, Wires, written};
use super::{Carrier, dialect, supabase};
use crate::hub::consult::{Consulted, Refusal};
use crate::hub::event::Event;
use crate::hub::rules::{Access, PhoenixPush};
use crate::hub::{Audience, Command, ErrorCode, Flow, Hub, PresenceOptions, RequestId, Session};
use crate::protocols::json;
use crate::protocols::phoenix::decode::{Body, JoinParams, JoinPresence, Message};
use crate::protocols::phoenix::encode::{self, Status};
use crate::protocols::phoenix::errors::{
    BAD_EVENT, BAD_PAYLOAD, BAD_POSITION, BAD_PRESENCE, TOO_MANY_CHANNELS, UNMATCHED_TOPIC, reason,
};
use crate::protocols::phoenix::joins::JoinFlags;
use crate::protocols::phoenix::refs::{Asked, Request};
use crate::protocols::phoenix::{Dialect, HEARTBEAT_TOPIC};

/// When the next message of the session can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acted {
    /// At once.
    Now,
    /// This message has not been handled, and must be handed in again in the next turn.
    NextTurn,
    /// This message has not been handled, because the backend is asked about it. It must be handed in
    /// again once the answer is there.
    Asked,
    /// This message has not been handled, because the join of its topic has yet to be answered.
    AfterJoin,
}

/// A topic that a session has joined.
#[derive(Clone, Copy)]
pub(super) struct Joined<'a> {
    pub(super) session: Session,
    /// The channel, and the router's key of it.
    pub(super) channel: &'a str,
    pub(super) key: u32,
    /// The join ref, as JSON text.
    pub(super) join_ref: &'a str,
}

impl Joined<'_> {
    /// The request id of a push.
    pub(super) fn id(&self, message: &Message<'_>) -> RequestId {
        let (topic, reference) = (&*message.topic, message.reference.json());
        let join_ref = self.join_ref;
        Request { asked: Asked::Push, join_ref, reference, topic, replaces: None }.id()
    }
}

/// Handles a message that was admitted.
pub(super) fn act(
    session: Session,
    message: &Message<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    if message.topic == HEARTBEAT_TOPIC && message.event == "heartbeat" {
        reply_as(session, "null", message, Status::Ok, wires, encode::nothing);
        return Acted::Now;
    }
    let dialect = dialect(session);
    let channel = dialect.channel(&message.topic).filter(|channel| *channel != HEARTBEAT_TOPIC);
    let channel = channel.and_then(|channel| hub.config().limits.name(channel).ok());
    let subscription = channel.and_then(|channel| hub.subscription(session, channel));
    match (&*message.event, channel, subscription) {
        // The reply to a join comes before everything else of its topic.
        (_, _, Some(Subscription { pending: true, .. })) => Acted::AfterJoin,
        ("phx_join", Some(channel), joined) => join(session, message, channel, joined, hub, wires),
        ("phx_leave", _, None) => {
            let join_ref = message.join_ref.json();
            reply_as(session, join_ref, message, Status::Ok, wires, encode::nothing);
            Acted::Now
        }
        (event, Some(channel), Some(Subscription { channel: key, .. })) => {
            let joins = &wires.transports.phoenix.joins;
            let join_ref = &*joins.get(session.conn.index(), key).into_owned();
            if !message.join_ref.is_null() && message.join_ref.json() != join_ref {
                return Acted::Now;
            }
            let joined = Joined { session, channel, key, join_ref };
            match event {
                "phx_leave" => leave(joined, message, hub, wires),
                _ if dialect.is_supabase() => supabase::event(joined, message, hub, wires),
                _ => push(joined, message, hub, wires),
            }
        }
        (..) => refuse(session, "null", message, UNMATCHED_TOPIC, hub, wires),
    }
}

/// What a join asks for.
pub(super) struct Join<'m> {
    pub(super) token: Option<Cow<'m, str>>,
    pub(super) start: Start,
    pub(super) presence: PresenceOptions,
    /// The client is told of members, if it may be.
    pub(super) watches: bool,
    /// The join is refused without a user.
    pub(super) needs_user: bool,
    pub(super) flags: JoinFlags,
}

fn join(
    session: Session,
    message: &Message<'_>,
    channel: &str,
    joined: Option<Subscription>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let slot = session.conn.index();
    let (topic, join_ref) = (&*message.topic, message.join_ref.json());
    if joined.is_none() && hub.subscription_count(session) >= hub.config().max_phoenix_topics {
        return refuse(session, join_ref, message, TOO_MANY_CHANNELS, hub, wires);
    }
    let read = match dialect(session).is_supabase() {
        true => supabase::read_join(message, channel, hub),
        false => read_join(message, channel, hub),
    };
    let Join { token, start, presence, watches, needs_user, flags } = match read {
        Ok(join) => join,
        Err(why) => return refuse(session, join_ref, message, why, hub, wires),
    };
    if let Some(token) = token.filter(|_| hub.has_keys()) {
        let authenticate = Command::Authenticate { token: &token };
        match hub.execute(session, RequestId::None, authenticate, wires) {
            Ok(Flow::Continue) => {}
            Ok(Flow::Retry) => return Acted::NextTurn,
            Err(why) => {
                return refuse(session, join_ref, message, reason(why.code), hub, wires);
            }
        }
    }
    if needs_user && hub.user(session.conn).is_none() {
        let why = reason(ErrorCode::NotAllowed);
        return refuse(session, join_ref, message, why, hub, wires);
    }
    let subscribe = Command::Subscribe {
        channel,
        start: Start::Head,
        token: None,
        presence: PresenceOptions::default(),
    };
    let params = match message.body {
        Body::Json(json) => Some(json),
        _ => None,
    };
    let consent = match hub.consult(session, &subscribe, params, wires) {
        Consulted::Rules => None,
        Consulted::Allowed(result) => Some(result),
        Consulted::Asked => return Acted::Asked,
        Consulted::Refused(why) => {
            return refuse_as_told(session, join_ref, message, &why, hub, wires);
        }
    };
    // The rights of another user may have ended the subscription.
    let joined = hub.subscription(session, channel);
    let replaces = joined.and_then(|Subscription { channel: key, .. }| {
        // The router has the subscription, so it can be ended.
        let ended = hub.execute(session, RequestId::None, Command::Unsubscribe { channel }, wires);
        debug_assert!(ended.is_ok(), "{ended:?}");
        wires.transports.phoenix.joins.remove(slot, key)
    });
    let reference = message.reference.json();
    let id =
        Request { asked: Asked::Join, join_ref, reference, topic, replaces: replaces.as_deref() }
            .id();
    // The token of the join may have changed the rights.
    let watch = hub.presence_watch(session, channel).filter(|_| watches);
    let presence = PresenceOptions { watch, ..presence };
    let subscribe = Command::Subscribe { channel, start, token: None, presence };
    match hub.execute_approved(session, id, subscribe, consent, wires) {
        Ok(_) => {
            if let Some(Subscription { channel: key, .. }) = hub.subscription(session, channel) {
                wires.transports.phoenix.joins.insert(slot, key, &message.join_ref, flags);
            }
        }
        Err(why) => {
            let unmatched = reason(why.code) == UNMATCHED_TOPIC;
            let join_ref = if unmatched { "null" } else { join_ref };
            refuse(session, join_ref, message, reason(why.code), hub, wires);
            if let Some(replaced) = replaces {
                send(session, wires, |bytes, dialect| {
                    encode::close(bytes, dialect, &replaced, topic);
                });
            }
        }
    }
    Acted::Now
}

/// Reads the payload of a join. What it asks of presence counts in a topic that has presence; in others
/// these members are the application's.
///
/// # Errors
/// The reason for which the join is refused.
fn read_join<'m>(
    message: &Message<'m>,
    channel: &str,
    hub: &Hub,
) -> Result<Join<'m>, &'static str> {
    let params = JoinParams::read(message.body).map_err(|_| BAD_POSITION)?;
    let presence = if hub.config().has_presence(channel) {
        let JoinPresence { meta, is_hidden, key } = params.presence().map_err(|_| BAD_PRESENCE)?;
        let key = key.as_deref().map(Arc::from);
        PresenceOptions { watch: None, meta: meta.map(compact_meta), is_hidden, key }
    } else {
        PresenceOptions::default()
    };
    let JoinParams { token, position, .. } = params;
    let start =
        position.map_or(Start::Head, |(epoch, offset)| Start::After(Position { epoch, offset }));
    let flags = JoinFlags::default();
    Ok(Join { token, start, presence, watches: true, needs_user: false, flags })
}

/// Metadata, an object, without whitespace.
pub(super) fn compact_meta(json: &[u8]) -> Meta {
    let mut compact = Vec::new();
    json::compact(json, &mut compact);
    Meta::new(&compact)
}

fn leave(
    Joined { session, channel, key, join_ref }: Joined<'_>,
    message: &Message<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    wires.transports.phoenix.joins.remove(session.conn.index(), key);
    let (topic, reference) = (&*message.topic, message.reference.json());
    let id = Request { asked: Asked::Leave, join_ref, reference, topic, replaces: None }.id();
    let left = hub.execute(session, id, Command::Unsubscribe { channel }, wires);
    debug_assert!(left.is_ok(), "{left:?}");
    Acted::Now
}

/// The time for the response to a push that is a request: what known clients wait.
const REQUEST_TIMEOUT_MS: u32 = 10_000;

fn push(joined: Joined<'_>, message: &Message<'_>, hub: &mut Hub, wires: &mut Wires<'_>) -> Acted {
    let Joined { session, channel, join_ref, .. } = joined;
    let id = joined.id(message);
    if hub.config().has_presence(channel) {
        let command = match (&*message.event, message.body) {
            ("track" | "update", Body::Json(json)) if json.starts_with(b"{") => {
                Some(Command::PresenceUpdate { channel, meta: Some(compact_meta(json)) })
            }
            ("track" | "update", _) => {
                return refuse(session, join_ref, message, BAD_PAYLOAD, hub, wires);
            }
            ("untrack", _) => Some(Command::PresenceLeave { channel }),
            _ => None,
        };
        if let Some(command) = command {
            return execute(joined, message, id, command, hub, wires);
        }
    }
    let Some(event) = Event::new(&message.event) else {
        return refuse(session, join_ref, message, BAD_EVENT, hub, wires);
    };
    let mut compact = Vec::new();
    let (form, data) = match message.body {
        Body::Json(json) => {
            json::compact(json, &mut compact);
            (Form::Json, &*compact)
        }
        Body::Binary(bytes) => (Form::Binary, bytes),
        Body::Broadcast { form, data, .. } => (form, data),
    };
    if form == Form::Json && !data.starts_with(b"{") {
        return refuse(session, join_ref, message, BAD_PAYLOAD, hub, wires);
    }
    publish(joined, message, id, Pushed { event, form, data, to: None }, hub, wires)
}

/// A push that is published, or goes to who decides about it.
pub(super) struct Pushed<'a> {
    pub(super) event: Event<'a>,
    pub(super) form: Form,
    pub(super) data: &'a [u8],
    /// The subscribers that get it; `None` if the rules of the channel decide.
    pub(super) to: Option<Audience>,
}

/// Does with a push what the rules of its channel say.
pub(super) fn publish(
    joined: Joined<'_>,
    message: &Message<'_>,
    id: RequestId,
    Pushed { event, form, data, to }: Pushed<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let Joined { session, channel, .. } = joined;
    let namespaces = &hub.config().namespaces;
    let (rules, service) = (namespaces.rules(channel), namespaces.namespace(channel));
    let asks = |access| access == Access::Backend;
    let by_rule = match rules.phoenix_push {
        PhoenixPush::Broadcast => Audience::Everybody,
        PhoenixPush::BroadcastFrom => Audience::Others,
        // The backend has the requests of the namespace.
        PhoenixPush::Request
            if !asks(rules.request) && !asks(namespaces.rules(service).request) =>
        {
            let user = hub.user(session.conn).map(|user| &*user.name);
            let payload = request(channel, event, user, form, data);
            let timeout_ms = REQUEST_TIMEOUT_MS;
            let command = Command::Request { service, payload, timeout_ms };
            return execute(joined, message, id, command, hub, wires);
        }
        PhoenixPush::Request | PhoenixPush::Backend => {
            let command = Command::Call { channel, payload: event.payload(form, data) };
            return execute(joined, message, id, command, hub, wires);
        }
    };
    let (payload, to) = (event.payload(form, data), to.unwrap_or(by_rule));
    execute(joined, message, id, Command::Publish { channel, payload, to }, hub, wires)
}

pub(super) fn execute(
    Joined { session, join_ref, .. }: Joined<'_>,
    message: &Message<'_>,
    id: RequestId,
    command: Command<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let consent = match hub.consult(session, &command, None, wires) {
        Consulted::Rules => None,
        Consulted::Allowed(result) => Some(result),
        Consulted::Asked => return Acted::Asked,
        Consulted::Refused(why) => {
            return refuse_as_told(session, join_ref, message, &why, hub, wires);
        }
    };
    if let Err(why) = hub.execute_approved(session, id, command, consent, wires) {
        return refuse(session, join_ref, message, reason(why.code), hub, wires);
    }
    Acted::Now
}

/// The payload of a request for a push: `{"topic":T,"event":E,"payload":P,"user":U}`, with the bytes of
/// a binary push as `binary` in base64.
fn request(topic: &str, event: Event<'_>, user: Option<&str>, form: Form, data: &[u8]) -> Payload {
    let text = |text: Option<&str>| serde_json::to_vec(&text).expect("a text becomes JSON");
    let (key, data): (&[u8], _) = match form {
        Form::Json => (b",\"payload\":", data.to_vec()),
        Form::Binary => (b",\"binary\":", text(Some(&STANDARD.encode(data)))),
    };
    let (topic, event, user) = (text(Some(topic)), text(Some(event.name())), text(user));
    let parts: [&[u8]; 9] =
        [b"{\"topic\":", &topic, b",\"event\":", &event, key, &data, b",\"user\":", &user, b"}"];
    Payload::new(Form::Json, parts.concat())
}

/// Queues the backend's refusal, with the application's own words if it has any, and ends the session if
/// the application says so.
fn refuse_as_told(
    session: Session,
    join_ref: &str,
    message: &Message<'_>,
    why: &Refusal<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let error = why.error(None);
    refuse(session, join_ref, message, error.detail.unwrap_or(reason(error.code)), hub, wires);
    if let Refusal::Disconnect { code, reason } = why {
        hub.end_as_told(session, *code, reason, wires);
    }
    Acted::Now
}

/// Queues an error reply, and counts the message as refused.
pub(super) fn refuse(
    session: Session,
    join_ref: &str,
    message: &Message<'_>,
    why: &str,
    hub: &Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    hub.count_refused();
    reply_as(session, join_ref, message, Status::Error, wires, |bytes| encode::reason(bytes, why));
    Acted::Now
}

/// Queues the reply to a message, with this join ref.
fn reply_as(
    session: Session,
    join_ref: &str,
    message: &Message<'_>,
    status: Status,
    wires: &mut Wires<'_>,
    response: impl FnOnce(&mut Vec<u8>),
) {
    let refs = (join_ref, message.reference.json());
    send(session, wires, |bytes, dialect| {
        encode::reply(bytes, dialect, refs, &message.topic, status, response);
    });
}

/// Queues a text message.
pub(super) fn send(
    session: Session,
    wires: &mut Wires<'_>,
    write: impl FnOnce(&mut Vec<u8>, Dialect),
) {
    let Wires { out, transports } = wires;
    let Transports { phoenix, scratch, .. } = &mut **transports;
    let message = written(scratch, |bytes| write(bytes, dialect(session)));
    let mut carrier = match Transport::of(session) {
        Transport::PhoenixPoll(_) => Carrier::Poll(&mut phoenix.polls),
        _ => Carrier::WebSocket(out),
    };
    carrier.answer(session.conn, Kind::Text, message);
}
