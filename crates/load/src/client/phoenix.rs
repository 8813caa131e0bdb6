//! The protocol of Phoenix clients, version 2, as far as the scenarios use it: docs/phoenix.md. Each message
//! is an array of five; refs are decimal numbers.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::Context;
use crate::client::channel::unreadable;

/// A message of the server.
#[derive(Debug, Deserialize)]
pub(crate) struct PhoenixMessage<'a> {
    #[serde(borrow)]
    pub(crate) join_ref: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) reference: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) topic: &'a str,
    #[serde(borrow)]
    pub(crate) event: &'a str,
    #[serde(borrow)]
    pub(crate) payload: &'a RawValue,
}

/// The payload of a reply.
#[derive(Debug, Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    status: &'a str,
}

impl<'a> PhoenixMessage<'a> {
    pub(crate) fn read(text: &'a [u8]) -> serde_json::Result<PhoenixMessage<'a>> {
        serde_json::from_slice(text)
    }

    /// Reads a message. One that cannot be read ends the connection.
    pub(crate) fn parse(text: &'a [u8], ctx: &mut Context<'_>) -> Option<Self> {
        PhoenixMessage::read(text).map_err(|error| unreadable(text, &error, ctx)).ok()
    }

    /// Whether this is the reply `ok` to the message with these refs.
    pub(crate) fn is_ok(&self, join_ref: Option<&str>, reference: u32, topic: &str) -> bool {
        let replies = self.event == "phx_reply"
            && self.join_ref == join_ref
            && self.reference.and_then(|text| text.parse().ok()) == Some(reference)
            && self.topic == topic;
        let status = serde_json::from_str::<Reply<'_>>(self.payload.get());
        replies && status.is_ok_and(|reply| reply.status == "ok")
    }
}

// ---- messages: topics and tokens of ours need no escapes ----

/// The ref of a join, and of its channel from then on.
pub(crate) const JOIN_REF: u32 = 1;

pub(crate) fn join(topic: &str, token: Option<&str>) -> String {
    let payload = token.map_or(String::new(), |token| format!(r#""token":"{token}""#));
    format!(r#"["{JOIN_REF}","{JOIN_REF}","{topic}","phx_join",{{{payload}}}]"#)
}

pub(crate) fn heartbeat(reference: u32) -> String {
    format!(r#"[null,"{reference}","{HEARTBEAT_TOPIC}","heartbeat",{{}}]"#)
}

pub(crate) const HEARTBEAT_TOPIC: &str = "phoenix";

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that the reply must be to the message, about its topic, and `ok`, in whichever order Phoenix
    /// and others write its members.
    #[test]
    fn a_reply_is_to_one_message() {
        let is_ok = |text: &str, join_ref, reference, topic| {
            let message = PhoenixMessage::read(text.as_bytes()).expect(text);
            message.is_ok(join_ref, reference, topic)
        };
        let beat = r#"[null,"7","phoenix","phx_reply",{"response":{},"status":"ok"}]"#;
        assert!(is_ok(beat, None, 7, "phoenix"));
        assert!(is_ok(&beat.replace("\"ok\"", "\"ok\",\"more\":1"), None, 7, "phoenix"));
        for wrong in [
            beat.replace("null", "\"1\""),
            beat.replace('7', "8"),
            beat.replace("\"phoenix\"", "\"room\""),
            beat.replace("phx_reply", "phx_close"),
            beat.replace("\"ok\"", "\"error\""),
        ] {
            assert!(!is_ok(&wrong, None, 7, "phoenix"), "{wrong}");
        }
        let joined = r#"["1","1","room:5","phx_reply",{"status":"ok","response":{}}]"#;
        assert!(is_ok(joined, Some("1"), 1, "room:5"));
        for unreadable in ["{}", "[null,null,\"a\",\"b\"]", "[1,2,3,4,5]", ""] {
            assert!(PhoenixMessage::read(unreadable.as_bytes()).is_err(), "{unreadable}");
        }
    }

    /// Shows what is sent.
    #[test]
    fn messages_are_arrays_of_five() {
        assert_eq!(join("room:5", None), r#"["1","1","room:5","phx_join",{}]"#);
        assert_eq!(join("a", Some("t.k")), r#"["1","1","a","phx_join",{"token":"t.k"}]"#);
        assert_eq!(heartbeat(9), r#"[null,"9","phoenix","heartbeat",{}]"#);
    }
}
