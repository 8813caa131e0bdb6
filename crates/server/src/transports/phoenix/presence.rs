//! What Phoenix sessions are told of the members of their topics.

use bytes::Bytes;
use murre_codec::Kind;
use murre_core::ConnId;
use murre_router::presence::News;

use super::super::written;
use super::Carrier;
use crate::hub::encodings::{Encoding, Encodings};
use crate::protocols::phoenix::joins::Joins;
use crate::protocols::phoenix::{Dialect, encode, presence};

/// All members of a topic, as the payload of a message.
const STATE: Encoding = Encoding(10);

/// News of the members of a channel, for one session.
pub(super) struct Told<'a> {
    pub(super) channel: &'a str,
    /// The router's key of the channel, with all members.
    pub(super) subscription: Option<u32>,
    pub(super) news: &'a News,
    pub(super) encodings: &'a mut Encodings,
}

/// Queues news of members. All members come with the join ref, so that a client that has joined again
/// knows that they are of its new join. Changes and numbers are the same for all sessions.
pub(super) fn tell(
    conn: ConnId,
    dialect: Dialect,
    Told { channel, subscription, news, encodings }: Told<'_>,
    joins: &Joins,
    scratch: &mut Vec<u8>,
    carrier: &mut Carrier<'_>,
) {
    let News::Members(members) = news else {
        let make = || shared(carrier, dialect, channel, news, scratch);
        let bytes = encodings.get(carrier.encoding(dialect), make);
        return carrier.send(conn, bytes);
    };
    let payload = encodings.get(STATE, || {
        Bytes::copy_from_slice(written(scratch, |bytes| presence::state(bytes, members)))
    });
    let join_ref = subscription.map(|channel| joins.get(conn.index(), channel));
    let join_ref = join_ref.as_deref().unwrap_or("null");
    let message = written(scratch, |bytes| {
        encode::push(bytes, dialect, join_ref, channel, "presence_state", |bytes| {
            bytes.extend_from_slice(payload);
        });
    });
    carrier.message(conn, message);
}

fn shared(
    carrier: &Carrier<'_>,
    dialect: Dialect,
    channel: &str,
    news: &News,
    scratch: &mut Vec<u8>,
) -> Bytes {
    let event = match news {
        News::Changes(_) => "presence_diff",
        News::Count(_) => "presence_count",
        News::Members(_) => unreachable!("each session has its join ref"),
    };
    let message = written(scratch, |bytes| {
        encode::push(bytes, dialect, "null", channel, event, |bytes| match news {
            News::Changes(changes) => presence::diff(bytes, changes),
            News::Count(count) => presence::count(bytes, *count),
            News::Members(_) => {}
        });
    });
    carrier.encoded(Kind::Text, message)
}
