//! What the server says, written as JSON text straight into the bytes to be sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Position;
use super::code::Code;
use super::command::{About, Id, Rejection};

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    Subscribed { identifier: &'a str, position: Option<Position>, recovered: Option<bool> },
    Unsubscribed { identifier: &'a str },
    Published { identifier: &'a str, position: Option<Position> },
    Pong { connection: &'a str },
    Authenticated { user: &'a str, expires: Option<u64> },
    Serving { service: &'a str },
    Unserving { service: &'a str },
    Response { service: &'a str, data: Data<'a> },
    Error { code: Code, message: &'a str, about: Option<About<'a>> },
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data<'a> {
    /// JSON text.
    Json(&'a [u8]),
    /// Bytes, which stand in base64.
    Binary(&'a [u8]),
}

impl Answer<'_> {
    /// Appends the answer to the command called `id`.
    pub(crate) fn write(self, id: Option<&Id>, out: &mut Vec<u8>) {
        match self {
            Answer::Subscribed { identifier, position, recovered } => {
                Object::new("subscribed", out)
                    .member("identifier", identifier)
                    .position(position)
                    .optional("recovered", recovered)
            }
            Answer::Unsubscribed { identifier } => {
                Object::new("unsubscribed", out).member("identifier", identifier)
            }
            Answer::Published { identifier, position } => {
                Object::new("published", out).member("identifier", identifier).position(position)
            }
            Answer::Pong { connection } => {
                Object::new("pong", out).member("connection", connection)
            }
            Answer::Authenticated { user, expires } => {
                Object::new("authenticated", out).member("user", user).member("expires", expires)
            }
            Answer::Serving { service } => Object::new("serving", out).member("service", service),
            Answer::Unserving { service } => {
                Object::new("unserving", out).member("service", service)
            }
            Answer::Response { service, data } => {
                Object::new("response", out).member("service", service).data(data)
            }
            Answer::Error { code, message, about } => {
                let object = Object::new("error", out)
                    .member("code", code.name())
                    .member("message", message);
                match about {
                    Some(About::Identifier(identifier)) => object.member("identifier", identifier),
                    Some(About::Service(service)) => object.member("service", service),
                    None => object,
                }
            }
        }
        .end(id);
    }
}

impl<'a> From<Rejection<'a>> for Answer<'a> {
    fn from(Rejection { code, message, about }: Rejection<'a>) -> Self {
        Answer::Error { code, message, about }
    }
}

/// Appends a publication for a subscriber. It has its offset where there is history.
pub(crate) fn publication(
    out: &mut Vec<u8>,
    identifier: &str,
    offset: Option<u64>,
    data: Data<'_>,
) {
    let object = Object::new("publication", out).member("identifier", identifier);
    object.optional("offset", offset).data(data).end(None);
}

/// Appends that this subscriber was not sent `count` publications.
pub(crate) fn dropped(out: &mut Vec<u8>, identifier: &str, count: u64) {
    let object = Object::new("dropped", out).member("identifier", identifier);
    object.member("count", count).end(None);
}

/// Appends a request for one who offers the service.
pub(crate) fn request(out: &mut Vec<u8>, request: &str, service: &str, data: Data<'_>) {
    let object = Object::new("request", out).member("request", request);
    object.member("service", service).data(data).end(None);
}

/// Appends the answer to `history`: publications with their offsets, oldest first.
pub(crate) fn history<'a>(
    out: &mut Vec<u8>,
    id: Option<&Id>,
    identifier: &str,
    position: Position,
    publications: impl IntoIterator<Item = (u64, Data<'a>)>,
) {
    let object = Object::new("history", out).member("identifier", identifier);
    object.position(Some(position)).publications(publications).end(id);
}

/// Appends the answer to a long poll.
pub(crate) fn poll<'a>(
    out: &mut Vec<u8>,
    identifier: &str,
    position: Position,
    recovered: bool,
    publications: impl IntoIterator<Item = (u64, Data<'a>)>,
) {
    let object = Object::untyped("identifier", identifier, out).position(Some(position));
    object.member("recovered", recovered).publications(publications).end(None);
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
        Object::untyped("epoch", epoch, out).member("offset", offset).end(None);
        Object(out)
    }

    fn data(self, data: Data<'_>) -> Self {
        self.0.push(b',');
        match data {
            Data::Json(text) => {
                let object = self.key("data");
                object.0.extend_from_slice(text);
                object
            }
            Data::Binary(bytes) => {
                let object = self.key("binary");
                base64(bytes, object.0);
                object
            }
        }
    }

    fn publications<'a>(self, publications: impl IntoIterator<Item = (u64, Data<'a>)>) -> Self {
        self.0.push(b',');
        let Object(out) = self.key("publications");
        out.push(b'[');
        let first = out.len();
        for (offset, data) in publications {
            if out.len() > first {
                out.push(b',');
            }
            Object::untyped("offset", offset, out).data(data).end(None);
        }
        out.push(b']');
        Object(out)
    }

    fn end(self, id: Option<&Id>) {
        let object = match id {
            Some(Id::Number(number)) => self.member("id", number),
            Some(Id::Text(text)) => self.member("id", text),
            None => self,
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
