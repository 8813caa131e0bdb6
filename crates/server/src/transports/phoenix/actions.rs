//! The effect of each message of a client (`handle_in` in Phoenix's `lib/phoenix/socket.ex`).
//!
//! A message of a topic counts only if its join ref is that of the client's current join, or null: a
//! client that has joined again may still have messages of the join before on their way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_codec::Kind;
use murre_router::channels::{Form, Payload, Position, Start, Subscription};

use super::super::{Transport, Transports, Wires, written};
use super::{Carrier, dialect};
use crate::hub::event::Event;
use crate::hub::rules::PhoenixPush;
use crate::hub::{Audience, Command, Flow, Hub, PresenceOptions, RequestId, Session};
use crate::protocols::json;
use crate::protocols::phoenix::decode::{Body, JoinParams, Message};
use crate::protocols::phoenix::encode::{self, Status};
use crate::protocols::phoenix::errors::{
    BAD_EVENT, BAD_PAYLOAD, BAD_POSITION, TOO_MANY_CHANNELS, UNMATCHED_TOPIC, reason,
};
use crate::protocols::phoenix::refs::{Asked, Request};
use crate::protocols::phoenix::{Dialect, HEARTBEAT_TOPIC};

/// When the next message of the session can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acted {
    /// At once.
    Now,
    /// This message has not been handled, and must be handed in again in the next turn.
    NextTurn,
    /// This message has not been handled, because the join of its topic has yet to be answered.
    AfterJoin,
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
    let subscription = match hub.config().limits.name(&message.topic) {
        Ok(topic) if topic != HEARTBEAT_TOPIC => hub.subscription(session, topic),
        _ => None,
    };
    match (&*message.event, subscription) {
        ("phx_join" | "phx_leave", Some(Subscription { pending: true, .. })) => Acted::AfterJoin,
        ("phx_join", subscription) => join(session, message, subscription, hub, wires),
        ("phx_leave", None) => {
            let join_ref = message.join_ref.json();
            reply_as(session, join_ref, message, Status::Ok, wires, encode::nothing);
            Acted::Now
        }
        (_, None) => refuse(session, "null", message, UNMATCHED_TOPIC, hub, wires),
        (event, Some(Subscription { channel, .. })) => {
            let joins = &wires.transports.phoenix.joins;
            let join_ref = joins.get(session.conn.index(), channel).into_owned();
            if !message.join_ref.is_null() && message.join_ref.json() != join_ref {
                return Acted::Now;
            }
            match event {
                "phx_leave" => leave(session, message, channel, &join_ref, hub, wires),
                _ => push(session, message, &join_ref, hub, wires),
            }
        }
    }
}

fn join(
    session: Session,
    message: &Message<'_>,
    joined: Option<Subscription>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let slot = session.conn.index();
    let (topic, join_ref) = (&*message.topic, message.join_ref.json());
    if topic == HEARTBEAT_TOPIC {
        return refuse(session, "null", message, UNMATCHED_TOPIC, hub, wires);
    }
    if joined.is_none() && hub.subscription_count(session) >= hub.config().max_phoenix_topics {
        return refuse(session, join_ref, message, TOO_MANY_CHANNELS, hub, wires);
    }
    let Ok(JoinParams { token, position }) = JoinParams::read(message.body) else {
        return refuse(session, join_ref, message, BAD_POSITION, hub, wires);
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
    // The rights of another user may have ended the subscription.
    let joined = hub.subscription(session, topic);
    let replaces = joined.and_then(|Subscription { channel, .. }| {
        // The router has the subscription, so it can be ended.
        let unsubscribe = Command::Unsubscribe { channel: topic };
        let ended = hub.execute(session, RequestId::None, unsubscribe, wires);
        debug_assert!(ended.is_ok(), "{ended:?}");
        wires.transports.phoenix.joins.remove(slot, channel)
    });
    let start =
        position.map_or(Start::Head, |(epoch, offset)| Start::After(Position { epoch, offset }));
    let reference = message.reference.json();
    let id =
        Request { asked: Asked::Join, join_ref, reference, topic, replaces: replaces.as_deref() }
            .id();
    let subscribe = Command::Subscribe {
        channel: topic,
        start,
        token: None,
        presence: PresenceOptions::default(),
    };
    match hub.execute(session, id, subscribe, wires) {
        Ok(_) => {
            if let Some(Subscription { channel, .. }) = hub.subscription(session, topic) {
                wires.transports.phoenix.joins.insert(slot, channel, &message.join_ref);
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

fn leave(
    session: Session,
    message: &Message<'_>,
    channel: u32,
    join_ref: &str,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    wires.transports.phoenix.joins.remove(session.conn.index(), channel);
    let (topic, reference) = (&*message.topic, message.reference.json());
    let id = Request { asked: Asked::Leave, join_ref, reference, topic, replaces: None }.id();
    let left = hub.execute(session, id, Command::Unsubscribe { channel: topic }, wires);
    debug_assert!(left.is_ok(), "{left:?}");
    Acted::Now
}

/// The time for the response to a push that is a request: what known clients wait.
const REQUEST_TIMEOUT_MS: u32 = 10_000;

fn push(
    session: Session,
    message: &Message<'_>,
    join_ref: &str,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let (topic, reference) = (&*message.topic, message.reference.json());
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
    };
    if form == Form::Json && !data.starts_with(b"{") {
        return refuse(session, join_ref, message, BAD_PAYLOAD, hub, wires);
    }
    let id = Request { asked: Asked::Push, join_ref, reference, topic, replaces: None }.id();
    let namespaces = &hub.config().namespaces;
    let to = match namespaces.rules(topic).phoenix_push {
        PhoenixPush::Broadcast => Audience::Everybody,
        PhoenixPush::BroadcastFrom => Audience::Others,
        PhoenixPush::Request => {
            let service = namespaces.namespace(topic);
            let user = hub.user(session.conn).map(|user| &*user.name);
            let payload = request(topic, event, user, form, data);
            let timeout_ms = REQUEST_TIMEOUT_MS;
            let command = Command::Request { service, payload, timeout_ms };
            return execute(session, message, join_ref, id, command, hub, wires);
        }
    };
    let publish = Command::Publish { channel: topic, payload: event.payload(form, data), to };
    execute(session, message, join_ref, id, publish, hub, wires)
}

fn execute(
    session: Session,
    message: &Message<'_>,
    join_ref: &str,
    id: RequestId,
    command: Command<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    if let Err(why) = hub.execute(session, id, command, wires) {
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

/// Queues an error reply, and counts the message as refused.
fn refuse(
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
fn send(session: Session, wires: &mut Wires<'_>, write: impl FnOnce(&mut Vec<u8>, Dialect)) {
    let Wires { out, transports } = wires;
    let Transports { phoenix, scratch, .. } = &mut **transports;
    let message = written(scratch, |bytes| write(bytes, dialect(session)));
    let mut carrier = match Transport::of(session) {
        Transport::PhoenixPoll(_) => Carrier::Poll(&mut phoenix.polls),
        _ => Carrier::WebSocket(out),
    };
    carrier.answer(session.conn, Kind::Text, message);
}
