//! What the server says, written as JSON text straight into the bytes to be sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_router::channels::{Form, Payload, Position, Publication};
use serde::Serialize;

use super::errors::Rejection;
use crate::hub::{About, Page, Reply, RequestId};

/// Appends the reply to the command called `request`.
pub(crate) fn reply(out: &mut Vec<u8>, request: &RequestId, reply: Reply<'_>) {
    match reply {
        Reply::Subscribed { channel, recovery } => Object::new("subscribed", out)
            .member("identifier", channel)
            .position(recovery.map(|recovery| recovery.position))
            .optional("recovered", recovery.and_then(|recovery| recovery.recovered)),
        Reply::Unsubscribed { channel } => {
            Object::new("unsubscribed", out).member("identifier", channel)
        }
        Reply::Published { channel, position } => {
            Object::new("published", out).member("identifier", channel).position(position)
        }
        Reply::History { channel, page } => {
            let object = Object::new("history", out).member("identifier", channel);
            object.position(Some(page.position)).publications(&page)
        }
        Reply::Pong { connection } => Object::new("pong", out).member("connection", connection),
        Reply::Authenticated { user, expires } => {
            Object::new("authenticated", out).member("user", user).member("expires", expires)
        }
        Reply::Serving { service } => Object::new("serving", out).member("service", service),
        Reply::Unserving { service } => Object::new("unserving", out).member("service", service),
        Reply::Response { service, payload } => {
            Object::new("response", out).member("service", service).data(payload)
        }
        Reply::Error(why) => return error(out, request, why.into()),
    }
    .end(request);
}

/// Appends that a command failed.
pub(crate) fn error(out: &mut Vec<u8>, request: &RequestId, why: Rejection<'_>) {
    let Rejection { code, message, about } = why;
    let object =
        Object::new("error", out).member("code", code.name()).member("message", message);
    match about {
        Some(About::Channel(channel)) => object.member("identifier", channel),
        Some(About::Service(service)) => object.member("service", service),
        None => object,
    }
    .end(request);
}

/// Appends a publication for a subscriber. It has its offset where there is history.
pub(crate) fn publication(out: &mut Vec<u8>, publication: &Publication) {
    let Publication { channel, position, payload, .. } = publication;
    let object = Object::new("publication", out).member("identifier", &**channel);
    object.optional("offset", position.map(|at| at.offset)).data(payload).end(&RequestId::None);
}

/// Appends that this subscriber was not sent `count` publications.
pub(crate) fn dropped(out: &mut Vec<u8>, channel: &str, count: u64) {
    let object = Object::new("dropped", out).member("identifier", channel);
    object.member("count", count).end(&RequestId::None);
}

/// Appends a request for a session that offers the service.
pub(crate) fn request(out: &mut Vec<u8>, request: &str, service: &str, payload: &Payload) {
    let object = Object::new("request", out).member("request", request);
    object.member("service", service).data(payload).end(&RequestId::None);
}

/// Appends the answer to a long poll.
pub(crate) fn poll(out: &mut Vec<u8>, channel: &str, page: &Page<'_>) {
    let object = Object::untyped("identifier", channel, out).position(Some(page.position));
    let recovered = page.recovered != Some(false);
    object.member("recovered", recovered).publications(page).end(&RequestId::None);
}

/// An object that is being written. Its keys are our own and need no escapes.
struct Object<'o>(&'o mut Vec<u8>);

impl<'o> Object<'o> {
    fn new(kind: &'static str, out: &'o mut Vec<u8>) -> Self {
        Object::untyped("type", kind, out)
    }

    fn untyped(key: &'static str, value: impl Serialize, out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Object(out).first(key, value)
    }

    fn member(self, key: &'static str, value: impl Serialize) -> Self {
        self.0.push(b',');
        self.first(key, value)
    }

    fn first(self, key: &'static str, value: impl Serialize) -> Self {
        let object = self.key(key);
        serde_json::to_writer(&mut *object.0, &value).expect("a vector takes all there is");
        object
    }

