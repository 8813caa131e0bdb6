//! Decodes a text message into commands.
//!
//! The message is copied once, and simd-json parses the copy in place: it validates everything and
//! leaves a flat tape that borrows its strings. `data` is not taken from the tape, where numbers
//! have become doubles, but from the message: it goes out as it came in, less the whitespace, so
//! that all digits are kept and nothing is formatted anew. (serde has no part in it: it would have
//! to build a tree of `data`.) Where an object has a member twice, the last one counts, as it does
//! for `JSON.parse`.

use std::mem;
use std::ops::RangeInclusive;

use murre_router::channels::{Direction, Form, HistoryQuery, Payload, Position, Start};
use murre_router::presence::{Meta, PresenceQuery, Watch};
use simd_json::prelude::{TypedScalarValue, TypedValue, ValueAsScalar, ValueIntoString};
use simd_json::tape::Value;
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape, ValueType};

use super::errors::{Code, WireError};
use crate::hub::event::{BAD_EVENT, Event};
use crate::hub::limits::NameLimits;
use crate::hub::{About, Audience, Command, ErrorCode, PresenceOptions, RequestId};
use crate::protocols::json::{self, DEPTH_MAX};

/// Reads messages. It keeps its memory from one to the next.
pub(crate) struct Parser {
    text: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    data: Vec<u8>,
}

/// A command of a message, or why it is none.
#[derive(Debug, PartialEq)]
pub(crate) struct Item<'a> {
    pub(crate) request: RequestId,
    pub(crate) command: Result<Command<'a>, WireError<'a>>,
}

impl Default for Parser {
    fn default() -> Self {
        Parser {
            text: Vec::new(),
            buffers: Buffers::with_max_depth(0, DEPTH_MAX),
            tape: Tape(Vec::new()),
            data: Vec::new(),
        }
    }
}

impl Parser {
    /// Hands the commands of a message to `each`, in order. There is at least one, or a rejection.
    pub(crate) fn read(
        &mut self,
        message: &[u8],
        limits: &NameLimits,
        mut each: impl FnMut(Item<'_>),
    ) {
        self.text.clear();
        self.text.extend_from_slice(message);
        self.text.resize(message.len() + INPUT_PADDING, b' ');
        let start = self.text.as_ptr().addr();
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = simd_json::fill_tape_padded(
            &mut self.text,
            message.len(),
            &mut self.buffers,
            &mut tape,
        );
        let reject = |code, message| Item::from(WireError::new(code, message));
        match filled {
            Ok(()) => {
                let mut reader = Reader { limits, message, start, compact: &mut self.data };
                let value = tape.as_value();
                match value.as_array() {
                    None => each(reader.item(value)),
                    Some(batch) if (1..=BATCH_MAX).contains(&batch.len()) => {
                        batch.iter().for_each(|value| each(reader.item(value)));
                    }
                    Some(_) => {
                        each(reject(Code::BatchTooLong, Code::BatchTooLong.sentence()));
                    }
                }
            }
            Err(error) if *error.error() == ErrorType::DepthLimitExceeded => {
                each(reject(Code::BadJson, "the message is nested more than 32 deep"));
            }
            Err(_) => each(reject(Code::BadJson, Code::BadJson.sentence())),
        }
        self.tape = tape.reset();
    }
}

const BATCH_MAX: usize = 100;

/// Makes commands of values.
struct Reader<'r> {
    limits: &'r NameLimits,
    /// The message as it came: parsing unescapes the strings of its copy.
    message: &'r [u8],
    /// Where the copy begins in memory.
    start: usize,
    compact: &'r mut Vec<u8>,
}

/// The members of a command that mean something.
#[derive(Default)]
struct Members<'t, 'i> {
    id: Option<Value<'t, 'i>>,
    action: Option<Value<'t, 'i>>,
    channel: Option<Value<'t, 'i>>,
    /// Its key, which tells where in the message the value is.
    data: Option<&'i str>,
    event: Option<Value<'t, 'i>>,
    /// Its key, unless its value is null.
    meta: Option<&'i str>,
    presence: Option<Value<'t, 'i>>,
    hidden: Option<Value<'t, 'i>>,
    from: Option<Value<'t, 'i>>,
    position: Option<Value<'t, 'i>>,
    limit: Option<Value<'t, 'i>>,
    token: Option<Value<'t, 'i>>,
    service: Option<Value<'t, 'i>>,
    timeout: Option<Value<'t, 'i>>,
    request: Option<Value<'t, 'i>>,
    error: Option<Value<'t, 'i>>,
}

