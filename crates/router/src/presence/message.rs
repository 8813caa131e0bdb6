//! Messages between shards about presence.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::member::{Departure, Meta, News, PresencePage, PresenceQuery, UserName, Watch};
use crate::channels::{ChannelName, Origin};
use crate::names::{Member, Ticket};

/// Number of watchers of a channel on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchers {
    /// Watchers of members.
    pub members: u32,
    /// Watchers of counts.
    pub counts: u32,
}

/// A message from one shard to another. The caller carries it there, in order and without loss.
///
/// The first six variants go to the owner of a channel, the others come from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are described with their variant")]
pub enum PresenceMessage {
    /// A session becomes a member of the channel. If it is one, this is its metadata from now on.
    Join { channel: ChannelName, origin: Origin, user: UserName, meta: Option<Meta> },
    /// A session is no member any more, if it was one.
    Leave { channel: ChannelName, origin: Origin, how: Departure },
    /// A watcher of the sender wants the state of the channel, which `State` brings with the same `id`.
    /// The sender has `watchers` in all. `key` is the channel's key on the sender.
    Watch {
        channel: ChannelName,
        key: u32,
        watchers: Watchers,
        watcher: Member,
        id: u32,
        watch: Watch,
    },
    /// The sender has so many watchers of the channel. Without any it has forgotten the channel.
    Watching { channel: ChannelName, watchers: Watchers },
    /// A session of the sender wants a page of the members.
    Read { channel: ChannelName, query: PresenceQuery, ticket: Ticket },
    /// The sender has handed out the last changes of the channel.
    Taken { channel: ChannelName },
    /// The state of a channel for one watcher.
    State { key: u32, watcher: Member, id: u32, news: News },
    /// News for all watchers of the channel that had this key when the receiver began to watch.
    /// `is_large` says whether they are for watchers of members, too, if they are counts.
    News { key: u32, channel: Arc<str>, news: News, is_large: bool },
    /// The answer to `Read`.
    Page { ticket: Ticket, page: PresencePage },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::{Changes, Count, PresentMember};

    /// Every message can be encoded and decoded without loss, with names of any content.
    #[test]
    fn messages_are_encodable() {
        for user in ["", "__proto__", "\u{0}\"", &"é".repeat(127)] {
            let channel = ChannelName { hash: u32::MAX, text: user.into() };
            let meta = Some(Meta::new(b"\xff\0"));
            let (origin, user) = (Origin(u64::MAX), UserName::from(user));
            let member = PresentMember {
                node: u16::MAX,
                origin,
                stamp: u32::MAX,
                replaces: 1,
                user: user.clone(),
                meta: meta.clone(),
            };
            let changes = Changes { joins: vec![member.clone()], leaves: vec![member.clone()] };
            let count = Count { clients: u64::MAX, users: u64::MAX };
            let page = PresencePage {
                count,
                members: vec![member.clone()],
                next: Some(u64::MAX),
                unanswered: vec!["n".into()],
            };
            let query = PresenceQuery { from: 1, limit: 2, bytes_max: 3 };
            let watchers = Watchers { members: 1, counts: 2 };
            let (id, key, watcher) = (1, 2, 3);
            for message in [
                PresenceMessage::Join { channel: channel.clone(), origin, user, meta },
                PresenceMessage::Leave { channel: channel.clone(), origin, how: Departure::Lost },
                PresenceMessage::Watch {
                    channel: channel.clone(),
                    key,
                    watchers,
                    watcher,
                    id,
                    watch: Watch::Members,
                },
                PresenceMessage::Watching { channel: channel.clone(), watchers },
                PresenceMessage::Read { channel: channel.clone(), query, ticket: 1 },
                PresenceMessage::Taken { channel: channel.clone() },
                PresenceMessage::State { key, watcher, id, news: News::Members([member].into()) },
                PresenceMessage::News {
                    key,
                    channel: channel.text.clone(),
                    news: News::Changes(changes.into()),
                    is_large: true,
                },
                PresenceMessage::News {
                    key,
                    channel: channel.text,
                    news: News::Count(count),
                    is_large: true,
                },
                PresenceMessage::Page { ticket: 7, page },
            ] {
                let text = serde_json::to_string(&message).expect("encodable");
                let decoded: PresenceMessage = serde_json::from_str(&text).expect("decodable");
                assert_eq!(decoded, message, "{text}");
            }
        }
    }
}
