//! Encodes replies and pushes as JSON text, directly into a buffer.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_router::channels::{Form, Payload, Position, Publication};
use murre_router::presence::{Changes, Count, News, PresentMember};
use serde::Serialize;

use super::errors::WireError;
use crate::hub::event::Event;
use crate::hub::member_names::MemberName;
use crate::hub::presence::connection_of;
use crate::hub::{About, Error, Page, Reply, RequestId};

/// Appends the reply to the command called `request`.
pub(crate) fn reply(out: &mut Vec<u8>, request: &RequestId, reply: Reply<'_>) {
    match reply {
        Reply::Subscribed { channel, recovery, data } => {
            let object = Object::new("subscribed", out).member("identifier", channel);
            let object = object.position(recovery.map(|recovery| recovery.position));
            let object =
                object.optional("recovered", recovery.and_then(|recovery| recovery.recovered));
            match data {
                Some(data) => object.data(data),
                None => object,
            }
        }
        Reply::Renewed { channel } => {
            Object::new("subscribed", out).member("identifier", channel).member("renewed", true)
        }
        Reply::Unsubscribed { channel } => {
            Object::new("unsubscribed", out).member("identifier", channel)
        }
        Reply::Published { channel, position } => {
            Object::new("published", out).member("identifier", channel).position(position)
        }
        Reply::History { channel, page } => {
            let object = Object::new("history", out).member("identifier", channel);
            let object = object.position(Some(page.position));
            object.optional("recovered", page.recovered).publications(&page)
        }
        Reply::Presence { channel, page } => {
            let object = Object::new("presence", out).member("identifier", channel);
            let object = object.count(page.count).members("members", &page.members);
            object.optional("next", page.next).unanswered(page)
        }
        Reply::PresenceStats { channel, page } => {
            let object = Object::new("presence_stats", out).member("identifier", channel);
            object.count(page.count).unanswered(page)
        }
        Reply::PresenceUpdated { channel } => {
            Object::new("presence_updated", out).member("identifier", channel)
        }
        Reply::PresenceLeft { channel } => {
            Object::new("presence_left", out).member("identifier", channel)
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
pub(crate) fn error(out: &mut Vec<u8>, request: &RequestId, why: WireError<'_>) {
    let WireError { code, message, about } = why;
    let object = Object::new("error", out).member("code", code.name()).member("message", message);
    match about {
        Some(About::Channel(channel)) => object.member("identifier", channel),
        Some(About::Service(service)) => object.member("service", service),
        None => object,
    }
    .end(request);
}

/// Appends what the application says to a session that has begun.
pub(crate) fn connected(out: &mut Vec<u8>, data: &Payload) {
    Object::new("connected", out).data(data).end(&RequestId::None);
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

/// Appends that the server has ended a subscription.
pub(crate) fn unsubscribed(out: &mut Vec<u8>, channel: &str, why: Error<'_>) {
    let WireError { code, message, .. } = why.into();
    let object = Object::new("unsubscribed", out).member("identifier", channel);
    object.member("code", code.name()).member("message", message).end(&RequestId::None);
}

/// Appends what a watcher of a channel is told of its members.
pub(crate) fn news(out: &mut Vec<u8>, channel: &str, news: &News) {
    match news {
        News::Members(members) => Object::new("presence_state", out)
            .member("identifier", channel)
            .members("members", members),
        News::Changes(changes) => {
            let Changes { joins, leaves } = &**changes;
            let object = Object::new("presence_diff", out).member("identifier", channel);
            object.members("joins", joins).gone("leaves", joins, leaves)
        }
        News::Count(count) => {
            Object::new("presence_count", out).member("identifier", channel).count(*count)
        }
    }
    .end(&RequestId::None);
}

/// The name of a message of [`news`].
pub(crate) fn name_of_news(news: &News) -> &'static str {
    match news {
        News::Members(_) => "presence_state",
        News::Changes(_) => "presence_diff",
        News::Count(_) => "presence_count",
    }
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

    /// The nodes that did not answer, if there are some.
    fn unanswered(self, page: &murre_router::presence::PresencePage) -> Self {
        let some = (!page.unanswered.is_empty()).then_some(&page.unanswered);
        self.optional("unanswered", some)
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
                match Event::of(payload) {
                    None => object.0.extend_from_slice(payload.data()),
                    Some(event) => {
                        let Object(out) = Object::untyped("event", event.name(), object.0);
                        out.extend_from_slice(b",\"payload\":");
                        out.extend_from_slice(payload.data());
                        out.push(b'}');
                    }
                }
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
        for (number, Publication { position, payload, .. }) in page.publications.iter().enumerate()
        {
            if number > 0 {
                out.push(b',');
            }
            let offset = position.map_or(0, |position| position.offset);
            Object::untyped("offset", offset, out).data(payload).end(&RequestId::None);
        }
        out.push(b']');
        Object(out).optional("more", page.more.then_some(true))
    }

    fn count(self, count: Count) -> Self {
        self.member("clients", count.clients).member("users", count.users)
    }

    /// Members with their metadata.
    fn members(self, key: &'static str, members: &[PresentMember]) -> Self {
        self.array(key, members.iter(), |member, out| {
            let object = Object::of_member(member, out);
            if let Some(meta) = &member.meta {
                object.0.extend_from_slice(b",\"meta\":");
                object.0.extend_from_slice(meta.bytes());
            }
            object.end(&RequestId::None);
        })
    }

    /// Members that are gone. An update is a join alone.
    fn gone(self, key: &'static str, joins: &[PresentMember], leaves: &[PresentMember]) -> Self {
        let stay: HashSet<_> = joins.iter().map(|join| (join.node, join.origin)).collect();
        let gone = leaves.iter().filter(|leave| !stay.contains(&(leave.node, leave.origin)));
        self.array(key, gone, |member, out| Object::of_member(member, out).end(&RequestId::None))
    }

    fn of_member(member: &PresentMember, out: &'o mut Vec<u8>) -> Self {
        let connection = connection_of(member.node, member.origin);
        let named = match MemberName::of(&member.user) {
            MemberName::User(user) => Object::untyped("user", user, out),
            MemberName::Key(key) => Object::untyped("key", key, out),
        };
        named.member("connection", connection)
    }

    fn array<'m>(
        self,
        key: &'static str,
        members: impl Iterator<Item = &'m PresentMember>,
        write: impl Fn(&PresentMember, &mut Vec<u8>),
    ) -> Self {
        self.0.push(b',');
        let Object(out) = self.key(key);
        out.push(b'[');
        for (number, member) in members.enumerate() {
            if number > 0 {
                out.push(b',');
            }
            write(member, out);
        }
        out.push(b']');
        Object(out)
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
    use std::sync::Arc;

    use murre_router::channels::{Origin, Recovery};
    use murre_router::presence::{Meta, PresencePage};
    use serde_json::{Value, json};

    use super::super::errors::Code;
    use super::*;
    use crate::hub::{Error, ErrorCode};

    const HERE: Position = Position { epoch: 2_838_102_994, offset: 17 };

    /// What is appended behind other bytes.
    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before".to_vec();
        write(&mut out);
        String::from_utf8(out.split_off(6)).expect("it is text")
    }

    fn published(offset: Option<u64>, payload: Payload) -> Publication {
        let position = offset.map(|offset| Position { offset, ..HERE });
        Publication { channel: Arc::from("chat:lobby"), position, payload, except: None }
    }

    fn json_payload(text: &str) -> Payload {
        Payload::new(Form::Json, text.as_bytes())
    }

    fn binary_payload(bytes: &[u8]) -> Payload {
        Payload::new(Form::Binary, bytes)
    }

    /// The messages of the document's example, byte by byte.
    #[test]
    fn the_example_of_the_document() {
        let document = include_str!("../../../../../docs/protocol.md");
        let (_, example) = document.split_once("\n## An example\n").expect("there is one");
        let said = example.lines().filter_map(|line| line.strip_prefix("< "));
        let channel = "chat:lobby";
        let recovery = Some(Recovery { position: HERE, recovered: None });
        let next = Position { offset: 18, ..HERE };
        let written = [
            text(|out| {
                let reply = Reply::Subscribed { channel, recovery, data: None };
                self::reply(out, &RequestId::Number(1), reply);
            }),
            text(|out| {
                let position = Some(next);
                reply(out, &RequestId::Number(2), Reply::Published { channel, position });
            }),
            text(|out| {
                publication(out, &published(Some(18), json_payload(r#"{"text":"hello"}"#)));
            }),
        ];
        assert_eq!(said.collect::<Vec<_>>(), written);
    }

    /// Every reply with all it can have and as little as it can have.
    #[test]
    fn every_reply() {
        let position = json!({"epoch": 2_838_102_994_u32, "offset": 17});
        let payload = &json_payload("[1,null]");
        let (channel, service) = ("a", "s");
        let error = |code: ErrorCode| Reply::Error(code.into());
        let sentence = |code| Code::Hub(code).sentence();
        let recovery = Some(Recovery { position: HERE, recovered: Some(false) });
        for (answer, expected) in [
            (
                Reply::Subscribed { channel, recovery: None, data: None },
                json!({"type": "subscribed", "identifier": "a"}),
            ),
            (
                Reply::Subscribed { channel, recovery, data: Some(payload) },
                json!({"type": "subscribed", "identifier": "a", "position": position,
                    "recovered": false, "data": [1, null]}),
            ),
            (Reply::Unsubscribed { channel }, json!({"type": "unsubscribed", "identifier": "a"})),
            (
                Reply::Published { channel, position: None },
                json!({"type": "published", "identifier": "a"}),
            ),
            (
                Reply::Published { channel, position: Some(HERE) },
                json!({"type": "published", "identifier": "a", "position": position}),
            ),
            (Reply::Pong { connection: "0-7" }, json!({"type": "pong", "connection": "0-7"})),
            (
                Reply::Authenticated { user: "u", expires: None },
                json!({"type": "authenticated", "user": "u", "expires": null}),
            ),
            (
                Reply::Authenticated { user: "u", expires: Some(1_800_000_000) },
                json!({"type": "authenticated", "user": "u", "expires": 1_800_000_000}),
            ),
            (Reply::Serving { service }, json!({"type": "serving", "service": "s"})),
            (Reply::Unserving { service }, json!({"type": "unserving", "service": "s"})),
            (
                Reply::Response { service, payload },
                json!({"type": "response", "service": "s", "data": [1, null]}),
            ),
            (
                error(ErrorCode::NoHistory),
                json!({"type": "error", "code": "no_history",
                    "message": sentence(ErrorCode::NoHistory)}),
            ),
            (
                Reply::Error(Error::from(ErrorCode::TooMany).about(About::Channel("a"))),
                json!({"type": "error", "code": "too_many",
                    "message": sentence(ErrorCode::TooMany), "identifier": "a"}),
            ),
            (
                Reply::Error(Error {
                    code: ErrorCode::ResponderFailed,
                    detail: Some("out of \"eggs\""),
                    about: Some(About::Service("s")),
                }),
                json!({"type": "error", "code": "responder_failed",
                    "message": "out of \"eggs\"", "service": "s"}),
            ),
        ] {
            for (id, value) in [
                (RequestId::None, None),
                (RequestId::Number(1 << 53), Some(json!(1_u64 << 53))),
                (RequestId::Text("\"\n".into()), Some(json!("\"\n"))),
            ] {
                let mut expected = expected.clone();
                if let Some(value) = value {
                    expected["id"] = value;
                }
                let text = text(|out| reply(out, &id, answer));
                assert_eq!(serde_json::from_str::<Value>(&text).expect(&text), expected);
            }
        }
    }

    /// What the server says of its own accord.
    #[test]
    fn pushes() {
        assert_eq!(
            text(|out| publication(out, &published(None, json_payload("7")))),
            r#"{"type":"publication","identifier":"chat:lobby","data":7}"#
        );
        assert_eq!(
            text(|out| publication(out, &published(Some(u64::MAX), binary_payload(b"\x00\xff")))),
            r#"{"type":"publication","identifier":"chat:lobby","offset":18446744073709551615,"binary":"AP8="}"#
        );
        assert_eq!(
            text(|out| dropped(out, "a", 3)),
            r#"{"type":"dropped","identifier":"a","count":3}"#
        );
        assert_eq!(
            text(|out| request(out, "17-9", "s", &json_payload("7"))),
            r#"{"type":"request","request":"17-9","service":"s","data":7}"#
        );
    }

    /// Members of any name, with their metadata as it was given; an update is a join alone.
    #[test]
    fn members_and_counts() {
        let member = |origin, user: &str, meta: Option<&[u8]>| PresentMember {
            node: 0,
            origin: Origin(origin),
            stamp: 1,
            replaces: 0,
            user: user.into(),
            meta: meta.map(Meta::new),
        };
        let some = [member(1 << 48 | 2 << 24 | 3, "__proto__", Some(b"{}")), member(7, "\"", None)];
        let one = r#"{"user":"__proto__","connection":"1-2-3","meta":{}}"#;
        let other = r#"{"user":"\"","connection":"0-0-7"}"#;
        let count = Count { clients: 2, users: u64::MAX };
        let page = PresencePage {
            count,
            members: some.to_vec(),
            next: Some(u32::MAX.into()),
            unanswered: vec![],
        };
        let channel = "a";
        let written = |answer| text(|out| reply(out, &RequestId::Number(1), answer));
        assert_eq!(
            written(Reply::Presence { channel, page: &page }),
            format!(
                r#"{{"type":"presence","identifier":"a","clients":2,"users":18446744073709551615,"members":[{one},{other}],"next":4294967295,"id":1}}"#
            )
        );
        assert_eq!(
            written(Reply::PresenceStats { channel, page: &page }),
            r#"{"type":"presence_stats","identifier":"a","clients":2,"users":18446744073709551615,"id":1}"#
        );
        assert_eq!(
            written(Reply::PresenceUpdated { channel }),
            r#"{"type":"presence_updated","identifier":"a","id":1}"#
        );
        assert_eq!(
            written(Reply::PresenceLeft { channel }),
            r#"{"type":"presence_left","identifier":"a","id":1}"#
        );
        let leaves =
            vec![member(1 << 48 | 2 << 24 | 3, "__proto__", Some(b"1")), member(8, "", None)];
        let changes = Changes { joins: some.to_vec(), leaves };
        for (told, expected) in [
            (
                News::Members(some.into()),
                format!(
                    r#"{{"type":"presence_state","identifier":"a","members":[{one},{other}]}}"#
                ),
            ),
            (
                News::Changes(changes.into()),
                format!(
                    r#"{{"type":"presence_diff","identifier":"a","joins":[{one},{other}],"leaves":[{{"user":"","connection":"0-0-8"}}]}}"#
                ),
            ),
            (
                News::Count(Count::default()),
                r#"{"type":"presence_count","identifier":"a","clients":0,"users":0}"#.to_owned(),
            ),
        ] {
            assert_eq!(text(|out| news(out, channel, &told)), expected);
            assert!(expected.contains(name_of_news(&told)));
        }
    }

    /// Side data about the publisher is no part of the data.
    #[test]
    fn side_data_stays_here() {
        let payload = Payload { side_len: 4, ..json_payload("side[7]") };
        assert_eq!(
            text(|out| publication(out, &published(None, payload))),
            r#"{"type":"publication","identifier":"chat:lobby","data":[7]}"#
        );
    }

    /// The data of a publication with an event has both; a binary one has its bytes alone.
    #[test]
    fn events_are_in_the_data() {
        let event = Event::new("new \"msg\"").expect("an event");
        for (form, data, expected) in [
            (Form::Json, "{}", r#""data":{"event":"new \"msg\"","payload":{}}}"#),
            (Form::Json, "7", r#""data":{"event":"new \"msg\"","payload":7}}"#),
            (Form::Binary, "abc", r#""binary":"YWJj"}"#),
        ] {
            let payload = event.payload(form, data.as_bytes());
            assert_eq!(
                text(|out| publication(out, &published(None, payload))),
                format!(r#"{{"type":"publication","identifier":"chat:lobby",{expected}"#)
            );
        }
    }

    /// Publications are in their order, none is an empty array, and more of them are told of.
    #[test]
    fn many_publications() {
        let some =
            [published(Some(16), json_payload("{}")), published(Some(17), binary_payload(b"abc"))];
        let page = Page { position: HERE, recovered: None, publications: &some, more: true };
        assert_eq!(
            text(|out| reply(out, &RequestId::Number(0), Reply::History { channel: "a", page })),
            r#"{"type":"history","identifier":"a","position":{"epoch":2838102994,"offset":17},"publications":[{"offset":16,"data":{}},{"offset":17,"binary":"YWJj"}],"more":true,"id":0}"#
        );
        let page = Page { publications: &[], more: false, recovered: Some(false), ..page };
        assert_eq!(
            text(|out| reply(out, &RequestId::None, Reply::History { channel: "a", page })),
            r#"{"type":"history","identifier":"a","position":{"epoch":2838102994,"offset":17},"recovered":false,"publications":[]}"#
        );
        for (recovered, told) in [(None, true), (Some(true), true), (Some(false), false)] {
            let page = Page { recovered, ..page };
            assert_eq!(
                text(|out| poll(out, "a", &page)),
                format!(
                    r#"{{"identifier":"a","position":{{"epoch":2838102994,"offset":17}},"recovered":{told},"publications":[]}}"#
                )
            );
        }
    }

    /// Names and sentences come through whatever is in them.
    #[test]
    fn strings_are_escaped() {
        let all: String = (0..0x300)
            .chain(0x2020..0x2030)
            .chain(0x1f600..0x1f610)
            .filter_map(char::from_u32)
            .collect();
        let unsubscribed = Reply::Unsubscribed { channel: &all };
        let text = text(|out| reply(out, &RequestId::None, unsubscribed));
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
