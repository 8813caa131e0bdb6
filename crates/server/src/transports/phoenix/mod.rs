//! Phoenix Channels over WebSocket and long polls.
//!
//! ```text
//!   message ──▶ incoming: in order, one at a time ──▶ actions: joins, stale refs ──▶ Hub
//!                    ▲ resumed                                                        │
//!   frame ◀── here ──┴──────────────────────── Reply, Push, Disconnect ◀──────────────┘
//! ```

mod actions;
pub(crate) mod handshake;
pub(crate) mod incoming;
pub(crate) mod long_poll;
mod long_poll_body;
pub(crate) mod long_poll_requests;
pub(crate) mod long_poll_sessions;
mod long_poll_token;
mod presence;
mod supabase;
pub(crate) mod supabase_rest;

use std::sync::Arc;

use bytes::Bytes;
use murre_codec::{Kind, encode as frames};
use murre_core::{CloseReason, ConnId, Outbox};
use murre_router::Shard;
use murre_router::channels::Publication;

use self::long_poll_requests::PollRequests;
use self::long_poll_sessions::{PollLimits, PollSessions};
use self::presence::Told;
use super::{Transport, Wires, written};
use crate::hub::encodings::Encoding;
use crate::hub::output::DisconnectReason;
use crate::hub::{Disconnect, HubConfig, HubCounters, Push, Reply, RequestId, Session};
use crate::protocols::phoenix::encode;
use crate::protocols::phoenix::errors::{close_code, reason};
use crate::protocols::phoenix::joins::Joins;
use crate::protocols::phoenix::refs::{Asked, Request};
use crate::protocols::phoenix::{Dialect, decode::BadMessage, errors};

/// A message for all subscribers, as a frame of version 1.
const V1_FRAME: Encoding = Encoding(4);
/// A message for all subscribers, as a frame of version 2.
const V2_FRAME: Encoding = Encoding(5);
/// A publication as a text of version 1, for long polls.
const V1_TEXT: Encoding = Encoding(6);
/// A publication as a text of version 2, for long polls.
const V2_TEXT: Encoding = Encoding(7);
/// The same for clients of Supabase, version 1.
const SUPABASE_V1_FRAME: Encoding = Encoding(11);
/// The same for clients of Supabase, version 2.
const SUPABASE_V2_FRAME: Encoding = Encoding(12);

/// The state of the Phoenix sessions of a shard.
pub(crate) struct Phoenix {
    pub(super) joins: Joins,
    pub(crate) polls: PollSessions,
    pub(crate) requests: PollRequests,
}

/// The version of a session of a Phoenix client.
fn dialect(session: Session) -> Dialect {
    match Transport::of(session) {
        Transport::Phoenix(dialect) | Transport::PhoenixPoll(dialect) => dialect,
        _ => unreachable!("a Phoenix session"),
    }
}

/// The way of a message to a session.
pub(super) enum Carrier<'a> {
    WebSocket(&'a mut Outbox),
    Poll(&'a mut PollSessions),
}

impl Carrier<'_> {
    /// Queues an answer to a message of the session. The number of such answers is limited by the input
    /// that is read, not by the send limit.
    fn answer(&mut self, conn: ConnId, kind: Kind, message: &[u8]) {
        match self {
            // A connection that has ended needs no answer.
            Carrier::WebSocket(out) => {
                _ = out.write_answer(conn, |bytes| {
                    frames::write_frame(bytes, kind.opcode(), message, None);
                })
            }
            Carrier::Poll(polls) => polls.answer(conn, Bytes::copy_from_slice(message)),
        }
    }

    /// Queues a message that is for this session alone.
    fn message(&mut self, conn: ConnId, message: &[u8]) {
        match self {
            // A connection that has ended needs no push.
            Carrier::WebSocket(out) => _ = out.message(conn, Kind::Text, message),
            Carrier::Poll(polls) => polls.queue(conn, Bytes::copy_from_slice(message)),
        }
    }

    /// Queues what [`encoded`](Self::encoded) has returned, which several sessions may share.
    fn send(&mut self, conn: ConnId, bytes: &Bytes) {
        match self {
            // A connection that has ended needs no push.
            Carrier::WebSocket(out) => _ = out.send(conn, bytes),
            Carrier::Poll(polls) => polls.queue(conn, bytes.clone()),
        }
    }

    /// A message as this carrier takes it.
    fn encoded(&self, kind: Kind, message: &[u8]) -> Bytes {
        match self {
            Carrier::WebSocket(_) => frames::frame(kind.opcode(), message),
            Carrier::Poll(_) => Bytes::copy_from_slice(message),
        }
    }

    /// The encoding of publications.
    fn encoding(&self, dialect: Dialect) -> Encoding {
        match (self, dialect) {
            (_, Dialect::SupabaseV1) => SUPABASE_V1_FRAME,
            (_, Dialect::SupabaseV2) => SUPABASE_V2_FRAME,
            (Carrier::WebSocket(_), Dialect::V1) => V1_FRAME,
            (Carrier::WebSocket(_), Dialect::V2 | Dialect::V2Text) => V2_FRAME,
            (Carrier::Poll(_), Dialect::V1) => V1_TEXT,
            (Carrier::Poll(_), Dialect::V2 | Dialect::V2Text) => V2_TEXT,
        }
    }
}

