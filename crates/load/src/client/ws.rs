//! The WebSocket side that all WebSocket scenarios share: the upgrade with its check, frames in,
//! the server's pings answered. A scenario sends and checks messages: [`WsScenario`].

use std::time::Instant;

use murre_codec::http::{self, ResponseDecoder};
use murre_codec::{
    CloseCode, Control, Decoded, Decoder, FrameLimits, Item, Kind, OpCode, Role, encode, handshake,
};
use murre_core::{ConnId, Queued};

use crate::client::{Client, Context, Output, hash};
use crate::engine::failover::Pauses;
use crate::engine::score::Fault;

/// A scenario's virtual clients, once their WebSockets are open.
pub(crate) trait WsScenario {
    /// The state of one client.
    type State: Default;

    /// Whether an open WebSocket is all that is wanted of a connection. Where it is not, `open` and
    /// what follows it set the timer and say when the connection is ready.
    const READY_WHEN_OPEN: bool = true;

    /// Whether another connection takes the place of one that departs.
    const REPLACES: bool = false;

    /// Whether the connections are killed and come back in the phases of `storm`.
    const RECONNECTS: bool = false;

    /// The pauses after which a client whose connection ends in the hold phase returns by another one;
    /// `None` if it does not.
    fn returns(&self) -> Option<Pauses> {
        None
    }

