//! Encodes replies, pushes and publications.
//!
//! Messages are compact: the client in Java finds the fields of version 2 by the positions of commas
//! in the text, and those in Java and Swift read no payload that is not an object.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_codec::Kind;
use murre_router::channels::{Form, Payload, Position, Publication};

use super::decode::string;
use super::refs::{Asked, Request};
use super::{Dialect, binary, errors, supabase};
use crate::hub::event::Event;
use crate::hub::{Error, ErrorCode, Reply, RequestId};
use crate::protocols::json;

/// The status of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Error,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Error => "error",
        }
    }
}

/// The fields of a message before its payload. Refs are JSON text.
#[derive(Clone, Copy)]
struct Head<'a> {
    join_ref: &'a str,
    reference: &'a str,
    topic: &'a str,
    event: &'a str,
}

const NULL: &str = "null";

/// Appends a message whose payload `write` appends: an object.
fn message(out: &mut Vec<u8>, dialect: Dialect, head: Head<'_>, write: impl FnOnce(&mut Vec<u8>)) {
    let Head { join_ref, reference, topic, event } = head;
    match dialect.is_v1() {
        true => {
            out.extend_from_slice(b"{\"topic\":");
            text(out, topic);
            out.extend_from_slice(b",\"event\":");
            text(out, event);
            out.extend_from_slice(b",\"payload\":");
            write(out);
            out.extend_from_slice(b",\"ref\":");
            out.extend_from_slice(reference.as_bytes());
            out.push(b'}');
        }
        false => {
            out.push(b'[');
            out.extend_from_slice(join_ref.as_bytes());
            out.push(b',');
            out.extend_from_slice(reference.as_bytes());
            out.push(b',');
            text(out, topic);
            out.push(b',');
            text(out, event);
            out.push(b',');
            write(out);
            out.push(b']');
        }
    }
}

/// Appends a text as JSON.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes all there is");
}

/// Appends a reply with this response, which is JSON and an object.
pub(crate) fn reply(
    out: &mut Vec<u8>,
    dialect: Dialect,
    (join_ref, reference): (&str, &str),
    topic: &str,
    status: Status,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let head = Head { join_ref, reference, topic, event: "phx_reply" };
    message(out, dialect, head, |out| {
        out.extend_from_slice(b"{\"status\":\"");
        out.extend_from_slice(status.name().as_bytes());
        out.extend_from_slice(b"\",\"response\":");
        write(out);
        out.push(b'}');
    });
}

/// Appends the response of an error reply.
pub(crate) fn reason(out: &mut Vec<u8>, reason: &str) {
    out.extend_from_slice(b"{\"reason\":");
    text(out, reason);
    out.push(b'}');
}

/// Appends the response `{}`.
pub(crate) fn nothing(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{}");
}

/// Appends that a join has ended, whose join ref is this.
pub(crate) fn close(out: &mut Vec<u8>, dialect: Dialect, join_ref: &str, topic: &str) {
    let head = Head { join_ref, reference: join_ref, topic, event: "phx_close" };
    message(out, dialect, head, nothing);
}

/// Appends that the server has ended the current join of a channel, and why. Without a join ref it is for
/// the current join.
pub(crate) fn ended(out: &mut Vec<u8>, dialect: Dialect, channel: &str, why: Error<'_>) {
    let why = why.detail.unwrap_or(errors::reason(why.code));
    push(out, dialect, NULL, channel, "phx_close", |out| reason(out, why));
}

/// Appends a push for one client. `write` appends the payload, an object.
pub(crate) fn push(
    out: &mut Vec<u8>,
    dialect: Dialect,
    join_ref: &str,
    channel: &str,
    event: &str,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let topic = &dialect.topic(channel);
    message(out, dialect, Head { join_ref, reference: NULL, topic, event }, write);
}

/// Appends that this subscriber was not sent `count` publications.
pub(crate) fn dropped(out: &mut Vec<u8>, dialect: Dialect, channel: &str, count: u64) {
    if dialect.is_supabase() {
        return push(out, dialect, NULL, channel, "system", |out| {
            supabase::system_error(out, channel, &format!("{count} messages were dropped"));
        });
    }
    push(out, dialect, NULL, channel, "dropped", |out| {
        out.extend_from_slice(format!("{{\"count\":{count}}}").as_bytes());
    });
}

/// Hands the messages that a reply of the hub becomes to `emit`, in order: none for a command without
/// a request id.
pub(crate) fn hub_reply(
    scratch: &mut Vec<u8>,
    dialect: Dialect,
    id: &RequestId,
    reply: Reply<'_>,
    mut emit: impl FnMut(Kind, &[u8]),
) {
    let Some(request) = Request::of(id) else { return };
    let Request { asked, join_ref, reference, topic, replaces } = request;
    let refs = (join_ref, reference);
    scratch.clear();
    let mut kind = Kind::Text;
    match reply {
        Reply::Response { payload, .. } if payload.form == Form::Binary && dialect.has_binary() => {
            kind = Kind::Binary;
            binary::reply(scratch, refs, topic, Status::Ok.name(), payload.data());
        }
        Reply::Error(Error { code, detail, .. }) => {
            let why = match (code, detail) {
                (ErrorCode::ResponderFailed | ErrorCode::Refused, Some(why)) => why,
                _ => errors::reason(code),
            };
            self::reply(scratch, dialect, refs, topic, Status::Error, |out| reason(out, why));
        }
        Reply::Subscribed { recovery, data, .. } => {
            let write = |out: &mut Vec<u8>| {
                members(out, data, |out| match recovery {
                    _ if dialect.is_supabase() => supabase::joined(out),
                    Some(recovery) => joined(out, recovery.position, recovery.recovered),
                    None => {}
                });
            };
            self::reply(scratch, dialect, refs, topic, Status::Ok, write);
        }
        Reply::Response { payload, .. } => {
            self::reply(scratch, dialect, refs, topic, Status::Ok, |out| object(out, payload));
        }
        _ => self::reply(scratch, dialect, refs, topic, Status::Ok, nothing),
    }
    emit(kind, scratch);
    let ended = if asked == Asked::Leave { Some(join_ref) } else { replaces };
    if let Some(ended) = ended {
        scratch.clear();
        close(scratch, dialect, ended, topic);
        emit(Kind::Text, scratch);
    }
}

