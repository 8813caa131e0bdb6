//! What a message should come to, worked out on serde_json's tree. Also the oracle of a fuzz target.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value as Tree;
use serde_json::value::RawValue;

use murre_router::channels::{Payload, Start};
use murre_router::presence::{Meta, Watch};

use super::decode::{Item, Parser};
use super::errors::Code;
use crate::hub::event::Event;
use crate::hub::limits::NameLimits;
use crate::hub::{Command, ErrorCode, PresenceOptions, RequestId};

/// Any bytes: the limits, and messages that one parser reads, with a byte between them that no
/// message has.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&limits, messages)) = bytes.split_first() else { return };
    let limits = match limits {
        b'!' => NameLimits { max_name_bytes: 4, max_publication_bytes: 10 },
        _ => NameLimits { max_name_bytes: 255, max_publication_bytes: 65_536 },
    };
    let mut parser = Parser::default();
    for message in messages.split(|&byte| byte == 0xFF) {
        as_the_model(&mut parser, message, &limits);
    }
}

/// The message comes to what the model says: the same commands with the same members, or refused for
/// the same reason.
pub(crate) fn as_the_model(parser: &mut Parser, message: &[u8], limits: &NameLimits) {
    let mut expected = model(message, limits).into_iter();
    parser.read(message, limits, |item| match expected.next().expect("no more than expected") {
        Ok(given) => given.is_read(&item),
        Err(code) => assert_eq!(item.command.map_err(|rejection| rejection.code), Err(code)),
    });
    assert_eq!(expected.count(), 0, "as many as expected");
}

const BAD_NAME: Code = Code::Hub(ErrorCode::BadChannel);
const BAD_PUBLICATION: Code = Code::Hub(ErrorCode::BadPublication);

/// A command that obeys the rules, as it was given.
struct Given {
    tree: Tree,
    /// The text of `data`, without the whitespace between its tokens.
    data: Option<String>,
    /// The text of `meta` likewise, unless it is null.
    meta: Option<String>,
}

fn model(message: &[u8], limits: &NameLimits) -> Vec<Result<Given, Code>> {
    let Ok(tree) = serde_json::from_slice::<Tree>(message) else { return vec![Err(Code::BadJson)] };
    let text = str::from_utf8(message).expect("it is JSON");
    let commands: Vec<&RawValue> = match tree {
        tree if depth(&tree) > 32 => return vec![Err(Code::BadJson)],
        Tree::Array(batch) if !(1..=100).contains(&batch.len()) => {
            return vec![Err(Code::BatchTooLong)];
        }
        Tree::Array(_) => serde_json::from_str(text).expect("a batch"),
        _ => vec![serde_json::from_str(text).expect("a command")],
    };
    commands.into_iter().map(|command| Given::from(command).obeys(limits)).collect()
}

