//! The protocol of `/ws`, as far as the scenarios use it: docs/protocol.md. Commands are formatted as text;
//! messages are read in one pass, whatever other members they have.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use murre_codec::Kind;
use serde::{Deserialize, Serialize};

use crate::client::Context;
use crate::client::ws::Piece;
use crate::engine::score::Fault;

/// A message of the server, with the data that the scenario expects in it.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerMessage<'a, D> {
    #[serde(rename = "type", borrow, default)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) identifier: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) service: Cow<'a, str>,
    pub(crate) id: Option<u64>,
    pub(crate) offset: Option<u64>,
    pub(crate) position: Option<Position>,
    pub(crate) recovered: Option<bool>,
    pub(crate) count: Option<u64>,
    #[serde(borrow, default)]
    pub(crate) code: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    pub(crate) data: Option<D>,
}

/// Where a reader of a channel with history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: u32,
    pub(crate) offset: u64,
}

impl<'a, D: Deserialize<'a>> ServerMessage<'a, D> {
    pub(crate) fn read(text: &'a [u8]) -> serde_json::Result<ServerMessage<'a, D>> {
        serde_json::from_slice(text)
    }

    /// Reads a message. One that cannot be read ends the connection.
    pub(crate) fn parse(text: &'a [u8], ctx: &mut Context<'_>) -> Option<Self> {
        ServerMessage::read(text).map_err(|error| unreadable(text, &error, ctx)).ok()
    }

    /// Ends the connection over a message that should not have come.
    pub(crate) fn unexpected(&self, ctx: &mut Context<'_>) {
        let ServerMessage { kind, identifier, code, message, .. } = self;
        match &kind[..] {
            "error" => {
                ctx.fail(Fault::Garbled, format_args!("the server says {code}: {message}"));
            }
            "dropped" => {
                let count = self.count.unwrap_or_default();
                let detail = format_args!("{count} publications of {identifier} were dropped");
                ctx.fail(Fault::Wrong, detail);
            }
            kind => {
                let detail = format_args!("`{kind}` of `{identifier}`, which was not expected");
                ctx.fail(Fault::Garbled, detail);
            }
        }
    }
}

/// The pieces of a message that is not whole yet. Most messages come whole and are not copied.
#[derive(Default)]
pub(crate) struct MessageBuffer(
    // Boxed, so that a client without pieces has a pointer only.
    #[expect(clippy::box_collection)] Option<Box<Vec<u8>>>,
);

impl MessageBuffer {
    /// The message, once its last piece is here.
    pub(crate) fn add<'p>(&mut self, piece: &'p Piece<'_>) -> Option<Cow<'p, [u8]>> {
        if piece.end && self.0.is_none() {
            return Some(Cow::Borrowed(piece.bytes));
        }
        self.0.get_or_insert_default().extend_from_slice(piece.bytes);
        if !piece.end {
            return None;
        }
        self.0.take().map(|bytes| Cow::Owned(*bytes))
    }

    /// The same of a text; another kind of message ends the connection.
    pub(crate) fn text<'p>(
        &mut self,
        piece: &'p Piece<'_>,
        ctx: &mut Context<'_>,
    ) -> Option<Cow<'p, [u8]>> {
        if piece.kind != Kind::Text {
            ctx.fail(Fault::Garbled, "an unexpected binary message");
            return None;
        }
        self.add(piece)
    }
}

/// Ends the connection over a message that cannot be read.
pub(crate) fn unreadable(text: &[u8], error: &serde_json::Error, ctx: &mut Context<'_>) {
    let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN_BYTES)]);
    ctx.fail(Fault::Wrong, format_args!("{error} in `{shown}`"));
}

const SHOWN_BYTES: usize = 120;

// ---- commands: identifiers and services of ours need no escapes ----

