//! The messages of `murre.v1` about members: docs/protocol.md.

use std::borrow::Cow;

use serde::Deserialize;

use super::Watch;
use crate::client::users::connection_of;

/// A message of the server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) identifier: Cow<'a, str>,
    pub(super) id: Option<u64>,
    #[serde(borrow)]
    pub(super) message: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) members: Vec<Member<'a>>,
    #[serde(borrow)]
    pub(super) joins: Vec<Member<'a>>,
    #[serde(borrow)]
    pub(super) leaves: Vec<Member<'a>>,
    pub(super) clients: u64,
    pub(super) users: u64,
}

/// A member of a channel.
#[derive(Debug, Deserialize)]
pub(super) struct Member<'a> {
    #[serde(borrow)]
    pub(super) user: &'a str,
    #[serde(borrow)]
    pub(super) connection: &'a str,
    /// The number of its join. Leaves have none.
    #[serde(default)]
    pub(super) meta: Option<u32>,
}

impl Member<'_> {
    /// The number of the connection of this user.
    pub(super) fn number(&self) -> Option<u32> {
        connection_of(self.user)
    }
}

pub(super) fn channel_name(number: u32) -> String {
    format!("room:{number}")
}

// ---- commands: nothing in them needs escapes ----

/// The first command of a connection, in one batch with its first join.
pub(super) fn authenticate(token: &str, join: &str) -> String {
    format!(r#"[{{"action":"auth","token":"{token}"}},{join}]"#)
}

/// Joins with its number as metadata.
pub(super) fn join(channel: u32, number: u32, watch: Option<Watch>) -> String {
    let watch = match watch {
        Some(Watch::Members) => r#","presence":"members""#,
        Some(Watch::Counts) => r#","presence":"counts""#,
        None => "",
    };
    let channel = channel_name(channel);
    format!(
        r#"{{"action":"subscribe","identifier":"{channel}","meta":{number},"id":{number}{watch}}}"#
    )
}

pub(super) fn leave(channel: u32, number: u32) -> String {
    let channel = channel_name(channel);
    format!(r#"{{"action":"unsubscribe","identifier":"{channel}","id":{number}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that commands are JSON, and which members of messages are read.
    #[test]
    fn members_are_read() {
        for watch in [None, Some(Watch::Members), Some(Watch::Counts)] {
            let text = authenticate("a.b", &join(3, 7, watch));
            let batch: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert_eq!((&batch[1]["identifier"], &batch[1]["meta"]), (&"room:3".into(), &7.into()));
            assert_eq!(batch[1]["presence"].is_null(), watch.is_none());
        }
        assert!(leave(3, 7).contains(r#""unsubscribe","identifier":"room:3","id":7"#));
        let text = r#"{"type":"presence_diff","identifier":"room:3","joins":[{"user":"user-5",
            "connection":"0-1-2","meta":9}],"leaves":[{"user":"else","connection":"0"}]}"#;
        let Message { joins, leaves, .. } = serde_json::from_str(text).expect("it can be read");
        assert_eq!((joins[0].number(), joins[0].meta), (Some(5), Some(9)));
        assert_eq!((leaves[0].number(), leaves[0].meta), (None, None));
    }
}