impl Phoenix {
    /// No sessions, on `shard`.
    pub(super) fn new(shard: Shard, config: &HubConfig, counters: Arc<HubCounters>) -> Self {
        let limits = PollLimits {
            sessions_max: config.max_phoenix_polls,
            queue_bytes_max: config.max_send_bytes,
            window: config.phoenix_poll_window,
        };
        Phoenix {
            joins: Joins::default(),
            polls: PollSessions::new(shard, limits, counters),
            requests: PollRequests::new(shard),
        }
    }

    /// Removes the state of a session that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        self.joins.leave(slot);
    }

    /// The number of stored entries; 0 when all sessions have ended.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.joins.kept() + self.polls.len() + self.requests.len()
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
    carrier: &mut Carrier<'_>,
) -> bool {
    encode::hub_reply(scratch, dialect, request, reply, |kind, message| {
        carrier.answer(conn, kind, message);
    });
    Request::of(request).is_some_and(|request| request.asked == Asked::Join)
}

/// Queues a push.
pub(super) fn push(
    conn: ConnId,
    dialect: Dialect,
    push: Push<'_>,
    joins: &Joins,
    scratch: &mut Vec<u8>,
    carrier: &mut Carrier<'_>,
) {
    match push {
        Push::Publication { publication, encodings } => {
            let encoding = carrier.encoding(dialect);
            let make = || publication_for(carrier, dialect, publication, scratch);
            let bytes = encodings.get(encoding, make);
            carrier.send(conn, bytes);
        }
        Push::Dropped { channel, count } => {
            let message = written(scratch, |bytes| encode::dropped(bytes, dialect, channel, count));
            carrier.answer(conn, Kind::Text, message);
        }
        Push::Unsubscribed { channel, why } => {
            if dialect.is_supabase() {
                let why = why.detail.unwrap_or(reason(why.code));
                supabase::tell_error(conn, dialect, channel, why, scratch, carrier);
            }
            let message = written(scratch, |bytes| encode::ended(bytes, dialect, channel, why));
            carrier.message(conn, message);
        }
        Push::Presence { channel, subscription, news, encodings } => {
            let told = Told { channel, subscription, news, encodings };
            presence::tell(conn, dialect, told, joins, scratch, carrier);
        }
        Push::Request { .. } | Push::Connected { .. } => {
            unreachable!("a Phoenix session serves nothing, and is not greeted")
        }
    }
}

fn publication_for(
    carrier: &Carrier<'_>,
    dialect: Dialect,
    publication: &Publication,
    scratch: &mut Vec<u8>,
) -> Bytes {
    let mut kind = Kind::Text;
    let message = written(scratch, |bytes| {
        kind = encode::publication(bytes, dialect, publication);
    });
    carrier.encoded(kind, message)
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

/// Ends the session of a message that cannot be read.
fn refuse(session: Session, why: BadMessage, Wires { out, transports }: &mut Wires<'_>) {
    if let Transport::PhoenixPoll(_) = Transport::of(session) {
        return transports.phoenix.polls.end(session.conn);
    }
    let (code, text) = errors::bad_message(why);
    out.close_websocket(session.conn, code, text, CloseReason::BadFrame);
}
