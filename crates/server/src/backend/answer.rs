//! The answer of a call. An answer of any other form than the documented ones is a failure, never a
//! consent.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::CallKind;
use crate::hub::auth::Grants;
use crate::protocols::json;

/// The application's answer to a call, or the reason why there is none.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It consents.
    Result(Box<CallResult>),
    /// It refuses.
    Error { code: u32, message: Box<str> },
    /// It ends the session.
    Disconnect { code: u32, reason: Box<str> },
    /// There is no answer that can be used.
    Failed(Failure),
}

/// The reason why a call has no answer that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Too many calls wait. It was not made.
    Overloaded,
    /// The calls before it have failed. It was not made.
    Suspended,
    /// No connection.
    Unreachable,
    Timeout,
    /// The connection ended in the answer, or the answer is no HTTP or too long.
    Broken,
    /// The status is not 200.
    Status,
    /// The body is not one of the documented ones.
    Nonsense,
}

impl Failure {
    /// The name in `/metrics` and in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Overloaded => "overloaded",
            Failure::Suspended => "suspended",
            Failure::Unreachable => "unreachable",
            Failure::Timeout => "timeout",
            Failure::Broken => "broken",
            Failure::Status => "status",
            Failure::Nonsense => "nonsense",
        }
    }

    /// Advice for the operator, for the log.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Failure::Overloaded => {
                "256 are in flight and 1,024 wait; make the application faster, or add workers"
            }
            Failure::Suspended => {
                "the calls before failed, so calls are refused for a second; see the lines about those"
            }
            Failure::Unreachable => "start the application, or correct the URL",
            Failure::Timeout => "make the application faster, or raise --backend-timeout",
            Failure::Broken => "the application must answer with HTTP/1.1 and at most 1 MiB",
            Failure::Status => "the application must answer with status 200, also to refuse",
            Failure::Nonsense => {
                "the answer must be {\"result\":{..}}, {\"error\":{..}} or {\"disconnect\":{..}}, see \
                 docs/backend.md"
            }
        }
    }
}

/// The members of a result. Each kind of call reads those that it has.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CallResult {
    /// `None` is a client without a user.
    pub(crate) user: Option<Box<str>>,
    pub(crate) expired: bool,
    /// Seconds since 1970; `None` is never.
    pub(crate) expire_at: Option<u64>,
    /// The claim `channels` of a token, as JSON.
    pub(crate) channels: Option<RawJson>,
    /// The claim `subs` of a token, as JSON.
    pub(crate) subs: Option<RawJson>,
    pub(crate) data: Option<Data>,
    pub(crate) meta: Option<RawJson>,
    /// The application's metadata of the client, which members of its channels see: JSON without whitespace.
    pub(crate) info: Option<Vec<u8>>,
}

/// JSON that is kept as its text.
#[derive(Debug)]
pub(crate) struct RawJson(pub(crate) Box<RawValue>);

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// Data of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// JSON without whitespace.
    Json(Vec<u8>),
    Binary(Vec<u8>),
}

#[derive(Deserialize)]
struct RawAnswer {
    result: Option<Box<RawValue>>,
    error: Option<Box<RawValue>>,
    disconnect: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RawError {
    code: u32,
    #[serde(default)]
    message: Option<Box<str>>,
}

#[derive(Deserialize)]
struct RawDisconnect {
    code: u32,
    #[serde(default)]
    reason: Option<Box<str>>,
}

#[derive(Deserialize)]
struct RawResult {
    user: Option<Box<str>>,
    expired: Option<bool>,
    #[serde(default, deserialize_with = "seconds")]
    expire_at: Option<u64>,
    channels: Option<Box<RawValue>>,
    subs: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    meta: Option<Box<RawValue>>,
    info: Option<Box<RawValue>>,
}

/// Bytes of `meta` and of `info` at most: they are kept as long as the session.
const KEPT_BYTES_MAX: usize = 4096;
const USER_BYTES_MAX: usize = 255;
/// Bytes of the sentence of an error that a client is told.
const TEXT_BYTES_MAX: usize = 1024;

impl Answer {
    /// Reads the body of an answer with status 200, whose data has at most `data_bytes_max` bytes.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(super) fn read(kind: CallKind, body: &[u8], data_bytes_max: usize) -> Result<Self, String> {
        let RawAnswer { result, error, disconnect } = object(body)?;
        if let Some(disconnect) = disconnect {
            let RawDisconnect { code, reason } = object(disconnect.get().as_bytes())?;
            return Ok(Answer::Disconnect { code, reason: text(reason) });
        }
        if let Some(error) = error {
            let RawError { code, message } = object(error.get().as_bytes())?;
            return Ok(Answer::Error { code, message: text(message) });
        }
        let result = match (result, kind) {
            (Some(result), _) => CallResult::read(kind, &result, data_bytes_max)?,
            // As in Centrifugo.
            (None, CallKind::Refresh) => CallResult { expired: true, ..CallResult::default() },
            (None, _) => return Err("there is no `result`, `error` or `disconnect`".into()),
        };
        Ok(Answer::Result(Box::new(result)))
    }
}

