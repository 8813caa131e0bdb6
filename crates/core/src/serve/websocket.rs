//! Frames of one WebSocket to messages of the handler, and signs of life.

use murre_codec::{Close, Decoded, Decoder, Item, Kind, OpCode, encode};

use super::{Handler, Message, Serve};
use crate::conn::CloseReason;
use crate::id::ConnId;
use crate::outbox::Outbox;
use crate::pool::NONE;

/// What is remembered of one WebSocket.
pub struct WebSocket<S> {
    decoder: Decoder,
    /// What has arrived of a message that came in pieces, in `Serve::messages`.
    message: u32,
    /// A ping was sent, and nothing has arrived since.
    pinged: bool,
    session: S,
}

impl<S> WebSocket<S> {
    pub(super) fn new(session: S) -> Self {
        WebSocket { decoder: Decoder::default(), message: NONE, pinged: false, session }
    }

    pub(super) fn session(&mut self) -> &mut S {
        &mut self.session
    }
}

impl<H: Handler> Serve<H> {
    /// Takes one item off the front of `input`; 0 if it is not all there.
    pub(super) fn frame(
        &mut self,
        id: ConnId,
        websocket: &mut WebSocket<H::Session>,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        self.alive(id, websocket, out);
        let Decoded { consumed, item } = match websocket.decoder.decode(input, &self.frame_limits) {
            Ok(decoded) => decoded,
            Err(violation) => {
                let (code, why) = (violation.close_code(), violation.reason());
                out.close_websocket(id, code, why, CloseReason::BadFrame);
                return 0;
            }
        };
        match item {
            None => {}
            Some(Item::Data { kind, bytes, start, end }) => {
                self.piece(id, websocket, Message { kind, bytes }, start, end, out);
            }
            // The answer to a ping that cannot be queued is the connection's end.
            Some(Item::Ping(payload)) => {
                let _ = out.control(id, OpCode::Control(PONG), payload);
            }
            Some(Item::Pong(_)) => {}
            Some(Item::Close(close)) => answer_close(id, close, out),
        }
        consumed
    }

    /// Passes on a message when its last bytes are here.
    fn piece(
        &mut self,
        id: ConnId,
        websocket: &mut WebSocket<H::Session>,
        piece: Message<'_>,
        start: bool,
        end: bool,
        out: &mut Outbox,
    ) {
        let Message { kind, bytes } = piece;
        if start && end {
            return self.whole(id, websocket, kind, bytes, out);
        }
        if start {
            websocket.message = self.messages.insert(bytes.to_vec());
        } else {
            self.messages.get_mut(websocket.message).extend_from_slice(bytes);
        }
        if end {
            let key = std::mem::replace(&mut websocket.message, NONE);
            let mut message = self.messages.remove(key);
            self.whole(id, websocket, kind, &mut message, out);
        }
    }

    fn whole(
        &mut self,
        id: ConnId,
        websocket: &mut WebSocket<H::Session>,
        kind: Kind,
        bytes: &mut [u8],
        out: &mut Outbox,
    ) {
        self.counters.messages.add(1);
        self.handler.message(id, &mut websocket.session, Message { kind, bytes }, out);
    }

    /// Anything that arrives is a sign of life; what we send is none.
    fn alive(&self, id: ConnId, websocket: &mut WebSocket<H::Session>, out: &mut Outbox) {
        websocket.pinged = false;
        out.set_timer(id, out.ticks(self.limits.ping_interval));
    }

    /// The first timer of a WebSocket: those opened together are pinged at different times.
    pub(super) fn first_ping(&self, id: ConnId, out: &mut Outbox) {
        let ticks = u32::from(out.ticks(self.limits.ping_interval));
        // Multiplying by 2^32 / golden ratio spreads neighbouring slots over the upper bits.
        let spread = id.index().wrapping_mul(2_654_435_769) >> 16;
        let early = (ticks / 2 * spread) >> 16;
        out.set_timer(id, (ticks - early) as u16);
    }

    /// Nothing has arrived for an interval: asks, and if it was asked already gives up.
    pub(super) fn silent(
        &mut self,
        id: ConnId,
        websocket: &mut WebSocket<H::Session>,
        out: &mut Outbox,
    ) {
        if websocket.pinged && out.behind(id) {
            return out.set_timer(id, 1);
        }
        if websocket.pinged {
            return out.abort(id, CloseReason::IdleTimeout);
        }
        websocket.pinged = true;
        self.counters.pings.add(1);
        // A ping that cannot be queued is the connection's end.
        let _ = out.send(id, &encode::PING);
        out.set_timer(id, out.ticks(self.limits.pong_timeout));
    }

    pub(super) fn ended(
        &mut self,
        id: ConnId,
        websocket: WebSocket<H::Session>,
        reason: CloseReason,
        out: &mut Outbox,
    ) {
        if websocket.message != NONE {
            self.messages.remove(websocket.message);
        }
        let open = &self.counters.websockets_open;
        open.set(open.get() - 1);
        self.handler.close(id, websocket.session, reason, out);
    }
}

const PONG: murre_codec::Control = murre_codec::Control::Pong;

/// Answers a close frame with the same code, which ends the conversation (RFC 6455 section 5.5.1).
fn answer_close(id: ConnId, close: Option<Close<'_>>, out: &mut Outbox) {
    match close {
        Some(Close { code, .. }) => out.close_websocket(id, code, "", CloseReason::Finished),
        None => {
            let _ = out.control(id, OpCode::Control(murre_codec::Control::Close), &[]);
            out.close(id, CloseReason::Finished);
        }
    }
}
