//! One worker's connections that come at once. A connection has its session when it has subscribed to the
//! channel of the user whom the application has named for it: nobody else may.

use std::borrow::Cow;

use serde::Deserialize;

use crate::client::Context;
use crate::client::channel::{MessageBuffer, subscribe, unreadable};
use crate::client::ws::{Piece, WsScenario};
use crate::engine::score::Fault;

/// One shard's clients.
pub(crate) struct Arriving;

/// The state of one client.
#[derive(Default)]
pub(crate) struct State {
    buffer: MessageBuffer,
    /// Its own channel, once it knows the name of its connection.
    channel: Option<Box<str>>,
}

/// A message of the server: docs/protocol.md.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    identifier: Cow<'a, str>,
    #[serde(borrow, default)]
    connection: Cow<'a, str>,
}

impl WsScenario for Arriving {
    type State = State;
    const READY_WHEN_OPEN: bool = false;
    const RECONNECTS: bool = true;

    fn open(&mut self, _: &mut State, ctx: &mut Context<'_>) {
        ctx.command(r#"{"action":"ping"}"#);
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        let message: Message<'_> = match serde_json::from_slice(&text) {
            Ok(message) => message,
            Err(error) => return unreadable(&text, &error, ctx),
        };
        match (&message.kind[..], &state.channel) {
            ("pong", None) => {
                let channel = format!("{NAMESPACE}:#{}", message.connection);
                ctx.command(&subscribe(&channel, None));
                state.channel = Some(channel.into());
            }
            ("subscribed", Some(channel)) if message.identifier == **channel => {
                ctx.clear_timer();
                ctx.ready();
            }
            _ => {
                let text = String::from_utf8_lossy(&text);
                ctx.fail(Fault::Wrong, format_args!("unexpected: {text}"));
            }
        }
    }

    fn expired(&mut self, _: &mut State, ctx: &mut Context<'_>) {
        ctx.timed_out("no session");
    }
}

/// A namespace with user-limited channels.
const NAMESPACE: &str = "own";
