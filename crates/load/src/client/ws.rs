//! The WebSocket side that all WebSocket scenarios share: the upgrade with its check, frames in,
//! the server's pings answered. What is said on an open WebSocket is the scenario's [`Talk`].

use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_codec::http::{self, ResponseDecoder};
use murre_codec::{
    CloseCode, Control, Decoded, Decoder, Item, Kind, Limits, OpCode, Role, encode, handshake,
};
use murre_core::{ConnId, Outbox, Queued};

use crate::client::{Client, Desk, hash};
use crate::engine::score::{Fault, Score};

/// What a virtual client says once its WebSocket is open.
pub(crate) trait Talk {
    /// What is remembered of one client.
    type State: Default;

    /// Whether an open WebSocket is all that is wanted of a connection. Where it is not, `open` and
    /// what follows it set the timer and say when the connection is ready.
    const READY_WHEN_OPEN: bool = true;

    /// Whether another connection takes the place of one that departs.
    const RETURNS: bool = false;

    /// Whether the connections are killed and come back in the acts of `storm`.
    const COMES_BACK: bool = false;

    /// The WebSocket is open.
    fn open(&mut self, id: ConnId, state: &mut Self::State, line: &mut Line<'_, '_>);

    /// The next bytes of a message.
    fn message(
        &mut self,
        id: ConnId,
        state: &mut Self::State,
        piece: Piece<'_>,
        line: &mut Line<'_, '_>,
    );

    /// An answer to one of our pings, or one that nobody asked for, which is allowed.
    fn pong(
        &mut self,
        _id: ConnId,
        _state: &mut Self::State,
        _payload: &[u8],
        _line: &mut Line<'_, '_>,
    ) {
    }

    /// The connection's timer ran out.
    fn expired(&mut self, id: ConnId, state: &mut Self::State, line: &mut Line<'_, '_>);

    /// Answers that are still to come.
    fn owed(&self, state: &Self::State) -> u32;

    /// All connections are up.
    fn begin(&mut self, _out: &mut Outbox, _score: &mut Score, _masks: &mut Rng) {}

    /// Nothing new is to be said.
    fn finish(&mut self, out: &mut Outbox, score: &mut Score, masks: &mut Rng);

    /// Once in every turn.
    fn turn(&mut self, _out: &mut Outbox, _score: &mut Score, _masks: &mut Rng) {}

    /// When there should be a turn at the latest.
    fn wake_at(&self) -> Option<Instant> {
        None
    }

    /// The connection is over.
    fn closed(&mut self, _state: Self::State) {}
}

/// A part of a message as it arrives.
pub(crate) struct Piece<'a> {
    pub(crate) kind: Kind,
    pub(crate) bytes: &'a mut [u8],
    pub(crate) end: bool,
}

/// One open WebSocket: a desk, and the masks of what is said on it.
pub(crate) struct Line<'d, 'a> {
    pub(crate) desk: &'d mut Desk<'a>,
    pub(crate) masks: &'d mut Rng,
}

impl Line<'_, '_> {
    pub(crate) fn say(&mut self, id: ConnId, opcode: OpCode, payload: &[u8]) -> Queued {
        say(self.desk.out, id, opcode, payload, self.masks)
    }
}

/// Sends one masked frame.
pub(crate) fn say(
    out: &mut Outbox,
    id: ConnId,
    opcode: OpCode,
    payload: &[u8],
    masks: &mut Rng,
) -> Queued {
    let mask = masks.u32(..).to_ne_bytes();
    out.write(id, |out| encode::write_frame(out, opcode, payload, Some(mask)))
}

/// One shard's WebSocket clients.
pub(crate) struct WsClient<T> {
    talk: T,
    host: String,
    path: String,
    /// How long the upgrade may take.
    timeout: Duration,
    seed: u64,
    masks: Rng,
    limits: Limits,
}

/// What is kept of one client.
pub(crate) struct State<S> {
    stage: Stage,
    talk: S,
}

enum Stage {
    Upgrading(ResponseDecoder),
    Open(Decoder),
    /// Our close frame is sent: what still arrives does not matter.
    Leaving,
}

impl<T: Talk> WsClient<T> {
    pub(crate) fn new(
        talk: T,
        host: String,
        path: String,
        timeout: Duration,
        seed: u64,
        message_bytes_max: u32,
    ) -> WsClient<T> {
        WsClient {
            talk,
            host,
            path,
            timeout,
            seed,
            masks: Rng::with_seed(seed),
            limits: Limits { role: Role::Client, message_bytes_max },
        }
    }

    /// Reads the answer to the upgrade. Returns the bytes it took, 0 while it is not whole.
    fn upgraded(
        &mut self,
        id: ConnId,
        state: &mut State<T::State>,
        input: &[u8],
        desk: &mut Desk<'_>,
    ) -> usize {
        let Stage::Upgrading(decoder) = &mut state.stage else { return 0 };
        let mut fields = http::fields();
        let response = match decoder.decode(input, &mut fields) {
            Ok(None) => return 0,
            Ok(Some(response)) => response,
            Err(error) => {
                desk.fail(id, Fault::Handshake, format_args!("{error:?}"));
                return input.len();
            }
        };
        let size = response.size;
        let key = key(self.seed, id.index());
        if !handshake::accepted(&response, &key) {
            let status = response.status;
            desk.fail(id, Fault::Handshake, format_args!("not upgraded, status {status}"));
            return input.len();
        }
        state.stage = Stage::Open(Decoder::default());
        desk.out.clear_timer(id);
        if T::READY_WHEN_OPEN {
            desk.ready();
        }
        let mut line = Line { desk, masks: &mut self.masks };
        self.talk.open(id, &mut state.talk, &mut line);
        size
    }
}