impl<'t, 'i> Members<'t, 'i> {
    /// Optional members may be null, so a null is as good as none.
    fn of(value: Value<'t, 'i>) -> Option<Self> {
        let mut members = Members::default();
        for (key, value) in &value.as_object()? {
            let given = (!value.is_null()).then_some(value);
            match key {
                "id" => members.id = given,
                "action" => members.action = given,
                "identifier" => members.channel = given,
                "data" => members.data = Some(key),
                "event" => members.event = given,
                "meta" => members.meta = given.map(|_| key),
                "presence" => members.presence = given,
                "hidden" => members.hidden = given,
                "from" => members.from = given,
                "position" => members.position = given,
                "limit" => members.limit = given,
                "token" => members.token = given,
                "service" => members.service = given,
                "timeout" => members.timeout = given,
                "request" => members.request = given,
                "error" => members.error = given,
                _ => {}
            }
        }
        Some(members)
    }
}

impl Reader<'_> {
    fn item<'i>(&mut self, value: Value<'_, 'i>) -> Item<'i> {
        let Some(members) = Members::of(value) else {
            return WireError::new(Code::BadCommand, "a command is an object").into();
        };
        match id(members.id) {
            Err(rejection) => rejection.into(),
            Ok(id) => Item { command: self.command(&members, id != RequestId::None), request: id },
        }
    }

    fn command<'i>(
        &mut self,
        members: &Members<'_, 'i>,
        has_id: bool,
    ) -> Result<Command<'i>, WireError<'i>> {
        match text(members.action, "a command has `action`, a string")? {
            "subscribe" => {
                let channel = self.channel(members)?;
                let about = About::Channel(channel);
                let position = position(members.position, about)?;
                let start = position.map_or(Start::Head, Start::After);
                let why = "`token` is a string, a token for this channel";
                let token = members.token.map(|token| text(Some(token), why)).transpose();
                let token = token.map_err(|error| error.about(about))?;
                let presence = PresenceOptions {
                    watch: watch(members.presence, about)?,
                    meta: self.meta(members, about)?,
                    is_hidden: hidden(members.hidden, about)?,
                    ..PresenceOptions::default()
                };
                Ok(Command::Subscribe { channel, start, token, presence })
            }
            "unsubscribe" => Ok(Command::Unsubscribe { channel: self.channel(members)? }),
            "publish" => {
                let channel = self.channel(members)?;
                let about = About::Channel(channel);
                let data = self.data(members, Some(about))?;
                let payload = match members.event {
                    None => data,
                    Some(event) => {
                        let event = event.into_string().and_then(Event::new);
                        let wrong = WireError::new(Code::BadCommand, BAD_EVENT).about(about);
                        event.ok_or(wrong)?.payload(Form::Json, data.data())
                    }
                };
                Ok(Command::Publish { channel, payload, to: Audience::Everybody })
            }
            "history" => {
                let channel = self.channel(members)?;
                let about = About::Channel(channel);
                let limit = number(members.limit, 0..=HISTORY_LIMIT_MAX).map_err(|()| {
                    let why = "`limit` is an integer from 0 to 1000";
                    WireError::new(Code::BadCommand, why).about(about)
                })?;
                let position = position(members.position, about)?;
                let limit = limit.unwrap_or(HISTORY_LIMIT_DEFAULT);
                let query = HistoryQuery {
                    start: position.map_or(Start::Head, Start::After),
                    limit,
                    bytes_max: HISTORY_BYTES_MAX,
                    direction: Direction::Forward,
                };
                Ok(Command::History { channel, query })
            }
            "presence" => {
                let channel = self.channel(members)?;
                let refused =
                    |why| WireError::new(Code::BadCommand, why).about(About::Channel(channel));
                let limit = number(members.limit, 0..=PRESENCE_LIMIT_MAX)
                    .map_err(|()| refused("`limit` is an integer from 0 to 1000"))?;
                let from = members.from.map_or(Some(0), natural);
                let from = from.ok_or_else(|| refused("`from` is `next` of the page before"))?;
                let query = PresenceQuery {
                    from,
                    limit: limit.unwrap_or(PRESENCE_LIMIT_DEFAULT),
                    bytes_max: PRESENCE_BYTES_MAX,
                };
                Ok(Command::Presence { channel, query })
            }
            "presence_stats" => Ok(Command::PresenceStats { channel: self.channel(members)? }),
            "presence_update" => {
                let channel = self.channel(members)?;
                let meta = self.meta(members, About::Channel(channel))?;
                Ok(Command::PresenceUpdate { channel, meta })
            }
            "presence_leave" => Ok(Command::PresenceLeave { channel: self.channel(members)? }),
            "ping" => Ok(Command::Ping),
            "auth" => {
                let token = text(members.token, "`auth` has `token`, a string")?;
                Ok(Command::Authenticate { token })
            }
            "serve" => Ok(Command::Serve { service: self.service(members)? }),
            "unserve" => Ok(Command::Unserve { service: self.service(members)? }),
            "request" => {
                let service = self.service(members)?;
                let about = About::Service(service);
                let refused = |why| WireError::new(Code::BadCommand, why).about(about);
                if !has_id {
                    return Err(refused("a request has `id`, to know its response by"));
                }
                let timeout = number(members.timeout, 1..=TIMEOUT_MS_MAX).map_err(|()| {
                    refused("`timeout` is an integer from 1 to 60000, in milliseconds")
                })?;
                let data = self.data(members, Some(about))?;
                let timeout_ms = timeout.unwrap_or(TIMEOUT_MS_DEFAULT);
                Ok(Command::Request { service, payload: data, timeout_ms })
            }
            "reply" => {
                let why = "a reply has `request`, the string that came with the request";
                let request = text(members.request, why)?;
                let answer = match (members.data, members.error) {
                    (_, None) => Ok(self.data(members, None)?),
                    (None, error) => Err(self.error(error)?),
                    (Some(_), Some(_)) => {
                        let why = "a reply has `data` or `error`, not both";
                        return Err(WireError::new(Code::BadCommand, why));
                    }
                };
                Ok(Command::Respond { request, answer })
            }
            _ => Err(Code::UnknownAction.into()),
        }
    }

    fn channel<'i>(&self, members: &Members<'_, 'i>) -> Result<&'i str, WireError<'i>> {
        let name = text(members.channel, "this action has `identifier`, a string")?;
        Ok(self.limits.name(name)?)
    }

    fn service<'i>(&self, members: &Members<'_, 'i>) -> Result<&'i str, WireError<'i>> {
        let name = text(members.service, "this action has `service`, a string")?;
        Ok(self.limits.name(name)?)
    }

    /// A responder's own sentence, which is as long as data may be.
    fn error<'i>(&self, value: Option<Value<'_, 'i>>) -> Result<&'i str, WireError<'i>> {
        let error = text(value, "`error` is a string")?;
        self.limits.size(error.len())?;
        Ok(error)
    }

    /// The value of `data`, as it is in the message, without whitespace.
    fn data<'i>(
        &mut self,
        members: &Members<'_, 'i>,
        about: Option<About<'i>>,
    ) -> Result<Payload, WireError<'i>> {
        let Some(key) = members.data else {
            let why = "this action has `data`, any JSON";
            return Err(WireError { about, ..WireError::new(Code::BadCommand, why) });
        };
        self.raw(key).map_err(|code| WireError { about, ..WireError::from(code) })?;
        Ok(Payload::new(Form::Json, self.compact.as_slice()))
    }

    /// The value of `meta`, if there is one, like `data`.
    fn meta<'i>(
        &mut self,
        members: &Members<'_, 'i>,
        about: About<'i>,
    ) -> Result<Option<Meta>, WireError<'i>> {
        let Some(key) = members.meta else { return Ok(None) };
        self.raw(key).map_err(|code| WireError::from(code).about(about))?;
        Ok(Some(Meta::new(self.compact)))
    }

    /// Copies the value behind a key, without whitespace, into `compact`.
    fn raw(&mut self, key: &str) -> Result<(), ErrorCode> {
        // simd-json unescapes a string where it lies, so that the key begins in the copy where it
        // begins in the message.
        let key = &self.message[key.as_ptr().addr() - self.start..];
        let colon = &key[json::string_length(key)..];
        let value = colon.iter().position(|&byte| byte == b':').map_or(0, |colon| colon + 1);
        self.compact.clear();
        json::compact(&colon[value..], self.compact);
        self.limits.size(self.compact.len())
    }
}

