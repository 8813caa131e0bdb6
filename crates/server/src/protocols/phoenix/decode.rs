//! Decodes messages of clients.
//!
//! simd-json validates the whole message; then the parts are cut from the text as it came, so that
//! refs and payloads keep all their digits.

use std::borrow::Cow;

use super::Dialect;
use super::refs::Ref;
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
}

/// Why a message cannot be read. Its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadMessage {
    /// It is not JSON.
    Json,
    /// It is not a message of the protocol's form.
    Form,
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
    validator.check(text).map_err(|why| match why {
        JsonError::Malformed => BadMessage::Json,
        JsonError::TooDeep => BadMessage::Form,
    })?;
    let message = match dialect {
        Dialect::V1 => object(text),
        Dialect::V2 | Dialect::V2Text => array(text),
    };
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
}

impl<'a> JoinParams<'a> {
    /// Reads the payload of a join: `token` or `access_token`, and `position`. Other members belong to
    /// the application.
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
                _ => {}
            }
        }
        Ok(params)
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
