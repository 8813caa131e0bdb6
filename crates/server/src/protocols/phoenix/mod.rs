//! Phoenix Channels, the protocol of docs/phoenix.md, in versions 1 and 2.
//!
//! A client joins *topics*, which are channels. Each join has a *join ref*, which tells it from
//! earlier joins of the same topic on the same connection, and each message has a *ref*, which its
//! reply repeats.
//!
//! Sources: `phoenixframework/phoenix` 1.8 (`lib/phoenix/socket.ex`, `lib/phoenix/socket/serializers`),
//! and the clients `phoenix` (npm), SwiftPhoenixClient and JavaPhoenixClient, whose parsers accept less
//! than JSON.

pub(crate) mod binary;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod errors;
pub(crate) mod joins;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod known_clients;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle;
pub(crate) mod presence;
pub(crate) mod refs;
pub(crate) mod rest;
pub(crate) mod supabase;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// The subprotocol of its WebSockets (RFC 6455 section 1.9).
pub(crate) const SUBPROTOCOL: &str = "phoenix";
/// The subprotocol that carries a token: this prefix, then the token in base64 without padding.
pub(crate) const TOKEN_SUBPROTOCOL: &str = "base64url.bearer.phx.";

/// The version of the protocol, and whether a message may be binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Version 1: objects. All messages are text.
    V1,
    /// Version 2: arrays, and binary messages.
    V2,
    /// Version 2 for a transport of text: a long poll.
    V2Text,
    /// Version 1 with the additions of Supabase.
    SupabaseV1,
    /// Version 2 with the additions of Supabase.
    SupabaseV2,
}

impl Dialect {
    /// Whether messages are objects: version 1.
    pub(crate) fn is_v1(self) -> bool {
        matches!(self, Dialect::V1 | Dialect::SupabaseV1)
    }

    /// Whether a message may be binary.
    pub(crate) fn has_binary(self) -> bool {
        matches!(self, Dialect::V2 | Dialect::SupabaseV2)
    }

    /// Whether the client is one of Supabase.
    pub(crate) fn is_supabase(self) -> bool {
        matches!(self, Dialect::SupabaseV1 | Dialect::SupabaseV2)
    }

    /// The same version with the additions of Supabase.
    pub(crate) fn with_supabase(self) -> Self {
        if self.is_v1() { Dialect::SupabaseV1 } else { Dialect::SupabaseV2 }
    }

    /// The channel of a topic; `None` for a topic that no channel can have.
    pub(crate) fn channel(self, topic: &str) -> Option<&str> {
        match self.is_supabase() {
            // A topic fits the length of a binary message.
            true => topic.strip_prefix(supabase::TOPIC_PREFIX).filter(|_| topic.len() <= 255),
            false => Some(topic),
        }
    }

    /// The topic of a channel.
    pub(crate) fn topic(self, channel: &str) -> Cow<'_, str> {
        match self.is_supabase() {
            true => format!("{}{channel}", supabase::TOPIC_PREFIX).into(),
            false => channel.into(),
        }
    }

    /// The dialect of a `vsn` parameter over WebSocket: `1.0.x` or `2.0.x`, and version 1 without the
    /// parameter.
    pub(crate) fn of_version(vsn: Option<&str>) -> Option<Self> {
        let Some(vsn) = vsn else { return Some(Dialect::V1) };
        let (dialect, patch) = match (vsn.strip_prefix("1.0."), vsn.strip_prefix("2.0.")) {
            (Some(patch), _) => (Dialect::V1, patch),
            (_, Some(patch)) => (Dialect::V2, patch),
            _ => return None,
        };
        patch.parse::<u32>().is_ok().then_some(dialect)
    }
}

/// The topic of heartbeats. No channel has this name for Phoenix clients.
pub(crate) const HEARTBEAT_TOPIC: &str = "phoenix";