pub(crate) fn subscribe(identifier: &str, position: Option<Position>) -> String {
    let Some(Position { epoch, offset }) = position else {
        return format!(r#"{{"action":"subscribe","identifier":"{identifier}"}}"#);
    };
    format!(
        r#"{{"action":"subscribe","identifier":"{identifier}","position":{{"epoch":{epoch},"offset":{offset}}}}}"#
    )
}

pub(crate) fn unsubscribe(identifier: &str) -> String {
    format!(r#"{{"action":"unsubscribe","identifier":"{identifier}"}}"#)
}

/// `data` is JSON. With an `id` it is answered.
pub(crate) fn publish(identifier: &str, data: &str, id: Option<u64>) -> String {
    let id = id.map_or(String::new(), |id| format!(r#","id":{id}"#));
    format!(r#"{{"action":"publish","identifier":"{identifier}","data":{data}{id}}}"#)
}

/// Sets what a server with `--bench` publishes by itself; a rate of 0 ends it.
pub(crate) fn feed(bytes: u32, rate: Option<f64>) -> String {
    let rate = rate.map_or(String::new(), |rate| format!(r#","rate":{rate}"#));
    format!(r#"{{"action":"feed","bytes":{bytes}{rate}}}"#)
}

/// Time since 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows each kind of message, escapes, members in another order and unknown ones.
    #[test]
    fn messages_are_read_whatever_else_they_hold() {
        type Any<'a> = ServerMessage<'a, u64>;
        let read = |text: &'static str| Any::read(text.as_bytes()).expect(text);
        let message = read(
            r#"{"id":7,"recovered":true,"more":[{}],"position":{"offset":3,"epoch":4294967295},
                "identifier":"a\"b","type":"subscribed"}"#,
        );
        assert_eq!((&message.kind[..], &message.identifier[..]), ("subscribed", "a\"b"));
        assert_eq!((message.id, message.recovered), (Some(7), Some(true)));
        assert_eq!(message.position, Some(Position { epoch: u32::MAX, offset: 3 }));
        let message = read(r#"{"type":"publication","identifier":"a","offset":9,"data":5}"#);
        assert_eq!((message.data, message.offset), (Some(5), Some(9)));
        let message = read(r#"{"type":"error","code":"too_many","message":"no \"more\""}"#);
        assert_eq!((&message.code[..], &message.message[..]), ("too_many", "no \"more\""));
        assert!(read("{}").kind.is_empty());
        for wrong in ["", "[]", r#"{"data":"5"}"#, r#"{"type":5}"#, "{}{}"] {
            assert!(Any::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    /// Shows every cut of a message in two, with an empty piece, and that one that comes whole is
    /// not copied.
    #[test]
    fn a_message_is_whole_with_its_last_piece() {
        let mut buffer = MessageBuffer::default();
        let mut text = *b"abcdef";
        let mut add = |text: &mut [u8], end| {
            let piece = Piece { kind: Kind::Text, bytes: text, end };
            let whole = buffer.add(&piece);
            whole.map(|whole| (matches!(whole, Cow::Borrowed(_)), whole.into_owned()))
        };
        assert_eq!(add(&mut text, true), Some((true, b"abcdef".to_vec())));
        for cut in 1..=6 {
            let (front, back) = text.split_at_mut(cut);
            assert_eq!(add(front, false), None);
            assert_eq!(add(&mut [], false), None);
            assert_eq!(add(back, true), Some((false, b"abcdef".to_vec())), "cut at {cut}");
        }
    }

    /// Shows what each command says, with and without what may be left out.
    #[test]
    fn commands_are_json() {
        let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect(text) };
        let position = Some(Position { epoch: 1, offset: 2 });
        let subscribed = json(&subscribe("a", position));
        assert_eq!(subscribed["position"], serde_json::json!({"epoch": 1, "offset": 2}));
        assert_eq!(subscribe("7", None), r#"{"action":"subscribe","identifier":"7"}"#);
        assert_eq!(unsubscribe("7"), r#"{"action":"unsubscribe","identifier":"7"}"#);
        assert_eq!(json(&publish("a", "[1]", Some(3)))["id"], 3);
        assert_eq!(json(&publish("a", "[1]", None))["data"][0], 1);
        assert_eq!(feed(1400, None), r#"{"action":"feed","bytes":1400}"#);
        assert_eq!(feed(170, Some(0.0)), r#"{"action":"feed","bytes":170,"rate":0}"#);
    }
}
