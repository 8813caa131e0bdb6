//! Assembles the frames of a WebSocket into messages for the handler.

use std::time::Instant;

use murre_codec::{Close, CloseCode, Decoded, Item, Kind, OpCode, encode};

use super::stage::{Arriving, WebSocket};
use super::{Handler, Message, Serve, notices};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;
use crate::pool::NONE;

impl<H: Handler> Serve<H> {
    /// Takes one item off the front of `input`, and returns the number of bytes consumed; 0 if the
    /// item is incomplete.
    pub(super) fn frame(
        &mut self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        self.alive(conn, websocket, out);
        if self.is_crawling(conn, websocket, out) {
            out.close_websocket(conn, CloseCode::Policy, "message too slow", CloseReason::TooSlow);
            return 0;
        }
        let begins = !websocket.decoder.in_frame();
        let Decoded { consumed, item } = match websocket.decoder.decode(input, &self.frame_limits) {
            Ok(decoded) => decoded,
            Err(violation) => {
                let (code, why) = (violation.close_code(), violation.reason());
                notices::violation(conn, code, why, out);
                out.close_websocket(conn, code, why, CloseReason::BadFrame);
                return 0;
            }
        };
        let is_ping = matches!(item, Some(Item::Ping(_) | Item::Pong(_)));
        if is_ping && self.pings_too_often(websocket, out.now()) {
            let reason = CloseReason::TooManyPings;
            out.close_websocket(conn, CloseCode::Policy, "too many pings", reason);
            return 0;
        }
        let is_data = !is_ping && !matches!(item, Some(Item::Close(_)));
        if is_data && begins && consumed > 0 && self.has_too_many_frames(websocket) {
            let reason = CloseReason::TooManyFragments;
            out.close_websocket(conn, CloseCode::Policy, "too many fragments", reason);
            return 0;
        }
        match item {
            None => {}
            Some(Item::Data { kind, bytes, start, end }) => {
                self.piece(conn, websocket, Message { kind, bytes }, (start, end), out);
            }
            // If the pong cannot be queued, the connection ends anyway.
            Some(Item::Ping(payload)) => {
                let _ = out.control(conn, OpCode::Control(PONG), payload);
            }
            Some(Item::Pong(_)) => {}
            Some(Item::Close(close)) => answer_close(conn, close, out),
        }
        consumed
    }

    /// Adds a piece to its message, and passes the message to the handler when the last bytes have
    /// arrived.
    fn piece(
        &mut self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        piece: Message<'_>,
        (start, end): (bool, bool),
        out: &mut Outbox,
    ) {
        let Message { kind, bytes } = piece;
        if start && end {
            return self.whole_message(conn, websocket, kind, bytes, out);
        }
        if start {
            let bytes = bytes.to_vec();
            let arriving = Arriving { bytes, frames: 1, began: out.now(), paused: None };
            websocket.message = self.messages.insert(arriving);
        } else {
            self.messages.get_mut(websocket.message).bytes.extend_from_slice(bytes);
        }
        if end {
            let key = std::mem::replace(&mut websocket.message, NONE);
            let mut message = self.messages.remove(key);
            self.whole_message(conn, websocket, kind, &mut message.bytes, out);
        }
    }

    fn whole_message(
        &mut self,
        conn: ConnId,
        websocket: &mut WebSocket<H::Session>,
        kind: Kind,
        bytes: &mut [u8],
        out: &mut Outbox,
    ) {
        self.counters.messages.add(1);
        self.handler.message(conn, &mut websocket.session, Message { kind, bytes }, out);
    }

    /// Stops reading the peer until it has taken the queued bytes. The pause does not count against
    /// the time limit of the message that is arriving.
    pub(super) fn pause(&mut self, websocket: &mut WebSocket<H::Session>, now: Instant) {
        if websocket.message != NONE {
            self.messages.get_mut(websocket.message).paused.get_or_insert(now);
        }
    }

    /// Returns whether the message that is arriving exceeds its time limit.
    fn is_crawling(
        &mut self,
        conn: ConnId,
        websocket: &WebSocket<H::Session>,
        out: &Outbox,
    ) -> bool {
        if websocket.message == NONE {
            return false;
        }
        let (arriving, now) = (self.messages.get_mut(websocket.message), out.now());
        if let Some(paused) = arriving.paused.take() {
            arriving.began += now - paused;
        }
        let in_time = now - arriving.began <= self.limits.time_for(arriving.bytes.len() as u64);
        if !in_time && (out.behind(conn) || out.was_held(conn)) {
            // The machine stood still, or the connection was held: the limit starts anew.
            arriving.began = now;
            return false;
        }
        !in_time
    }

    /// Counts a data frame, unless it is the first of its message.
    fn has_too_many_frames(&mut self, websocket: &WebSocket<H::Session>) -> bool {
        if websocket.message == NONE {
            return false;
        }
        let arriving = self.messages.get_mut(websocket.message);
        arriving.frames += 1;
        arriving.frames > self.limits.max_fragments
    }

    /// Counts a ping or a pong.
    fn pings_too_often(&self, websocket: &mut WebSocket<H::Session>, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.began).as_secs() as u8;
        if std::mem::replace(&mut websocket.second, second) != second {
            websocket.pings = 0;
        }
        websocket.pings = websocket.pings.saturating_add(1);
        websocket.pings > self.limits.max_pings_per_second
    }

    /// The connection is closed: frees the message that was arriving, and ends the session.
    pub(super) fn websocket_closed(
        &mut self,
        conn: ConnId,
        websocket: WebSocket<H::Session>,
        reason: CloseReason,
        out: &mut Outbox,
    ) {
        if websocket.message != NONE {
            self.messages.remove(websocket.message);
        }
        let open = &self.counters.websockets_open;
        open.set(open.get() - 1);
        self.handler.close(conn, websocket.session, reason, out);
    }
}

const PONG: murre_codec::Control = murre_codec::Control::Pong;

/// Answers a close frame with the same code, which completes the closing handshake (RFC 6455
/// section 5.5.1).
fn answer_close(conn: ConnId, close: Option<Close<'_>>, out: &mut Outbox) {
    out.note_close_code(conn, close.as_ref().map_or(CloseCode::Status, |close| close.code));
    match close {
        Some(Close { code, .. }) => out.close_websocket(conn, code, "", CloseReason::Finished),
        None => out.close_with(conn, CloseReason::Finished, |out| {
            encode::write_frame(out, OpCode::Control(murre_codec::Control::Close), &[], None);
        }),
    }
}
