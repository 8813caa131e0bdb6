//! What clients ask for: a text message becomes commands.
//!
//! The message is copied once, and simd-json parses the copy in place: it validates everything and
//! leaves a flat tape that borrows its strings. `data` is not taken from the tape, where numbers
//! have become doubles, but from the message: it goes out as it came in, less the whitespace, so
//! that all digits are kept and nothing is formatted anew. (serde has no part in it: it would have
//! to build a tree of `data`.) Where an object has a member twice, the last one counts, as it does
//! for `JSON.parse`.

use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;

use simd_json::prelude::{TypedScalarValue, TypedValue, ValueAsScalar, ValueIntoString};
use simd_json::tape::Value;
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape, ValueType};

use super::Position;
use super::code::Code;

/// Reads messages. It keeps its memory from one to the next.
pub(crate) struct Parser {
    text: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    data: Vec<u8>,
}

/// How long names and data may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of an identifier and of the name of a service; at most 255.
    pub(crate) identifier_bytes_max: usize,
    /// Of the data or payload of a publication, a request or a reply.
    pub(crate) publication_bytes_max: usize,
}

/// A command of a message, or why it is none.
#[derive(Debug, PartialEq)]
pub(crate) struct Item<'a> {
    pub(crate) id: Option<Id>,
    pub(crate) command: Result<Command<'a>, Rejection<'a>>,
}

/// What a client wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Command<'a> {
    Subscribe { identifier: &'a str, position: Option<Position> },
    Unsubscribe { identifier: &'a str },
    Publish { identifier: &'a str, data: Json },
    History { identifier: &'a str, limit: u32, position: Option<Position> },
    Ping,
    Auth { token: &'a str },
    Serve { service: &'a str },
    Unserve { service: &'a str },
    Request { service: &'a str, data: Json, timeout_ms: u32 },
    Reply { request: &'a str, answer: Result<Json, &'a str> },
}

/// JSON text without whitespace between its tokens, and so without line ends.
pub(crate) type Json = Arc<[u8]>;

/// What a client calls a command, to know its answer by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// At most 2^53.
    Number(u64),
    /// At most 64 bytes.
    Text(Box<str>),
}

/// Why there is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejection<'a> {
    pub(crate) code: Code,
    pub(crate) message: &'static str,
    pub(crate) about: Option<About<'a>>,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    Identifier(&'a str),
    Service(&'a str),
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
    pub(crate) fn read(&mut self, message: &[u8], limits: &Limits, mut each: impl FnMut(Item<'_>)) {
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
        let reject = |code, message| Item::from(Rejection::new(code, message));
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

/// Arrays and objects around a value, the batch and the command among them.
const DEPTH_MAX: usize = 32;
const BATCH_MAX: usize = 100;

/// Makes commands of values.
struct Reader<'r> {
    limits: &'r Limits,
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
    identifier: Option<Value<'t, 'i>>,
    /// Its key, which tells where in the message the value is.
    data: Option<&'i str>,
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
                "identifier" => members.identifier = given,
                "data" => members.data = Some(key),
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
            return Rejection::new(Code::BadCommand, "a command is an object").into();
        };
        match id(members.id) {
            Err(rejection) => rejection.into(),
            Ok(id) => Item { command: self.command(&members, id.is_some()), id },
        }
    }

    fn command<'i>(
        &mut self,
        members: &Members<'_, 'i>,
        has_id: bool,
    ) -> Result<Command<'i>, Rejection<'i>> {
        match text(members.action, "a command has `action`, a string")? {
            "subscribe" => {
                let identifier = self.identifier(members)?;
                let about = About::Identifier(identifier);
                let position = position(members.position, about)?;
                Ok(Command::Subscribe { identifier, position })
            }
            "unsubscribe" => Ok(Command::Unsubscribe { identifier: self.identifier(members)? }),
            "publish" => {
                let identifier = self.identifier(members)?;
                let data = self.data(members, Some(About::Identifier(identifier)))?;
                Ok(Command::Publish { identifier, data })
            }
            "history" => {
                let identifier = self.identifier(members)?;
                let about = About::Identifier(identifier);
                let limit = number(members.limit, 0..=HISTORY_LIMIT_MAX).map_err(|()| {
                    let why = "`limit` is an integer from 0 to 1000";
                    Rejection::new(Code::BadCommand, why).about(about)
                })?;
                let position = position(members.position, about)?;
                let limit = limit.unwrap_or(HISTORY_LIMIT_DEFAULT);
                Ok(Command::History { identifier, limit, position })
            }
            "ping" => Ok(Command::Ping),
            "auth" => {
                Ok(Command::Auth { token: text(members.token, "`auth` has `token`, a string")? })
            }
            "serve" => Ok(Command::Serve { service: self.service(members)? }),
            "unserve" => Ok(Command::Unserve { service: self.service(members)? }),
            "request" => {
                let service = self.service(members)?;
                let about = About::Service(service);
                let refused = |why| Rejection::new(Code::BadCommand, why).about(about);
                if !has_id {
                    return Err(refused("a request has `id`, to know its response by"));
                }
                let timeout = number(members.timeout, 1..=TIMEOUT_MS_MAX).map_err(|()| {
                    refused("`timeout` is an integer from 1 to 60000, in milliseconds")
                })?;
                let data = self.data(members, Some(about))?;
                let timeout_ms = timeout.unwrap_or(TIMEOUT_MS_DEFAULT);
                Ok(Command::Request { service, data, timeout_ms })
            }
            "reply" => {
                let why = "a reply has `request`, the string that came with the request";
                let request = text(members.request, why)?;
                let answer = match (members.data, members.error) {
                    (_, None) => Ok(self.data(members, None)?),
                    (None, error) => Err(self.error(error)?),
                    (Some(_), Some(_)) => {
                        let why = "a reply has `data` or `error`, not both";
                        return Err(Rejection::new(Code::BadCommand, why));
                    }
                };
                Ok(Command::Reply { request, answer })
            }
            _ => Err(Code::UnknownAction.into()),
        }
    }

    fn identifier<'i>(&self, members: &Members<'_, 'i>) -> Result<&'i str, Rejection<'i>> {
        let name = text(members.identifier, "this action has `identifier`, a string")?;
        identifier(name, self.limits)
    }

    fn service<'i>(&self, members: &Members<'_, 'i>) -> Result<&'i str, Rejection<'i>> {
        let name = text(members.service, "this action has `service`, a string")?;
        identifier(name, self.limits)
    }

    /// A responder's own sentence, which is as long as data may be.
    fn error<'i>(&self, value: Option<Value<'_, 'i>>) -> Result<&'i str, Rejection<'i>> {
        let error = text(value, "`error` is a string")?;
        let fits = error.len() <= self.limits.publication_bytes_max;
        fits.then_some(error).ok_or(Code::BadPublication.into())
    }

    /// The value of `data`, as it is in the message, without whitespace.
    fn data<'i>(
        &mut self,
        members: &Members<'_, 'i>,
        about: Option<About<'i>>,
    ) -> Result<Json, Rejection<'i>> {
        let Some(key) = members.data else {
            let why = "this action has `data`, any JSON";
            return Err(Rejection { about, ..Rejection::new(Code::BadCommand, why) });
        };
        // simd-json unescapes a string where it lies, so that the key begins in the copy where it
        // begins in the message.
        let key = &self.message[key.as_ptr().addr() - self.start..];
        let colon = &key[string_length(key)..];
        let value = colon.iter().position(|&byte| byte == b':').map_or(0, |colon| colon + 1);
        self.compact.clear();
        compact(&colon[value..], self.compact);
        if self.compact.len() > self.limits.publication_bytes_max {
            return Err(Rejection { about, ..Rejection::from(Code::BadPublication) });
        }
        Ok(Arc::from(self.compact.as_slice()))
    }
}

