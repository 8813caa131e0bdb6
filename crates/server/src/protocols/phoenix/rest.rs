//! Broadcasts of Supabase's clients over HTTP (`broadcast_controller.ex` and `broadcast_single_controller.ex` of
//! its server): several as JSON, or one whose topic and event are in the path.

use std::borrow::Cow;

use murre_router::channels::Form;
use percent_encoding::percent_decode_str;

use super::decode::string;
use super::encode::text;
use super::supabase::{boolean, given};
use crate::protocols::json;

/// A broadcast to a channel, as all its subscribers get it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RestBroadcast<'a> {
    pub(crate) channel: Cow<'a, str>,
    pub(crate) event: Cow<'a, str>,
    pub(crate) form: Form,
    /// Valid JSON without whitespace, or bytes.
    pub(crate) data: Cow<'a, [u8]>,
    /// Only clients with a user may send it.
    pub(crate) is_private: bool,
    /// Its place among several.
    pub(crate) place: Option<usize>,
}

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRequest {
    /// The path names no topic or no event.
    Path,
    /// The body is of a media type that is not taken.
    MediaType,
    NotJson,
    /// A member is missing, or cannot be used.
    Member(BadMember),
}

/// A member of a request that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadMember {
    /// The place of its message in `messages`; `None` for `messages` itself, and for a request with one.
    pub(crate) place: Option<usize>,
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

/// The words of Supabase's server for members that are missing, and that have another type.
const BLANK: &str = "can't be blank";
const INVALID: &str = "is invalid";

/// Reads the body of a request with several messages:
/// `{"messages":[{"topic":T,"event":E,"payload":P,"private":B}]}`, P an object.
///
/// # Errors
/// The first member that cannot be used.
pub(crate) fn several(body: &[u8]) -> Result<Vec<RestBroadcast<'_>>, BadRequest> {
    json::check(body).map_err(|_| BadRequest::NotJson)?;
    let bad = |why| BadRequest::Member(BadMember { place: None, name: "messages", why });
    let mut members = json::members(body).ok_or(bad(BLANK))?;
    let messages = members.by_ref().filter(|(key, _)| *key == b"messages").last();
    let (_, messages) = messages.ok_or(bad(BLANK))?;
    let mut rest = messages.strip_prefix(b"[").ok_or(bad(INVALID))?;
    let mut broadcasts = Vec::new();
    while let Some((message, after)) = json::split_first(rest) {
        let place = Some(broadcasts.len());
        let read = one_of_several(message, place);
        let read = read.map_err(|(name, why)| BadRequest::Member(BadMember { place, name, why }));
        broadcasts.push(read?);
        rest = after;
    }
    if broadcasts.is_empty() { Err(bad(BLANK)) } else { Ok(broadcasts) }
}

/// Reads one message of several. The error is the name of a member, and what is wrong with it.
fn one_of_several(
    json: &[u8],
    place: Option<usize>,
) -> Result<RestBroadcast<'_>, (&'static str, &'static str)> {
    if !json.starts_with(b"{") {
        return Err(("topic", BLANK));
    }
    let (mut channel, mut event, mut payload, mut is_private) = (None, None, None, false);
    for (key, value) in given(json) {
        match key {
            b"topic" => channel = Some(string(value).ok_or(("topic", INVALID))?),
            b"event" => event = Some(string(value).ok_or(("event", INVALID))?),
            b"payload" if value.starts_with(b"{") => payload = Some(value),
            b"payload" => return Err(("payload", INVALID)),
            b"private" => is_private = boolean(value).ok_or(("private", INVALID))?,
            _ => {}
        }
    }
    Ok(RestBroadcast {
        channel: channel.filter(|name| !name.is_empty()).ok_or(("topic", BLANK))?,
        event: event.filter(|name| !name.is_empty()).ok_or(("event", BLANK))?,
        form: Form::Json,
        data: compact(payload.ok_or(("payload", BLANK))?),
        is_private,
        place,
    })
}

/// Reads a request with one message, whose topic and event are in the path `/TOPIC/events/EVENT`. `private`
/// is the parameter of this name. The body is the payload: any JSON, or bytes.
///
/// # Errors
/// What cannot be used.
pub(crate) fn single<'a>(
    path: &'a str,
    private: Option<&str>,
    media_type: Option<&[u8]>,
    body: &'a [u8],
) -> Result<RestBroadcast<'a>, BadRequest> {
    let mut parts = path.strip_prefix('/').ok_or(BadRequest::Path)?.split('/');
    let mut part = || {
        let text = parts.next().filter(|part| !part.is_empty()).ok_or(BadRequest::Path)?;
        percent_decode_str(text).decode_utf8().map_err(|_| BadRequest::Path)
    };
    let (channel, events, event) = (part()?, part()?, part()?);
    if events != "events" || parts.next().is_some() {
        return Err(BadRequest::Path);
    }
    let is_private = match private {
        None | Some("false" | "") => false,
        Some("true") => true,
        Some(_) => {
            let bad = BadMember { place: None, name: "private", why: INVALID };
            return Err(BadRequest::Member(bad));
        }
    };
    let media_type = media_type.unwrap_or(b"application/json");
    let media_type = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
    let (form, data) = match &*media_type.trim_ascii().to_ascii_lowercase() {
        b"application/octet-stream" => (Form::Binary, Cow::Borrowed(body)),
        b"application/json" => {
            json::check(body).map_err(|_| BadRequest::NotJson)?;
            (Form::Json, compact(body))
        }
        _ => return Err(BadRequest::MediaType),
    };
    Ok(RestBroadcast { channel, event, form, data, is_private, place: None })
}

fn compact(json: &[u8]) -> Cow<'_, [u8]> {
    let mut compact = Vec::new();
    json::compact(json, &mut compact);
    Cow::Owned(compact)
}