/// Bytes of data in one answer to `history`, unless a single publication has more.
pub(crate) const HISTORY_BYTES_MAX: u32 = 64 << 10;
/// Bytes of one answer to `presence`, unless a single member has more.
pub(crate) const PRESENCE_BYTES_MAX: u32 = 64 << 10;
const PRESENCE_LIMIT_DEFAULT: u32 = 100;
const PRESENCE_LIMIT_MAX: u32 = 1000;
const HISTORY_LIMIT_DEFAULT: u32 = 100;
const HISTORY_LIMIT_MAX: u32 = 1000;
const TIMEOUT_MS_DEFAULT: u32 = 10_000;
const TIMEOUT_MS_MAX: u32 = 60_000;

fn id<'i>(value: Option<Value<'_, 'i>>) -> Result<RequestId, WireError<'i>> {
    let Some(value) = value else { return Ok(RequestId::None) };
    let id = match (natural(value), value.as_str()) {
        (Some(number), _) if number <= ID_NUMBER_MAX => RequestId::Number(number),
        (_, Some(text)) if text.len() <= ID_BYTES_MAX => RequestId::Text(text.into()),
        _ => {
            let why = "`id` is an integer from 0 to 2^53 or a string of at most 64 bytes";
            return Err(WireError::new(Code::BadCommand, why));
        }
    };
    Ok(id)
}