impl<T: Talk> Client for WsClient<T> {
    type State = State<T::State>;
    const SAYS_GOODBYE: bool = true;
    const RETURNS: bool = T::RETURNS;
    const COMES_BACK: bool = T::COMES_BACK;

    fn connected(&mut self, id: ConnId, desk: &mut Desk<'_>) -> Self::State {
        let key = key(self.seed, id.index());
        let (host, path) = (&self.host, &self.path);
        // Gone: `closed` follows and counts it.
        let _ = desk.out.write(id, |out| handshake::request(out, host, path, &key, None));
        let ticks = desk.out.ticks(self.timeout);
        desk.out.set_timer(id, ticks);
        State { stage: Stage::Upgrading(ResponseDecoder::default()), talk: T::State::default() }
    }

    fn received(
        &mut self,
        id: ConnId,
        state: &mut Self::State,
        input: &mut [u8],
        desk: &mut Desk<'_>,
    ) -> usize {
        let mut at = self.upgraded(id, state, input, desk);
        loop {
            let decoder = match &mut state.stage {
                Stage::Upgrading(_) => return at,
                Stage::Open(decoder) => decoder,
                Stage::Leaving => return input.len(),
            };
            let Decoded { consumed, item } = match decoder.decode(&mut input[at..], &self.limits) {
                Ok(decoded) => decoded,
                Err(violation) => {
                    desk.fail(id, Fault::Garbled, violation.reason());
                    return input.len();
                }
            };
            at += consumed;
            let Some(item) = item else {
                // A frame without payload may be consumed and be nothing to tell.
                if consumed == 0 {
                    return at;
                }
                continue;
            };
            let mut line = Line { desk: &mut *desk, masks: &mut self.masks };
            heard(&mut self.talk, id, &mut state.talk, item, &mut line);
            if desk.standing.is_over() {
                return input.len();
            }
        }
    }

    fn expired(&mut self, id: ConnId, state: &mut Self::State, desk: &mut Desk<'_>) {
        match state.stage {
            Stage::Upgrading(_) => {
                let timeout = self.timeout;
                desk.fail(id, Fault::Timeout, format_args!("no upgrade within {timeout:?}"));
            }
            Stage::Open(_) => {
                let mut line = Line { desk, masks: &mut self.masks };
                self.talk.expired(id, &mut state.talk, &mut line);
            }
            Stage::Leaving => {}
        }
    }

    fn owed(&self, state: &Self::State) -> u32 {
        self.talk.owed(&state.talk)
    }

    fn begin(&mut self, out: &mut Outbox, score: &mut Score) {
        self.talk.begin(out, score, &mut self.masks);
    }

    fn finish(&mut self, out: &mut Outbox, score: &mut Score) {
        self.talk.finish(out, score, &mut self.masks);
    }

    fn turn(&mut self, out: &mut Outbox, score: &mut Score) {
        self.talk.turn(out, score, &mut self.masks);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.talk.wake_at()
    }

    /// Sends a close frame. The server answers it and closes first (RFC 6455 section 7.1.1), so
    /// that nothing of the connection is left on our side.
    fn leave(&mut self, id: ConnId, state: &mut Self::State, out: &mut Outbox) {
        state.stage = Stage::Leaving;
        let mask = Some(self.masks.u32(..).to_ne_bytes());
        // Gone: then it is over already.
        let _ = out.write(id, |out| encode::write_close(out, CloseCode::Normal, "", mask));
    }

    fn closed(&mut self, state: Self::State) {
        self.talk.closed(state.talk);
    }
}

/// Deals with one item.
fn heard<T: Talk>(
    talk: &mut T,
    id: ConnId,
    state: &mut T::State,
    item: Item<'_>,
    line: &mut Line<'_, '_>,
) {
    match item {
        Item::Data { kind, bytes, end, .. } => {
            talk.message(id, state, Piece { kind, bytes, end }, line);
        }
        Item::Ping(payload) => {
            // Gone: there is nobody left to answer.
            let _ = line.say(id, PONG, payload);
        }
        Item::Pong(payload) => talk.pong(id, state, payload, line),
        Item::Close(None) => line.desk.fail(id, Fault::Lost, "the server said goodbye"),
        Item::Close(Some(close)) => {
            let detail = format_args!("the server said goodbye: {} {}", close.code, close.reason);
            line.desk.fail(id, Fault::Lost, detail);
        }
    }
}

/// A key for the upgrade: 16 bytes in base64 (RFC 6455 section 4.1), of which the last character
/// before the padding holds two bits. Depends on the seed and the client, so it is not stored.
fn key(seed: u64, client: u32) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let characters = (0..22).map(|place| {
        let bits = hash(seed, client, place) as usize;
        let index = if place == 21 { bits % 4 * 16 } else { bits % 64 };
        char::from(ALPHABET[index])
    });
    characters.chain(['=', '=']).collect()
}

pub(crate) const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sixteen_bytes_in_base64() {
        // Shows that keys have the form the upgrade asks for, and differ from client to client.
        for client in 0..100 {
            let key = key(7, client);
            assert_eq!(key.len(), 24);
            assert!(key.ends_with("=="));
            assert!(matches!(key.as_bytes()[21], b'A' | b'Q' | b'g' | b'w'), "{key}");
        }
        assert_ne!(key(7, 0), key(7, 1));
        assert_eq!(key(7, 3), key(7, 3));
    }
}