    fn key(self, key: &'static str) -> Self {
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        self
    }

    fn optional(self, key: &'static str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.member(key, value),
            None => self,
        }
    }

    fn position(self, position: Option<Position>) -> Self {
        let Some(Position { epoch, offset }) = position else { return self };
        self.0.push(b',');
        let Object(out) = self.key("position");
        Object::untyped("epoch", epoch, out).member("offset", offset).end(&RequestId::None);
        Object(out)
    }

    fn data(self, payload: &Payload) -> Self {
        self.0.push(b',');
        match payload.form {
            Form::Json => {
                let object = self.key("data");
                object.0.extend_from_slice(payload.data());
                object
            }
            Form::Binary => {
                let object = self.key("binary");
                base64(payload.data(), object.0);
                object
            }
        }
    }

    /// Publications with their offsets, oldest first, and whether there are more.
    fn publications(self, page: &Page<'_>) -> Self {
        self.0.push(b',');
        let Object(out) = self.key("publications");
        out.push(b'[');
        for (number, Publication { position, payload, .. }) in page.publications.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            let offset = position.map_or(0, |position| position.offset);
            Object::untyped("offset", offset, out).data(payload).end(&RequestId::None);
        }
        out.push(b']');
        Object(out).optional("more", page.more.then_some(true))
    }

    fn end(self, request: &RequestId) {
        let object = match request {
            RequestId::Number(number) => self.member("id", number),
            RequestId::Text(text) => self.member("id", text),
            RequestId::None => self,
        };
        object.0.push(b'}');
    }
}