const ID_NUMBER_MAX: u64 = 1 << 53;
const ID_BYTES_MAX: usize = 64;

fn text<'i>(value: Option<Value<'_, 'i>>, why: &'static str) -> Result<&'i str, WireError<'i>> {
    value.and_then(Value::into_string).ok_or(WireError::new(Code::BadCommand, why))
}

/// Whether a subscriber is no member.
fn hidden<'i>(value: Option<Value<'_, 'i>>, about: About<'i>) -> Result<bool, WireError<'i>> {
    let Some(value) = value else { return Ok(false) };
    let why = "`hidden` is true or false";
    value.as_bool().ok_or(WireError::new(Code::BadCommand, why).about(about))
}

/// What a subscription is told of members.
fn watch<'i>(
    value: Option<Value<'_, 'i>>,
    about: About<'i>,
) -> Result<Option<Watch>, WireError<'i>> {
    let Some(value) = value else { return Ok(None) };
    match value.into_string() {
        Some("members") => Ok(Some(Watch::Members)),
        Some("counts") => Ok(Some(Watch::Counts)),
        _ => {
            let why = "`presence` is \"members\" or \"counts\"";
            Err(WireError::new(Code::BadCommand, why).about(about))
        }
    }
}

fn number(value: Option<Value<'_, '_>>, range: RangeInclusive<u32>) -> Result<Option<u32>, ()> {
    let Some(value) = value else { return Ok(None) };
    let number = natural(value).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| range.contains(number)).map(Some).ok_or(())
}

/// An integer without a sign: `-0` is none.
fn natural(value: Value<'_, '_>) -> Option<u64> {
    (value.value_type() == ValueType::U64).then(|| value.as_u64())?
}

fn position<'i>(
    value: Option<Value<'_, 'i>>,
    about: About<'i>,
) -> Result<Option<Position>, WireError<'i>> {
    let Some(value) = value else { return Ok(None) };
    let member = |key| {
        let members = value.as_object()?;
        natural(members.iter().filter(|&(known, _)| known == key).last()?.1)
    };
    let position = || {
        let epoch = u32::try_from(member("epoch")?).ok()?;
        Some(Position { epoch, offset: member("offset")? })
    };
    let why = "`position` is an object with the integers `epoch`, of 32 bits, and `offset`";
    position().map(Some).ok_or(WireError::new(Code::BadCommand, why).about(about))
}

impl<'a> From<WireError<'a>> for Item<'a> {
    fn from(rejection: WireError<'a>) -> Self {
        Item { request: RequestId::None, command: Err(rejection) }
    }
}

#[cfg(test)]
mod tests;
