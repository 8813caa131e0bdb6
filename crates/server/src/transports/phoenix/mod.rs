//! Phoenix Channels over WebSocket.
//!
//! ```text
//!   message ──▶ incoming: in order, one at a time ──▶ actions: joins, stale refs ──▶ Hub
//!                    ▲ resumed                                                        │
//!   frame ◀── here ──┴──────────────────────── Reply, Push, Disconnect ◀──────────────┘
//! ```

mod actions;
pub(crate) mod handshake;
pub(crate) mod incoming;

use bytes::Bytes;
use murre_codec::{Kind, encode as frames};
use murre_core::{CloseReason, ConnId, Outbox};
use murre_router::channels::Publication;

use super::written;
use crate::hub::encodings::Encoding;
use crate::hub::output::DisconnectReason;
use crate::hub::{Disconnect, Push, Reply, RequestId};
use crate::protocols::phoenix::encode;
use crate::protocols::phoenix::errors::{close_code, reason};
use crate::protocols::phoenix::joins::Joins;
use crate::protocols::phoenix::refs::{Asked, Request};
use crate::protocols::phoenix::{Dialect, decode::BadMessage, errors};

/// A publication as a frame of version 1.
const V1_FRAME: Encoding = Encoding(4);
/// A publication as a frame of version 2.
const V2_FRAME: Encoding = Encoding(5);

/// The state of the Phoenix sessions of a shard.
#[derive(Default)]
pub(super) struct Phoenix {
    joins: Joins,
}

impl Phoenix {
    /// Removes the state of a session that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        self.joins.leave(slot);
    }

    /// The number of stored entries; 0 when all sessions have ended.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.joins.kept()
    }
}

/// Queues a reply of the hub. Returns whether it answers a join, for which later messages of the
/// session may have waited.
pub(super) fn reply(
    conn: ConnId,
    dialect: Dialect,
    request: &RequestId,
    reply: Reply<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Outbox,
) -> bool {
    encode::hub_reply(scratch, dialect, request, reply, |kind, message| {
        answer(conn, kind, message, out);
    });
    Request::of(request).is_some_and(|request| request.asked == Asked::Join)
}

/// Queues an answer to a message of the session. The number of such answers is limited by the input
/// that is read, not by the send limit.
fn answer(conn: ConnId, kind: Kind, message: &[u8], out: &mut Outbox) {
    // A connection that has ended needs no answer.
    let _ = out.write_answer(conn, |bytes| {
        frames::write_frame(bytes, kind.opcode(), message, None);
    });
}

/// Queues a push.
pub(super) fn push(
    conn: ConnId,
    dialect: Dialect,
    push: Push<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Outbox,
) {
    match push {
        Push::Publication { publication, encodings } => {
            let encoding = match dialect {
                Dialect::V1 => V1_FRAME,
                Dialect::V2 | Dialect::V2Text => V2_FRAME,
            };
            let frame = encodings.get(encoding, || frame(dialect, publication, scratch));
            // A connection that has ended needs no push.
            let _ = out.send(conn, frame);
        }
        Push::Dropped { channel, count } => {
            let message = written(scratch, |bytes| encode::dropped(bytes, dialect, channel, count));
            answer(conn, Kind::Text, message, out);
        }
        Push::Unsubscribed { channel, why } => {
            let message = written(scratch, |bytes| encode::ended(bytes, dialect, channel, why));
            // A connection that has ended needs no push.
            let _ = out.message(conn, Kind::Text, message);
        }
        // The subscriptions of Phoenix sessions watch nobody yet.
        Push::Presence { .. } => {}
        Push::Request { .. } => unreachable!("a Phoenix session serves nothing"),
    }
}

fn frame(dialect: Dialect, publication: &Publication, scratch: &mut Vec<u8>) -> Bytes {
    let mut kind = Kind::Text;
    let message = written(scratch, |bytes| {
        kind = encode::publication(bytes, dialect, publication);
    });
    frames::frame(kind.opcode(), message)
}

/// Closes the connection of a session that the server ends.
pub(super) fn end(conn: ConnId, disconnect: Disconnect<'_>, out: &mut Outbox) {
    let closed = match disconnect.reason {
        DisconnectReason::Slow => {
            // A slow client would take too long to read the queued messages.
            out.drop_waiting(conn);
            CloseReason::SlowConsumer
        }
        DisconnectReason::Draining => CloseReason::Draining,
        _ => CloseReason::Finished,
    };
    let text = match disconnect.error() {
        None => format!("service restart, retry={}", out.retry_after(conn)),
        Some(why) => why.detail.unwrap_or(reason(why.code)).to_owned(),
    };
    out.close_websocket(conn, close_code(disconnect), &text, closed);
}

/// Closes the connection of a message that cannot be read.
fn refuse(conn: ConnId, why: BadMessage, out: &mut Outbox) {
    let (code, text) = errors::bad_message(why);
    out.close_websocket(conn, code, text, CloseReason::BadFrame);
}