/// Appends a string of JSON with these bytes in base64.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room for all of it");
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HERE: Position = Position { epoch: 2_838_102_994, offset: 17 };

    /// The answer as bytes, written behind others.
    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before".to_vec();
        write(&mut out);
        String::from_utf8(out.split_off(6)).expect("it is text")
    }

    /// The messages of the document's example, byte by byte.
    #[test]
    fn the_example_of_the_document() {
        let document = include_str!("../../../../docs/protocol.md");
        let (_, example) = document.split_once("\n## An example\n").expect("there is one");
        let said = example.lines().filter_map(|line| line.strip_prefix("< "));
        let identifier = "chat:lobby";
        let next = Position { offset: 18, ..HERE };
        let subscribed = Answer::Subscribed { identifier, position: Some(HERE), recovered: None };
        let published = Answer::Published { identifier, position: Some(next) };
        let data = Data::Json(br#"{"text":"hello"}"#);
        let written = [
            text(|out| subscribed.write(Some(&Id::Number(1)), out)),
            text(|out| published.write(Some(&Id::Number(2)), out)),
            text(|out| publication(out, identifier, Some(18), data)),
        ];
        assert_eq!(said.collect::<Vec<_>>(), written);
    }

    /// Every answer with all it can have and as little as it can have.
    #[test]
    fn every_answer() {
        let position = json!({"epoch": 2_838_102_994_u32, "offset": 17});
        let data = Data::Json(b"[1,null]");
        let identifier = "a";
        let service = "s";
        for (answer, expected) in [
            (
                Answer::Subscribed { identifier, position: None, recovered: None },
                json!({"type": "subscribed", "identifier": "a"}),
            ),
            (
                Answer::Subscribed { identifier, position: Some(HERE), recovered: Some(false) },
                json!({"type": "subscribed", "identifier": "a", "position": position,
                    "recovered": false}),
            ),
            (
                Answer::Unsubscribed { identifier },
                json!({"type": "unsubscribed", "identifier": "a"}),
            ),
            (
                Answer::Published { identifier, position: None },
                json!({"type": "published", "identifier": "a"}),
            ),
            (
                Answer::Published { identifier, position: Some(HERE) },
                json!({"type": "published", "identifier": "a", "position": position}),
            ),
            (Answer::Pong { connection: "0-7" }, json!({"type": "pong", "connection": "0-7"})),
            (
                Answer::Authenticated { user: "u", expires: None },
                json!({"type": "authenticated", "user": "u", "expires": null}),
            ),
            (
                Answer::Authenticated { user: "u", expires: Some(1_800_000_000) },
                json!({"type": "authenticated", "user": "u", "expires": 1_800_000_000}),
            ),
            (Answer::Serving { service }, json!({"type": "serving", "service": "s"})),
            (Answer::Unserving { service }, json!({"type": "unserving", "service": "s"})),
            (
                Answer::Response { service, data },
                json!({"type": "response", "service": "s", "data": [1, null]}),
            ),
            (
                Rejection::new(Code::NoHistory, "none").into(),
                json!({"type": "error", "code": "no_history", "message": "none"}),
            ),
            (
                Rejection::new(Code::TooMany, "no").about(About::Identifier("a")).into(),
                json!({"type": "error", "code": "too_many", "message": "no", "identifier": "a"}),
            ),
            (
                Rejection::new(Code::TooMany, "no").about(About::Service("s")).into(),
                json!({"type": "error", "code": "too_many", "message": "no", "service": "s"}),
            ),
        ] {
            for (id, value) in [
                (None, None),
                (Some(Id::Number(1 << 53)), Some(json!(1_u64 << 53))),
                (Some(Id::Text("\"\n".into())), Some(json!("\"\n"))),
            ] {
                let mut expected = expected.clone();
                if let Some(value) = value {
                    expected["id"] = value;
                }
                let text = text(|out| answer.write(id.as_ref(), out));
                assert_eq!(serde_json::from_str::<Value>(&text).expect(&text), expected);
            }
        }
    }

    /// What the server says of its own accord.
    #[test]
    fn what_is_no_answer() {
        let json = Data::Json(b"7");
        assert_eq!(
            text(|out| publication(out, "a", None, json)),
            r#"{"type":"publication","identifier":"a","data":7}"#
        );
        assert_eq!(
            text(|out| publication(out, "a", Some(u64::MAX), Data::Binary(b"\x00\xff"))),
            r#"{"type":"publication","identifier":"a","offset":18446744073709551615,"binary":"AP8="}"#
        );
        assert_eq!(
            text(|out| dropped(out, "a", 3)),
            r#"{"type":"dropped","identifier":"a","count":3}"#
        );
        assert_eq!(
            text(|out| request(out, "17-9", "s", json)),
            r#"{"type":"request","request":"17-9","service":"s","data":7}"#
        );
    }

    /// Publications stand in their order, and none is an empty array.
    #[test]
    fn many_publications() {
        let some = [(16, Data::Json(b"{}")), (17, Data::Binary(b"abc"))];
        assert_eq!(
            text(|out| history(out, Some(&Id::Number(0)), "a", HERE, some)),
            r#"{"type":"history","identifier":"a","position":{"epoch":2838102994,"offset":17},"publications":[{"offset":16,"data":{}},{"offset":17,"binary":"YWJj"}],"id":0}"#
        );
        assert_eq!(
            text(|out| poll(out, "a", HERE, true, [])),
            r#"{"identifier":"a","position":{"epoch":2838102994,"offset":17},"recovered":true,"publications":[]}"#
        );
    }

    /// Identifiers and sentences come through whatever is in them.
    #[test]
    fn strings_are_escaped() {
        let all: String = (0..0x300)
            .chain(0x2020..0x2030)
            .chain(0x1f600..0x1f610)
            .filter_map(char::from_u32)
            .collect();
        let text = text(|out| Answer::Unsubscribed { identifier: &all }.write(None, out));
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["identifier"], all);
        assert!(!text.contains(|c| c < ' '));
    }

    /// All lengths of the last group of base64.
    #[test]
    fn base64_is_padded() {
        for (bytes, expected) in
            [(&b""[..], r#""""#), (b"f", r#""Zg==""#), (b"fo", r#""Zm8=""#), (b"foo", r#""Zm9v""#)]
        {
            assert_eq!(text(|out| base64(bytes, out)), expected);
        }
    }
}