fn depth(tree: &Tree) -> usize {
    match tree {
        Tree::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Tree::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The last member counts.
impl From<&RawValue> for Given {
    fn from(command: &RawValue) -> Self {
        let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(command.get());
        let raw = |key| {
            let value = members.as_ref().ok().and_then(|members| members.get(key));
            value.map(|value| tight(value.get()))
        };
        let tree = serde_json::from_str(command.get()).expect("a part of JSON");
        let (data, meta) = (raw("data"), raw("meta").filter(|meta| meta != "null"));
        Given { tree, data, meta }
    }
}

/// Without whitespace outside strings.
fn tight(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |letter: &char| {
        in_string ^= *letter == '"' && !escaped;
        escaped = *letter == '\\' && !escaped;
        in_string || !letter.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

impl Given {
    /// The rules, in the order in which they are told to have been broken.
    fn obeys(self, limits: &NameLimits) -> Result<Given, Code> {
        let command = &self.tree;
        let member = |key: &str| command.get(key).unwrap_or(&Tree::Null);
        let wrong = |wrong: bool| wrong.then_some(Code::BadCommand);
        let name = |key| match member(key).as_str() {
            None => Some(Code::BadCommand),
            Some("") => Some(BAD_NAME),
            Some(name) if name.len() > limits.max_name_bytes => Some(BAD_NAME),
            Some(name) if name.chars().any(char::is_control) => Some(BAD_NAME),
            Some(_) => None,
        };
        let integer = |key, range: RangeInclusive<u64>| {
            let value = member(key);
            wrong(!value.is_null() && !value.as_u64().is_some_and(|n| range.contains(&n)))
        };
        let position = || {
            let position = member("position");
            let epoch = position["epoch"].as_u64().is_some_and(|epoch| epoch < 1 << 32);
            let complete = epoch && position["offset"].is_u64();
            wrong(!position.is_null() && !complete)
        };
        let fits = |text: &str| text.len() <= limits.max_publication_bytes;
        let data = || match &self.data {
            None => Some(Code::BadCommand),
            Some(data) => (!fits(data)).then_some(BAD_PUBLICATION),
        };
        let meta = || {
            let fits = self.meta.as_ref().is_none_or(|meta| fits(meta));
            (!fits).then_some(BAD_PUBLICATION)
        };
        let watch = || {
            let watch = member("presence");
            wrong(!watch.is_null() && !matches!(watch.as_str(), Some("members" | "counts")))
        };
        let hidden = || {
            let hidden = member("hidden");
            wrong(!hidden.is_null() && !hidden.is_boolean())
        };
        let event = || match member("event") {
            Tree::Null => None,
            Tree::String(event) => wrong(!is_event(event)),
            _ => Some(Code::BadCommand),
        };
        let id = member("id");
        let can_be = id.is_null()
            || id.as_u64().is_some_and(|id| id <= 1 << 53)
            || id.as_str().is_some_and(|id| id.len() <= 64);
        if !command.is_object() || !can_be {
            return Err(Code::BadCommand);
        }
        let broken = match member("action").as_str() {
            None => Some(Code::BadCommand),
            Some("subscribe") => {
                let token = member("token");
                let token = wrong(!token.is_null() && !token.is_string());
                let presence = || watch().or_else(meta).or_else(hidden);
                name("identifier").or_else(position).or(token).or_else(presence)
            }
            Some("unsubscribe") => name("identifier"),
            Some("publish") => name("identifier").or_else(data).or_else(event),
            Some("history") => name("identifier").or(integer("limit", 0..=1000)).or_else(position),
            Some("presence") => {
                name("identifier").or(integer("limit", 0..=1000)).or(integer("from", 0..=u64::MAX))
            }
            Some("presence_stats" | "presence_leave") => name("identifier"),
            Some("presence_update") => name("identifier").or_else(meta),
            Some("ping") => None,
            Some("auth") => wrong(!member("token").is_string()),
            Some("serve" | "unserve") => name("service"),
            Some("request") => name("service")
                .or(wrong(id.is_null()))
                .or(integer("timeout", 1..=60_000))
                .or_else(data),
            Some("reply") => wrong(!member("request").is_string()).or_else(|| {
                match (&self.data, member("error")) {
                    (_, Tree::Null) => data(),
                    (None, Tree::String(error)) => (!fits(error)).then_some(BAD_PUBLICATION),
                    _ => Some(Code::BadCommand),
                }
            }),
            Some(_) => Some(Code::UnknownAction),
        };
        broken.map_or(Ok(self), Err)
    }

    /// What was read has the members that were given.
    fn is_read(&self, item: &Item<'_>) {
        let member = |key: &str| self.tree.get(key).unwrap_or(&Tree::Null);
        let is_text = |key: &str, text: &str| assert_eq!(member(key).as_str(), Some(text), "{key}");
        let is_number = |key: &str, number: u64, default: u64| {
            assert_eq!(member(key).as_u64().unwrap_or(default), number, "{key}");
        };
        let starts = |start: &Start| {
            let given = member("position");
            let given = (given["epoch"].as_u64(), given["offset"].as_u64());
            let read = match start {
                Start::Head => None,
                Start::After(position) => Some((u64::from(position.epoch), position.offset)),
                Start::AfterOffset(_) => panic!("no command asks for that"),
            };
            assert_eq!(read, given.0.zip(given.1));
        };
        let is_data = |payload: &Payload| {
            assert_eq!(str::from_utf8(payload.data()).ok(), self.data.as_deref());
        };
        let is_meta = |meta: &Option<Meta>| {
            let meta = meta.as_ref().map(Meta::bytes);
            assert_eq!(meta, self.meta.as_ref().map(String::as_bytes));
        };
        let id = member("id");
        let as_text = || id.as_str().map(|id| RequestId::Text(id.into()));
        let as_id = id.as_u64().map(RequestId::Number).or_else(as_text);
        assert_eq!(item.request, as_id.unwrap_or_default());
        is_text("action", action(item.command.as_ref().expect("it obeys the rules")));
        match item.command.as_ref().expect("it obeys the rules") {
            Command::Subscribe { channel, start, token, presence } => {
                let PresenceOptions { watch, meta, is_hidden, key } = presence;
                assert!(key.is_none());
                assert_eq!(member("hidden").as_bool().unwrap_or_default(), *is_hidden);
                let watch = watch.map(|watch| match watch {
                    Watch::Members => "members",
                    Watch::Counts => "counts",
                });
                assert_eq!(member("presence").as_str(), watch);
                is_meta(meta);
                is_text("identifier", channel);
                starts(start);
                assert_eq!(member("token").as_str(), *token);
            }
            Command::Unsubscribe { channel } => is_text("identifier", channel),
            Command::Publish { channel, payload, .. } => {
                is_text("identifier", channel);
                is_data(payload);
                assert_eq!(Event::of(payload).map(Event::name), member("event").as_str());
            }
            Command::History { channel, query } => {
                is_text("identifier", channel);
                is_number("limit", query.limit.into(), 100);
                starts(&query.start);
            }
            Command::Presence { channel, query } => {
                is_text("identifier", channel);
                is_number("limit", query.limit.into(), 100);
                is_number("from", query.from, 0);
            }
            Command::PresenceStats { channel } | Command::PresenceLeave { channel } => {
                is_text("identifier", channel);
            }
            Command::PresenceUpdate { channel, meta } => {
                is_text("identifier", channel);
                is_meta(meta);
            }
            Command::Ping => {}
            Command::Authenticate { token } => is_text("token", token),
            Command::Serve { service } | Command::Unserve { service } => {
                is_text("service", service);
            }
            Command::Request { service, payload, timeout_ms } => {
                is_text("service", service);
                is_data(payload);
                is_number("timeout", (*timeout_ms).into(), 10_000);
            }
            Command::Respond { request, answer } => {
                is_text("request", request);
                match answer {
                    Ok(payload) => is_data(payload),
                    Err(error) => is_text("error", error),
                }
            }
            Command::Await { .. } | Command::Call { .. } => panic!("no message asks for that"),
        }
    }
}

fn is_event(name: &str) -> bool {
    let reserved = name.starts_with("phx_") || name.starts_with("presence_");
    (1..=255).contains(&name.len()) && !name.chars().any(char::is_control) && !reserved
}

fn action(command: &Command<'_>) -> &'static str {
    match command {
        Command::Subscribe { .. } => "subscribe",
        Command::Unsubscribe { .. } => "unsubscribe",
        Command::Publish { .. } => "publish",
        Command::History { .. } => "history",
        Command::Await { .. } | Command::Call { .. } => "",
        Command::Presence { .. } => "presence",
        Command::PresenceStats { .. } => "presence_stats",
        Command::PresenceUpdate { .. } => "presence_update",
        Command::PresenceLeave { .. } => "presence_leave",
        Command::Ping => "ping",
        Command::Authenticate { .. } => "auth",
        Command::Serve { .. } => "serve",
        Command::Unserve { .. } => "unserve",
        Command::Request { .. } => "request",
        Command::Respond { .. } => "reply",
    }
}
