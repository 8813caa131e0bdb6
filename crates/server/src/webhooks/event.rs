//! Events, and their text in JSON.

use std::io::Write;

use super::filter::Kind;

/// The numbers of a connection's name: its shard, its slot and its use of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionName(pub(crate) [u32; 3]);

/// What an endpoint is told. Names borrow from the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A session has begun, of a user or of nobody. A poll is none.
    Connected { connection: ConnectionName, user: Option<&'a str> },
    /// The session of a connection has another user from now on.
    Authenticated { connection: ConnectionName, user: &'a str },
    /// A session has ended.
    Disconnected { connection: ConnectionName, user: Option<&'a str> },
    /// A connection is a member of a channel from now on.
    Joined { channel: &'a str, connection: ConnectionName, user: &'a str },
    /// A connection is a member no more.
    Left { channel: &'a str, connection: ConnectionName, user: &'a str },
    /// A channel has subscribers from now on.
    Occupied { channel: &'a str },
    /// A channel has no subscribers any more.
    Vacated { channel: &'a str },
}

impl<'a> Event<'a> {
    /// The kind, by which endpoints choose.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Event::Connected { .. } | Event::Authenticated { .. } | Event::Disconnected { .. } => {
                Kind::Connections
            }
            Event::Joined { .. } | Event::Left { .. } => Kind::Members,
            Event::Occupied { .. } | Event::Vacated { .. } => Kind::Channels,
        }
    }

    /// The channel, if it is about one.
    pub(crate) fn channel(&self) -> Option<&'a str> {
        match *self {
            Event::Joined { channel, .. }
            | Event::Left { channel, .. }
            | Event::Occupied { channel }
            | Event::Vacated { channel } => Some(channel),
            _ => None,
        }
    }

    /// Appends the event as one line: a JSON object and a line feed, which no JSON text contains.
    /// `time` is in milliseconds since 1970.
    pub(super) fn write(&self, time: u64, out: &mut Vec<u8>) {
        let name = match self {
            Event::Connected { .. } => "connected",
            Event::Authenticated { .. } => "authenticated",
            Event::Disconnected { .. } => "disconnected",
            Event::Joined { .. } => "joined",
            Event::Left { .. } => "left",
            Event::Occupied { .. } => "occupied",
            Event::Vacated { .. } => "vacated",
        };
        put(out, format_args!("{{\"event\":\"{name}\",\"time\":{time}"));
        if let Some(channel) = self.channel() {
            text(out, ",\"channel\":", channel);
        }
        let (connection, user) = match *self {
            Event::Connected { connection, user } | Event::Disconnected { connection, user } => {
                (Some(connection), user)
            }
            Event::Authenticated { connection, user }
            | Event::Joined { connection, user, .. }
            | Event::Left { connection, user, .. } => (Some(connection), Some(user)),
            Event::Occupied { .. } | Event::Vacated { .. } => (None, None),
        };
        if let Some(ConnectionName([shard, slot, generation])) = connection {
            put(out, format_args!(",\"connection\":\"{shard}-{slot}-{generation}\""));
            match user {
                Some(user) => text(out, ",\"user\":", user),
                None => out.extend_from_slice(b",\"user\":null"),
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all that is written to it");
}

fn text(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    serde_json::to_writer(out, value).expect("a text becomes JSON");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Each event is one line of JSON, whatever its names are.
    #[test]
    fn events_are_lines() {
        let connection = ConnectionName([2, 5, 77]);
        for name in ["ann", "__proto__", "a\"\\\u{7f}\n\u{2028}é\u{1f426}"] {
            let (channel, user) = (name, name);
            for (event, expected) in [
                (
                    Event::Connected { connection, user: None },
                    json!({"event": "connected", "connection": "2-5-77", "user": null}),
                ),
                (
                    Event::Connected { connection, user: Some(user) },
                    json!({"event": "connected", "connection": "2-5-77", "user": name}),
                ),
                (
                    Event::Authenticated { connection, user },
                    json!({"event": "authenticated", "connection": "2-5-77", "user": name}),
                ),
                (
                    Event::Disconnected { connection, user: Some(user) },
                    json!({"event": "disconnected", "connection": "2-5-77", "user": name}),
                ),
                (
                    Event::Joined { channel, connection, user },
                    json!({"event": "joined", "channel": name, "connection": "2-5-77", "user": name}),
                ),
                (
                    Event::Left { channel, connection, user },
                    json!({"event": "left", "channel": name, "connection": "2-5-77", "user": name}),
                ),
                (Event::Occupied { channel }, json!({"event": "occupied", "channel": name})),
                (Event::Vacated { channel }, json!({"event": "vacated", "channel": name})),
            ] {
                let mut line = Vec::new();
                event.write(1234, &mut line);
                assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                let mut value: Value = serde_json::from_slice(&line).expect("JSON");
                assert_eq!(value["time"].take(), 1234);
                value.as_object_mut().expect("an object").remove("time");
                assert_eq!(value, expected);
            }
        }
    }
}