    /// The WebSocket is open.
    fn open(&mut self, state: &mut Self::State, ctx: &mut Context<'_>);

    /// The next bytes of a message.
    fn message(&mut self, state: &mut Self::State, piece: Piece<'_>, ctx: &mut Context<'_>);

    /// An answer to one of our pings, or an unsolicited pong, which is allowed (RFC 6455 section 5.5.3).
    fn pong(&mut self, _state: &mut Self::State, _payload: &[u8], _ctx: &mut Context<'_>) {}

    /// The connection's timer ran out.
    fn expired(&mut self, state: &mut Self::State, ctx: &mut Context<'_>);

    /// Answers that are still to come.
    fn owed(&self, _state: &Self::State) -> u32 {
        0
    }

    /// All connections are up.
    fn begin(&mut self, _output: &mut Output<'_>) {}

    /// Send nothing new.
    fn finish(&mut self, _output: &mut Output<'_>) {}

    /// Once in every turn.
    fn turn(&mut self, _output: &mut Output<'_>) {}

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

impl Output<'_> {
    /// Sends one masked frame. Returns whether the connection is still there; if it is not, `closed`
    /// follows and counts it.
    pub(crate) fn send(&mut self, id: ConnId, opcode: OpCode, payload: &[u8]) -> bool {
        let mask = self.mask();
        self.out.write(id, |out| encode::write_frame(out, opcode, payload, mask)) == Queued::Yes
    }

    /// Sends a frame, and expects an answer to it in time. The score counts the answer as owed.
    pub(crate) fn ask(&mut self, id: ConnId, opcode: OpCode, payload: &[u8]) -> bool {
        let sent = self.send(id, opcode, payload);
        if sent {
            self.score.owe(1);
            self.out.set_timer(id, self.out.ticks(self.timeout));
        }
        sent
    }

    fn mask(&mut self) -> Option<[u8; 4]> {
        Some(self.masks.u32(..).to_ne_bytes())
    }
}

impl Context<'_> {
    /// See [`Output::send`].
    pub(crate) fn send(&mut self, opcode: OpCode, payload: &[u8]) -> bool {
        let id = self.id;
        self.output().send(id, opcode, payload)
    }

    /// See [`Output::ask`].
    pub(crate) fn ask(&mut self, opcode: OpCode, payload: &[u8]) -> bool {
        let id = self.id;
        self.output().ask(id, opcode, payload)
    }

    /// Sends a command as a text, and starts the timer for its answer.
    pub(crate) fn command(&mut self, text: &str) -> bool {
        self.start_timer(self.timeout);
        self.send(Kind::Text.opcode(), text.as_bytes())
    }

    pub(crate) fn send_close(&mut self) {
        let mask = self.output().mask();
        // A connection that has gone is closed already.
        let _ =
            self.out.write(self.id, |out| encode::write_close(out, CloseCode::Normal, "", mask));
    }
}

/// One shard's WebSocket clients.
pub(crate) struct WsClient<T> {
    scenario: T,
    host: String,
    path: String,
    seed: u64,
    limits: FrameLimits,
}

/// The state of one client, with that of its scenario.
pub(crate) struct State<S> {
    stage: Stage,
    scenario: S,
}

enum Stage {
    Upgrading(ResponseDecoder),
    Open(Decoder),
    /// Our close frame is sent: input no longer matters.
    Leaving,
}

impl<T: WsScenario> WsClient<T> {
    pub(crate) fn new(
        scenario: T,
        host: String,
        path: String,
        seed: u64,
        max_message_bytes: u32,
    ) -> WsClient<T> {
        let limits = FrameLimits { role: Role::Client, max_message_bytes };
        WsClient { scenario, host, path, seed, limits }
    }

    /// Reads the answer to the upgrade. Returns the bytes it took, 0 while it is not whole.
    fn upgraded(
        &mut self,
        state: &mut State<T::State>,
        input: &[u8],
        ctx: &mut Context<'_>,
    ) -> usize {
        let Stage::Upgrading(decoder) = &mut state.stage else { return 0 };
        let mut fields = http::fields();
        let response = match decoder.decode(input, &mut fields) {
            Ok(None) => return 0,
            Ok(Some(response)) => response,
            Err(error) => {
                ctx.fail(Fault::Handshake, format_args!("{error:?}"));
                return input.len();
            }
        };
        let size = response.size;
        let key = key(self.seed, ctx.id.index());
        if !handshake::accepted(&response, &key) {
            let status = response.status;
            ctx.fail(Fault::Handshake, format_args!("not upgraded, status {status}"));
            return input.len();
        }
        state.stage = Stage::Open(Decoder::default());
        ctx.out.clear_timer(ctx.id);
        if T::READY_WHEN_OPEN {
            ctx.ready();
        }
        self.scenario.open(&mut state.scenario, ctx);
        size
    }
}

impl<T: WsScenario> Client for WsClient<T> {
    type State = State<T::State>;
    const CLOSES: bool = true;
    const REPLACES: bool = T::REPLACES;
    const RECONNECTS: bool = T::RECONNECTS;

    fn returns(&self) -> Option<Pauses> {
        self.scenario.returns()
    }

    fn connected(&mut self, ctx: &mut Context<'_>) -> Self::State {
        let key = key(self.seed, ctx.id.index());
        let (host, path) = (&self.host, &self.path);
        // Gone: `closed` follows and counts it.
        let _ = ctx.out.write(ctx.id, |out| handshake::request(out, host, path, &key, None));
        ctx.start_timer(ctx.timeout);
        State { stage: Stage::Upgrading(ResponseDecoder::default()), scenario: T::State::default() }
    }

    fn received(
        &mut self,
        state: &mut Self::State,
        input: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> usize {
        let mut at = self.upgraded(state, input, ctx);
        loop {
            let decoder = match &mut state.stage {
                Stage::Upgrading(_) => return at,
                Stage::Open(decoder) => decoder,
                Stage::Leaving => return input.len(),
            };
            let Decoded { consumed, item } = match decoder.decode(&mut input[at..], &self.limits) {
                Ok(decoded) => decoded,
                Err(violation) => {
                    ctx.fail(Fault::Garbled, violation.reason());
                    return input.len();
                }
            };
            at += consumed;
            match item {
                Some(item) => handle(&mut self.scenario, &mut state.scenario, item, ctx),
                None if consumed == 0 => return at,
                // A frame without payload may be consumed and be nothing to tell.
                None => {}
            }
            if ctx.state.is_over() {
                return input.len();
            }
        }
    }

    fn expired(&mut self, state: &mut Self::State, ctx: &mut Context<'_>) {
        match state.stage {
            Stage::Upgrading(_) => ctx.timed_out("no upgrade"),
            Stage::Open(_) => self.scenario.expired(&mut state.scenario, ctx),
            Stage::Leaving => {}
        }
    }

    fn owed(&self, state: &Self::State) -> u32 {
        self.scenario.owed(&state.scenario)
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.scenario.begin(output);
    }

    fn finish(&mut self, output: &mut Output<'_>) {
        self.scenario.finish(output);
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        self.scenario.turn(output);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.scenario.wake_at()
    }

    /// Sends a close frame. The server answers it and closes first (RFC 6455 section 7.1.1), so
    /// that nothing of the connection is left on our side.
    fn leave(&mut self, state: &mut Self::State, ctx: &mut Context<'_>) {
        state.stage = Stage::Leaving;
        ctx.send_close();
    }

    fn closed(&mut self, state: Self::State) {
        self.scenario.closed(state.scenario);
    }
}

/// Handles one item.
fn handle<T: WsScenario>(
    scenario: &mut T,
    state: &mut T::State,
    item: Item<'_>,
    ctx: &mut Context<'_>,
) {
    match item {
        Item::Data { kind, bytes, end, .. } => {
            scenario.message(state, Piece { kind, bytes, end }, ctx);
        }
        Item::Ping(payload) => {
            ctx.send(PONG, payload);
        }
        Item::Pong(payload) => scenario.pong(state, payload, ctx),
        Item::Close(None) => ctx.fail(Fault::Lost, "the server closed"),
        Item::Close(Some(close)) => {
            let seconds =
                close.reason.rsplit_once("retry=").and_then(|(_, text)| text.parse().ok());
            if let (Some(failover), Some(seconds)) = (&mut ctx.failover, seconds) {
                failover.retry_after(ctx.id.index(), seconds);
            }
            let detail = format_args!("the server closed: {} {}", close.code, close.reason);
            ctx.fail(Fault::Lost, detail);
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

    /// Shows that keys have the form the upgrade asks for, and differ from client to client.
    #[test]
    fn keys_are_sixteen_bytes_in_base64() {
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
