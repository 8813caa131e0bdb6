//! Decodes messages of clients.
//!
//! simd-json validates the whole message; then the parts are cut from the text as it came, so that
//! refs and payloads keep all their digits.

use std::borrow::Cow;

use murre_router::channels::Form;

use super::Dialect;
use super::refs::Ref;
use crate::hub::member_names::MemberName;
use crate::protocols::json::{self, JsonError, Validator};

/// A message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) join_ref: Ref<'a>,
    pub(crate) reference: Ref<'a>,
    pub(crate) topic: Cow<'a, str>,
    pub(crate) event: Cow<'a, str>,
    pub(crate) body: Body<'a>,
}

/// The payload of a message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// Valid JSON, which may have whitespace between its tokens.
    Json(&'a [u8]),
    Binary(&'a [u8]),
    /// A broadcast of a client of Supabase in a binary message: its own event, and JSON or bytes.
    Broadcast {
        event: &'a str,
        form: Form,
        data: &'a [u8],
    },
}

/// Why a message cannot be read. Its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadMessage {
    /// It is not JSON.
    Json,
    /// It is not a message of the protocol's form.
    Form,
}

impl From<JsonError> for BadMessage {
    fn from(why: JsonError) -> Self {
        match why {
            JsonError::Malformed => BadMessage::Json,
            JsonError::TooDeep => BadMessage::Form,
        }
    }
}

/// Decodes a text message.
///
/// # Errors
/// The message cannot be read.
pub(crate) fn text<'a>(
    text: &'a [u8],
    dialect: Dialect,
    validator: &mut Validator,
) -> Result<Message<'a>, BadMessage> {
    validator.check(text).map_err(BadMessage::from)?;
    let message = if dialect.is_v1() { object(text) } else { array(text) };
    message.ok_or(BadMessage::Form)
}

/// Version 2: `[join_ref, ref, topic, event, payload]`. Further elements are ignored.
fn array(text: &[u8]) -> Option<Message<'_>> {
    let mut rest = text.trim_ascii_start().strip_prefix(b"[")?;
    let mut next = || {
        let (element, after) = json::split_first(rest)?;
        rest = after;
        Some(element)
    };
    Some(Message {
        join_ref: reference(next()?)?,
        reference: reference(next()?)?,
        topic: string(next()?)?,
        event: string(next()?)?,
        body: Body::Json(next()?),
    })
}

/// Version 1: `{"topic":T,"event":E,"payload":P,"ref":R}`, and `join_ref` if the client has one. The
/// last of several members of one name counts.
fn object(text: &[u8]) -> Option<Message<'_>> {
    let members = json::members(text)?;
    let (mut join_ref, mut own, mut topic, mut event, mut body) = (None, None, None, None, None);
    for (key, value) in members {
        match key {
            b"join_ref" => join_ref = Some(value),
            b"ref" => own = Some(value),
            b"topic" => topic = Some(value),
            b"event" => event = Some(value),
            b"payload" => body = Some(value),
            _ => {}
        }
    }
    Some(Message {
        join_ref: join_ref.map_or(Some(Ref::NULL), reference)?,
        reference: reference(own?)?,
        topic: string(topic?)?,
        event: string(event?)?,
        body: Body::Json(body?),
    })
}

fn reference(json: &[u8]) -> Option<Ref<'_>> {
    Ref::new(str::from_utf8(json).ok()?)
}

/// The content of a string of valid JSON.
pub(super) fn string(json: &[u8]) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(json).ok().map(Cow::Owned);
    }
    str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// The members of a join's payload that the server reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinParams<'a> {
    pub(crate) token: Option<Cow<'a, str>>,
    /// Epoch and offset behind which the client continues.
    pub(crate) position: Option<(u32, u64)>,
    /// The JSON of `presence`.
    pub(super) presence: Option<&'a [u8]>,
    /// The JSON of `presence_key`.
    pub(super) presence_key: Option<&'a [u8]>,
}

/// What a join asks of presence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinPresence<'a> {
    /// The metadata of the member, an object, as the client has written it.
    pub(crate) meta: Option<&'a [u8]>,
    /// Whether the client wants to be no member.
    pub(crate) is_hidden: bool,
    /// The key that the client has chosen.
    pub(crate) key: Option<Cow<'a, str>>,
}

impl<'a> JoinParams<'a> {
    /// Reads the payload of a join: `token` or `access_token`, `position`, and what is asked of presence,
    /// which [`presence`](Self::presence) reads. Other members belong to the application.
    ///
    /// # Errors
    /// The name of a member that cannot be read.
    pub(crate) fn read(body: Body<'a>) -> Result<Self, &'static str> {
        let Body::Json(json) = body else { return Ok(JoinParams::default()) };
        let Some(members) = json::members(json) else { return Ok(JoinParams::default()) };
        let mut params = JoinParams::default();
        for (key, value) in members {
            match key {
                _ if value == b"null" => {}
                b"token" | b"access_token" => params.token = Some(string(value).ok_or("token")?),
                b"position" => params.position = Some(position(value).ok_or("position")?),
                b"presence" => params.presence = Some(value),
                b"presence_key" => params.presence_key = Some(value),
                _ => {}
            }
        }
        Ok(params)
    }

    /// What the join asks of presence: `presence` is metadata, or false for no membership. Call it for
    /// topics that have presence: in others the members belong to the application.
    ///
    /// # Errors
    /// The name of a member that cannot be read.
    pub(crate) fn presence(&self) -> Result<JoinPresence<'a>, &'static str> {
        let (meta, is_hidden) = match self.presence {
            None | Some(b"true") => (None, false),
            Some(b"false") => (None, true),
            Some(meta) if meta.starts_with(b"{") => (Some(meta), false),
            Some(_) => return Err("presence"),
        };
        let key = self
            .presence_key
            .map(|json| string(json).filter(|key| MemberName::is_key(key)).ok_or("presence_key"));
        Ok(JoinPresence { meta, is_hidden, key: key.transpose()? })
    }
}

fn position(json: &[u8]) -> Option<(u32, u64)> {
    let (mut epoch, mut offset) = (None, None);
    for (key, value) in json::members(json)? {
        let text = str::from_utf8(value).ok()?;
        match key {
            b"epoch" => epoch = text.parse().ok(),
            b"offset" => offset = text.parse().ok(),
            _ => {}
        }
    }
    Some((epoch?, offset?))
}
