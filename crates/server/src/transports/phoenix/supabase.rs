//! The effect of messages of Supabase clients that other Phoenix clients do not send.

use std::sync::Arc;

use murre_core::ConnId;
use murre_router::channels::{Form, Start};

use super::super::{Wires, written};
use super::Carrier;
use super::actions::{Acted, Join, Joined, Pushed, compact_meta, publish, refuse, send};
use crate::hub::event::Event;
use crate::hub::{Audience, Command, Flow, Hub, PresenceOptions, RequestId};
use crate::protocols::json;
use crate::protocols::phoenix::decode::Message;
use crate::protocols::phoenix::errors::{
    BAD_CONFIG, BAD_EVENT, BAD_PAYLOAD, NO_POSTGRES_CHANGES, reason,
};
use crate::protocols::phoenix::joins::JoinFlags;
use crate::protocols::phoenix::supabase::{
    BROADCAST, Broadcast, JoinConfig, PresenceEvent, names_user, system_error, token,
};
use crate::protocols::phoenix::{Dialect, encode};

/// Reads the payload of a join.
///
/// # Errors
/// The reason for which the join is refused.
pub(super) fn read_join<'m>(
    message: &Message<'m>,
    channel: &str,
    hub: &Hub,
) -> Result<Join<'m>, &'static str> {
    let config = JoinConfig::read(message.body).map_err(|_| BAD_CONFIG)?;
    let JoinConfig { ack, echo, watches, key, is_private, wants_changes, token } = config;
    if wants_changes {
        return Err(NO_POSTGRES_CHANGES);
    }
    // A client becomes a member when it tracks.
    let has_presence = hub.config().has_presence(channel);
    let key = key.as_deref().filter(|_| has_presence).map(Arc::from);
    let presence = PresenceOptions { is_hidden: has_presence, key, ..PresenceOptions::default() };
    Ok(Join {
        token: token.filter(|token| names_user(token)),
        start: Start::Head,
        presence,
        watches: watches.unwrap_or(true),
        needs_user: is_private,
        flags: JoinFlags { ack, echo },
    })
}

/// Handles an event of a topic that the client has joined.
pub(super) fn event(
    joined: Joined<'_>,
    message: &Message<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    match &*message.event {
        BROADCAST => broadcast(joined, message, hub, wires),
        "presence" => presence(joined, message, hub, wires),
        "access_token" => access_token(joined, message, hub, wires),
        _ => refuse(joined.session, joined.join_ref, message, BAD_EVENT, hub, wires),
    }
}

/// Changes what the client is among the members. The backend is not asked about that.
fn presence(
    joined: Joined<'_>,
    message: &Message<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let Joined { session, channel, join_ref, .. } = joined;
    let event = PresenceEvent::read(message.body);
    let command = match event {
        Some(PresenceEvent::Track(meta)) => {
            Command::PresenceUpdate { channel, meta: Some(compact_meta(meta)) }
        }
        Some(PresenceEvent::Untrack) => Command::PresenceLeave { channel },
        None => return refuse(session, join_ref, message, BAD_PAYLOAD, hub, wires),
    };
    if let Err(why) = hub.execute(session, joined.id(message), command, wires) {
        return refuse(session, join_ref, message, reason(why.code), hub, wires);
    }
    // A client that is a member is told of the others, even if its join has said that it is not.
    if event != Some(PresenceEvent::Untrack) {
        hub.watch_members(session, channel);
    }
    Acted::Now
}

fn broadcast(
    joined: Joined<'_>,
    message: &Message<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let Joined { session, key, join_ref, .. } = joined;
    let broadcast = Broadcast::read(message.body);
    let Some(broadcast) = &broadcast else {
        return refuse(session, join_ref, message, BAD_PAYLOAD, hub, wires);
    };
    let Some(event) = Event::new(&broadcast.event) else {
        return refuse(session, join_ref, message, BAD_EVENT, hub, wires);
    };
    let JoinFlags { ack, echo } = wires.transports.phoenix.joins.flags(session.conn.index(), key);
    let id = if ack { joined.id(message) } else { RequestId::None };
    let to = if echo { Audience::Everybody } else { Audience::Others };
    let mut compact = Vec::new();
    let data = match broadcast.form {
        Form::Json => {
            json::compact(broadcast.data, &mut compact);
            &*compact
        }
        Form::Binary => broadcast.data,
    };
    let pushed = Pushed { event, form: broadcast.form, data, to: Some(to) };
    publish(joined, message, id, pushed, hub, wires)
}

/// Makes the connection that of the token's user. A token that is not good ends the topic.
fn access_token(
    joined: Joined<'_>,
    message: &Message<'_>,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Acted {
    let Joined { session, channel, key, join_ref } = joined;
    let token = token(message.body).filter(|token| hub.has_keys() && names_user(token));
    let Some(token) = token else { return Acted::Now };
    let authenticate = Command::Authenticate { token: &token };
    let why = match hub.execute(session, RequestId::None, authenticate, wires) {
        Ok(Flow::Continue) => return Acted::Now,
        Ok(Flow::Retry) => return Acted::NextTurn,
        Err(why) => reason(why.code),
    };
    hub.count_refused();
    wires.transports.phoenix.joins.remove(session.conn.index(), key);
    // The session is subscribed, so this cannot fail.
    let _ = hub.execute(session, RequestId::None, Command::Unsubscribe { channel }, wires);
    send(session, wires, |bytes, dialect| {
        encode::push(bytes, dialect, join_ref, channel, "system", |bytes| {
            system_error(bytes, channel, why);
        });
    });
    send(session, wires, |bytes, dialect| {
        encode::close(bytes, dialect, join_ref, &message.topic);
    });
    Acted::Now
}

/// Queues the event `system` about an error of a channel.
pub(super) fn tell_error(
    conn: ConnId,
    dialect: Dialect,
    channel: &str,
    why: &str,
    scratch: &mut Vec<u8>,
    carrier: &mut Carrier<'_>,
) {
    let message = written(scratch, |bytes| {
        encode::push(bytes, dialect, "null", channel, "system", |bytes| {
            system_error(bytes, channel, why);
        });
    });
    carrier.message(conn, message);
}