impl CallResult {
    fn read(kind: CallKind, result: &RawValue, data_bytes_max: usize) -> Result<Self, String> {
        let raw: RawResult = object(result.get().as_bytes())?;
        let user = raw.user.filter(|user| !user.is_empty());
        if user
            .as_ref()
            .is_some_and(|user| user.len() > USER_BYTES_MAX || user.contains(char::is_control))
        {
            return Err("`user` is longer than 255 bytes or has control characters".into());
        }
        if kind == CallKind::Connect {
            // Without a user there is nobody whom they could be about, and the session would have more rights.
            let is_anonymous = user.is_none();
            if is_anonymous
                && (raw.expire_at.is_some() || raw.channels.is_some() || raw.subs.is_some())
            {
                return Err("`expire_at`, `channels` and `subs` need a `user`".into());
            }
            Grants::parse(raw.channels.as_deref(), raw.subs.as_deref())
                .map_err(|why| why.sentence().to_owned())?;
        }
        if raw.meta.as_ref().is_some_and(|meta| meta.get().len() > KEPT_BYTES_MAX) {
            return Err(format!("`meta` is longer than {KEPT_BYTES_MAX} bytes"));
        }
        let info = raw.info.map(|info| compact("info", &info)).transpose()?;
        if info.as_ref().is_some_and(|info| info.len() > KEPT_BYTES_MAX) {
            return Err(format!("`info` is longer than {KEPT_BYTES_MAX} bytes"));
        }
        let data = match (raw.data, raw.b64data.filter(|text| !text.is_empty())) {
            (_, Some(encoded)) => {
                let bytes = STANDARD.decode(encoded);
                Some(Data::Binary(bytes.map_err(|error| format!("`b64data`: {error}"))?))
            }
            (Some(data), None) => Some(Data::Json(compact("data", &data)?)),
            (None, None) => None,
        };
        if data.as_ref().is_some_and(|data| data.len() > data_bytes_max) {
            return Err(format!("the data is longer than max-publication-bytes, {data_bytes_max}"));
        }
        let raw_json = |json: Option<Box<RawValue>>| json.map(RawJson);
        Ok(CallResult {
            user,
            expired: raw.expired.unwrap_or_default(),
            expire_at: raw.expire_at,
            channels: raw_json(raw.channels),
            subs: raw_json(raw.subs),
            data,
            meta: raw_json(raw.meta),
            info,
        })
    }
}

impl Data {
    fn len(&self) -> usize {
        let (Data::Json(bytes) | Data::Binary(bytes)) = self;
        bytes.len()
    }
}

/// The JSON of a member without whitespace, if clients may get it: the rules are those for JSON that clients
/// send.
fn compact(member: &str, json: &RawValue) -> Result<Vec<u8>, String> {
    let text = json.get().as_bytes();
    json::check(text).map_err(|why| format!("`{member}`: {why:?}"))?;
    let mut compact = Vec::new();
    json::compact(text, &mut compact);
    Ok(compact)
}

/// The members of a result that have no effect, because this kind of call has none of this name. A member
/// that asks for nothing, as `"skip_history":false`, is none of them.
pub(super) fn without_effect(kind: CallKind, body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow, default)]
        result: Option<BTreeMap<String, &'a RawValue>>,
    }
    let members = serde_json::from_slice::<Members<'_>>(body).ok().and_then(|body| body.result);
    let asks =
        |value: &RawValue| !matches!(value.get(), "null" | "false" | "0" | "\"\"" | "{}" | "[]");
    let known = kind.members();
    let members = members.unwrap_or_default().into_iter();
    members
        .filter(|(name, value)| !known.contains(&&**name) && asks(value))
        .map(|(name, _)| name)
        .collect()
}

/// Reads an object. Anything else is an error, also a list with its values in order, which serde takes.
fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// A sentence for a client, cut to a bearable length.
fn text(text: Option<Box<str>>) -> Box<str> {
    let text = text.unwrap_or_default();
    match text.len() > TEXT_BYTES_MAX {
        true => text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into(),
        false => text,
    }
}

/// An expiry in whole seconds since 1970, of any size; 0 is none.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    let seconds = Option::<f64>::deserialize(value)?.unwrap_or_default();
    match seconds {
        0.0 => Ok(None),
        seconds if seconds > 0.0 => Ok(Some(seconds as u64)),
        _ => Err(serde::de::Error::custom("`expire_at` is before 1970")),
    }
}