/// Appends an object with the application's data, and behind it the members that `write` appends: of two
/// members of one name the last one counts.
fn members(out: &mut Vec<u8>, data: Option<&Payload>, write: impl FnOnce(&mut Vec<u8>)) {
    match data {
        Some(data) => object(out, data),
        None => nothing(out),
    }
    out.pop();
    let (end, is_empty) = (out.len(), out.ends_with(b"{"));
    write(out);
    if out.len() > end && !is_empty {
        out.insert(end, b',');
    }
    out.push(b'}');
}

/// Appends the members of the response to a join of a channel with history.
fn joined(out: &mut Vec<u8>, Position { epoch, offset }: Position, recovered: Option<bool>) {
    let position = format!("\"position\":{{\"epoch\":{epoch},\"offset\":{offset}}}");
    out.extend_from_slice(position.as_bytes());
    if let Some(recovered) = recovered {
        out.extend_from_slice(format!(",\"recovered\":{recovered}").as_bytes());
    }
}

/// The event of publications that were published without one.
const PUBLICATION: &str = "publication";

/// Appends a publication, and returns the kind of its message. It has no join ref, so all subscribers
/// get the same bytes.
pub(crate) fn publication(
    out: &mut Vec<u8>,
    dialect: Dialect,
    Publication { channel, payload, .. }: &Publication,
) -> Kind {
    let event = Event::of(payload).map(Event::name);
    if dialect.is_supabase() {
        return broadcast(out, dialect, channel, payload);
    }
    if payload.form == Form::Binary && dialect.has_binary() {
        binary::broadcast(out, channel, event.unwrap_or(PUBLICATION), payload.data());
        return Kind::Binary;
    }
    let head = |event| Head { join_ref: NULL, reference: NULL, topic: channel, event };
    match (event, event_and_payload(payload)) {
        (Some(event), _) => message(out, dialect, head(event), |out| object(out, payload)),
        (None, Some((event, inner))) => {
            message(out, dialect, head(&event), |out| out.extend_from_slice(inner));
        }
        (None, None) => message(out, dialect, head(PUBLICATION), |out| data_member(out, payload)),
    }
    Kind::Text
}

/// Appends a publication as a broadcast of Supabase.
fn broadcast(out: &mut Vec<u8>, dialect: Dialect, channel: &str, payload: &Payload) -> Kind {
    let event = Event::of(payload).map(Event::name);
    if payload.form == Form::Binary && dialect.has_binary() {
        let topic = dialect.topic(channel);
        supabase::write_binary(out, &topic, event.unwrap_or(PUBLICATION), payload.data());
        return Kind::Binary;
    }
    push(out, dialect, NULL, channel, supabase::BROADCAST, |out| {
        match (event, event_and_payload(payload)) {
            (Some(event), _) => supabase::envelope(out, event, payload, true),
            (None, Some((event, inner))) => {
                let inner = Payload::new(Form::Json, inner);
                supabase::envelope(out, &event, &inner, true);
            }
            (None, None) => supabase::envelope(out, PUBLICATION, payload, false),
        }
    });
    Kind::Text
}

/// Appends data that is an object, and other data as a member of one.
fn object(out: &mut Vec<u8>, payload: &Payload) {
    match payload.form {
        Form::Json if payload.data().starts_with(b"{") => out.extend_from_slice(payload.data()),
        _ => data_member(out, payload),
    }
}

/// Appends an object with the data as its member `data`, or `binary` in base64.
pub(super) fn data_member(out: &mut Vec<u8>, payload: &Payload) {
    let data = payload.data();
    match payload.form {
        Form::Json => {
            out.extend_from_slice(b"{\"data\":");
            out.extend_from_slice(data);
            out.push(b'}');
        }
        Form::Binary => {
            out.extend_from_slice(b"{\"binary\":\"");
            out.extend_from_slice(STANDARD.encode(data).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

/// The parts of data of the form `{"event":E,"payload":P}`, which other protocols publish for Phoenix
/// clients: E is the name of an event and P an object.
fn event_and_payload(payload: &Payload) -> Option<(Cow<'_, str>, &[u8])> {
    if payload.form != Form::Json {
        return None;
    }
    let members: Vec<_> = json::members(payload.data())?.take(3).collect();
    let (event, inner) = match members[..] {
        [(b"event", event), (b"payload", inner)] | [(b"payload", inner), (b"event", event)] => {
            (string(event)?, inner)
        }
        _ => return None,
    };
    (inner.starts_with(b"{") && Event::new(&event).is_some()).then_some((event, inner))
}