impl BadMember {
    /// Appends the errors of a request: `{"NAME":[WHY]}`, below `messages` with an empty object for each
    /// message before.
    pub(crate) fn write_errors(self, out: &mut Vec<u8>) {
        let BadMember { place, name, why } = self;
        if let Some(place) = place {
            out.extend_from_slice(b"{\"messages\":[");
            out.extend_from_slice(&b"{},".repeat(place));
        }
        out.push(b'{');
        text(out, name);
        out.extend_from_slice(b":[");
        text(out, why);
        out.extend_from_slice(b"]}");
        if place.is_some() {
            out.extend_from_slice(b"]}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(place: Option<usize>, name: &'static str, why: &'static str) -> BadRequest {
        BadRequest::Member(BadMember { place, name, why })
    }

    /// Several messages in one request. What is missing or has another type is named, with its place.
    #[test]
    fn several_messages() {
        let body = r#" {"id":1, "messages": [
            {"topic":"a\u0062:c","event":"e","payload":{"x": 1.50},"private":true,"other":[]} ,
            {"payload":{},"event":"f","topic":"b","private":null}
        ]} "#;
        let names = [("ab:c", "e", r#"{"x":1.50}"#, true), ("b", "f", "{}", false)];
        let expected = names.into_iter().enumerate().map(|(place, read)| {
            let (channel, event, data, is_private) = read;
            let (channel, event) = (channel.into(), event.into());
            let (form, data) = (Form::Json, Cow::Borrowed(data.as_bytes()));
            RestBroadcast { channel, event, form, data, is_private, place: Some(place) }
        });
        let expected = expected.collect();
        assert_eq!(several(body.as_bytes()), Ok(expected));
        let good = r#"{"topic":"t","event":"e","payload":{}}"#;
        let [blank, invalid] = ["can't be blank", "is invalid"];
        for (messages, place, name, why) in [
            ("{}", None, "messages", invalid),
            ("[]", None, "messages", blank),
            ("null", None, "messages", invalid),
            (r#"[{"event":"e","payload":{}}]"#, Some(0), "topic", blank),
            (r#"[{"topic":"","event":"e","payload":{}}]"#, Some(0), "topic", blank),
            (r#"[{"topic":7,"event":"e","payload":{}}]"#, Some(0), "topic", invalid),
            (r#"[{"topic":"t","payload":{}}]"#, Some(0), "event", blank),
            (r#"[{"topic":"t","event":"e"}]"#, Some(0), "payload", blank),
            (r#"[{"topic":"t","event":"e","payload":null}]"#, Some(0), "payload", blank),
            (r#"[GOOD,{"topic":"t","event":"e","payload":[]}]"#, Some(1), "payload", invalid),
            (
                r#"[GOOD,GOOD,{"topic":"t","event":"e","payload":{},"private":"x"}]"#,
                Some(2),
                "private",
                invalid,
            ),
            ("[GOOD,7]", Some(1), "topic", blank),
        ] {
            let body = format!("{{\"messages\":{}}}", messages.replace("GOOD", good));
            assert_eq!(several(body.as_bytes()), Err(bad(place, name, why)), "{body}");
        }
        for body in ["[]", "7", "{}"] {
            assert_eq!(several(body.as_bytes()), Err(bad(None, "messages", blank)), "{body}");
        }
        for body in ["", "{", "{\"messages\":[}"] {
            assert_eq!(several(body.as_bytes()), Err(BadRequest::NotJson), "{body}");
        }
    }

    /// One message, whose topic and event are parts of the path, with JSON or bytes.
    #[test]
    fn one_message() {
        let (json, bytes) =
            (Some(&b"Application/JSON; charset=utf-8"[..]), b"application/octet-stream");
        let read = single("/room%3A1%2F%C3%A9/events/a%20b", Some("true"), json, b" [1, 2] ")
            .expect("JSON");
        assert_eq!((&*read.channel, &*read.event), ("room:1/é", "a b"));
        assert_eq!((read.form, &*read.data, read.is_private), (Form::Json, &b"[1,2]"[..], true));
        let read = single("/r/events/e", None, Some(bytes), b"\xff").expect("bytes");
        assert_eq!((read.form, &*read.data, read.is_private), (Form::Binary, &b"\xff"[..], false));
        assert_eq!(single("/r/events/e", None, None, b"{}").expect("JSON").form, Form::Json);
        for path in [
            "",
            "/",
            "/r",
            "/r/events",
            "/r/events/",
            "//events/e",
            "/r/event/e",
            "/r/events/e/",
            "/%ff/events/e",
        ] {
            assert_eq!(single(path, None, None, b"{}"), Err(BadRequest::Path), "{path}");
        }
        for (private, expected) in [("false", false), ("", false), ("true", true)] {
            let read = single("/r/events/e", Some(private), None, b"{}").expect(private);
            assert_eq!(read.is_private, expected);
        }
        let refused = single("/r/events/e", Some("1"), None, b"{}");
        assert_eq!(refused, Err(bad(None, "private", "is invalid")));
        let other = Some(&b"text/plain"[..]);
        assert_eq!(single("/r/events/e", None, other, b"{}"), Err(BadRequest::MediaType));
        assert_eq!(single("/r/events/e", None, None, b""), Err(BadRequest::NotJson));
    }

    /// Errors have the form of Supabase's server.
    #[test]
    fn errors() {
        let written = |place| {
            let mut out = Vec::new();
            BadMember { place, name: "topic", why: "is invalid" }.write_errors(&mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(written(None), r#"{"topic":["is invalid"]}"#);
        assert_eq!(written(Some(1)), r#"{"messages":[{},{"topic":["is invalid"]}]}"#);
    }
}