const HISTORY_LIMIT_DEFAULT: u32 = 100;
const HISTORY_LIMIT_MAX: u32 = 1000;
const TIMEOUT_MS_DEFAULT: u32 = 10_000;
const TIMEOUT_MS_MAX: u32 = 60_000;

/// Appends the value that valid JSON begins with, without the whitespace between its tokens.
pub(crate) fn compact(json: &[u8], out: &mut Vec<u8>) {
    let mut depth = 0_usize;
    let mut at = 0;
    let first = out.len();
    while let Some(&byte) = json.get(at) {
        let length = match byte {
            b'"' => 1 + string_length(&json[at + 1..]),
            _ => 1,
        };
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if out.len() == first || depth > 0 => {
                at += 1;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']' if depth == 0 => return,
            _ => {}
        }
        out.extend_from_slice(&json[at..at + length]);
        at += length;
        if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            return;
        }
    }
}

/// The length of a string of valid JSON behind its first quote, with its last.
fn string_length(json: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// A name that a channel or a service can have.
///
/// # Errors
/// What keeps it from being one. It is not repeated: it may be long or have no good form.
pub(crate) fn identifier<'a>(name: &'a str, limits: &Limits) -> Result<&'a str, Rejection<'a>> {
    let fits = (1..=limits.identifier_bytes_max).contains(&name.len());
    if fits && !name.contains(char::is_control) {
        Ok(name)
    } else {
        Err(Code::BadIdentifier.into())
    }
}

fn id<'i>(value: Option<Value<'_, 'i>>) -> Result<Option<Id>, Rejection<'i>> {
    let Some(value) = value else { return Ok(None) };
    let id = match (natural(value), value.as_str()) {
        (Some(number), _) if number <= ID_NUMBER_MAX => Id::Number(number),
        (_, Some(text)) if text.len() <= ID_BYTES_MAX => Id::Text(text.into()),
        _ => {
            let why = "`id` is an integer from 0 to 2^53 or a string of at most 64 bytes";
            return Err(Rejection::new(Code::BadCommand, why));
        }
    };
    Ok(Some(id))
}

const ID_NUMBER_MAX: u64 = 1 << 53;
const ID_BYTES_MAX: usize = 64;

fn text<'i>(value: Option<Value<'_, 'i>>, why: &'static str) -> Result<&'i str, Rejection<'i>> {
    value.and_then(Value::into_string).ok_or(Rejection::new(Code::BadCommand, why))
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
) -> Result<Option<Position>, Rejection<'i>> {
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
    position().map(Some).ok_or(Rejection::new(Code::BadCommand, why).about(about))
}

impl<'a> Rejection<'a> {
    /// With a sentence of its own.
    pub(crate) fn new(code: Code, message: &'static str) -> Self {
        Rejection { code, message, about: None }
    }

    /// The same, about something.
    pub(crate) fn about(self, about: About<'a>) -> Self {
        Rejection { about: Some(about), ..self }
    }
}

impl From<Code> for Rejection<'_> {
    fn from(code: Code) -> Self {
        Rejection::new(code, code.sentence())
    }
}

impl<'a> From<Rejection<'a>> for Item<'a> {
    fn from(rejection: Rejection<'a>) -> Self {
        Item { id: None, command: Err(rejection) }
    }
}

#[cfg(test)]
mod tests;
