//! Messages between shards about channels.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Begun, ChannelError, HistoryPage};
use super::name::ChannelName;
use super::publication::{HistoryQuery, Origin, Payload, Position, Publication, Publisher, Start};
use crate::names::{Member, Ticket};

/// A message from one shard to another. The caller carries it there, in order and without loss.
///
/// The first seven variants go to the owner of a channel, the next five come from it, and the last one
/// goes to all shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are described with their variant")]
pub enum ShardMessage {
    /// A member of the sender subscribes from `start` on; the sender has `subscribers` members in the
    /// channel now. `Joined` returns `join`. `key` is the channel's key on the sender, which comes back
    /// with each publication; `reader` is the id of the subscriber as a reader, if it recovers.
    Join { channel: ChannelName, key: u32, subscribers: u32, join: u32, reader: u32, start: Start },
    /// The sender has this number of subscribers in the channel. With 0 it has forgotten the channel.
    SubscriberCount { channel: ChannelName, subscribers: u32 },
    /// A member of the sender publishes.
    Publish { channel: ChannelName, payload: Payload, publisher: Publisher },
    /// A member of the sender asks for history.
    Read { channel: ChannelName, query: HistoryQuery, ticket: Ticket },
    /// A reader on the sender needs the publications from index `from` on. With `hold` the owner keeps
    /// the later publications for a while, even if the channel's retention would drop them.
    Slice { channel: ChannelName, member: Member, reader: u32, from: u64, hold: bool },
    /// The owner need not keep history for this reader any more.
    Release { channel: ChannelName, reader: u32 },
    /// Whether the sender's log of the channel is full: the owner refuses publications while it is.
    ChannelBehind { channel: ChannelName, behind: bool },
    /// The member of this join is subscribed, and later publications follow this message; or the join is
    /// refused.
    Joined { join: u32, outcome: Result<Begun, ChannelError> },
    /// A publication for the subscribers of the channel that had this key when the receiver last
    /// joined. `index` is its number in a channel with history. Without a position it stands for
    /// publications that a broker has lost.
    Publication { key: u32, index: u64, publication: Publication },
    /// The outcome of a publication.
    Published {
        ticket: Option<Ticket>,
        origin: Origin,
        channel: Arc<str>,
        outcome: Result<Option<Position>, ChannelError>,
    },
    /// The answer to `Read`.
    History { ticket: Ticket, page: Result<HistoryPage, ChannelError> },
    /// The answer to `Slice`: consecutive publications from index `first` on. Without publications,
    /// `first` is the index of the next publication.
    SliceRead { member: Member, reader: u32, first: u64, publications: Vec<Publication> },
    /// Whether the sender is behind: owners refuse publications that it would get while it is.
    Behind(bool),
}

const _: () = assert!(size_of::<ShardMessage>() <= 96);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::{Direction, Form, Recovery};

    /// Messages travel between threads.
    #[test]
    fn messages_can_be_sent() {
        fn sent<T: Send + 'static>() {}
        sent::<ShardMessage>();
    }

    /// Every message can be encoded and decoded without loss.
    #[test]
    fn messages_are_encodable() {
        let name = || ChannelName { hash: 7, text: "a:b".into() };
        let position = Position { epoch: u32::MAX, offset: u64::MAX };
        let payload = Payload { form: Form::Json, side_len: 1, bytes: Arc::from(*b"s{}") };
        let origin = Origin(u64::MAX);
        let publication = Publication {
            channel: "a:b".into(),
            position: Some(position),
            payload: payload.clone(),
            except: Some(origin),
        };
        let publisher = Publisher { origin, ticket: Some(3), except: true };
        let (start, direction) = (Start::AfterOffset(5), Direction::Reverse);
        let query = HistoryQuery { start, limit: 1, bytes_max: 2, direction };
        let recovery = Some(Recovery { position, recovered: Some(false) });
        let publications = vec![publication.clone(); 2];
        let page = HistoryPage {
            position,
            recovered: None,
            publications: publications.clone(),
            more: true,
        };
        let (channel, outcome) = (Arc::from("a:b"), Err(ChannelError::Overloaded));
        let start = Start::After(position);
        let messages = [
            ShardMessage::Join {
                channel: name(),
                key: 1,
                subscribers: 2,
                join: 3,
                reader: 4,
                start,
            },
            ShardMessage::SubscriberCount { channel: name(), subscribers: 0 },
            ShardMessage::Publish { channel: name(), payload, publisher },
            ShardMessage::Read { channel: name(), query, ticket: 5 },
            ShardMessage::Slice { channel: name(), member: 1, reader: 2, from: 3, hold: true },
            ShardMessage::Release { channel: name(), reader: 1 },
            ShardMessage::ChannelBehind { channel: name(), behind: true },
            ShardMessage::Joined { join: 1, outcome: Ok(Begun { recovery, missed: 9, next: 10 }) },
            ShardMessage::Joined { join: 1, outcome: Err(ChannelError::Overloaded) },
            ShardMessage::Publication { key: 2, index: u64::MAX, publication },
            ShardMessage::Published { ticket: None, origin, channel, outcome },
            ShardMessage::History { ticket: 4, page: Ok(page) },
            ShardMessage::SliceRead { member: 1, reader: 2, first: 3, publications },
            ShardMessage::Behind(true),
        ];
        for message in messages {
            let text = serde_json::to_string(&message).expect("encodable");
            let decoded: ShardMessage = serde_json::from_str(&text).expect("decodable");
            assert_eq!(decoded, message, "{text}");
        }
    }
}
