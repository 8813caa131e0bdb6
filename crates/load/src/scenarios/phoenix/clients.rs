//! One worker's Phoenix clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use murre_codec::Kind as MessageKind;

use crate::client::channel::MessageBuffer;
use crate::client::phoenix::{HEARTBEAT_TOPIC, JOIN_REF, PhoenixMessage, heartbeat, join};
use crate::client::users::{Signer, user};
use crate::client::ws::{Piece, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::failover::Pauses;
use crate::engine::score::{Fault, Micros};
use crate::scenarios::phoenix::nodes::NodeArgs;
use crate::scenarios::scenario::ClientSetup;

/// One shard's clients.
pub(crate) struct Phoenix {
    setup: ClientSetup,
    topics: u32,
    every: Duration,
    signer: Option<Signer>,
    nodes: NodeArgs,
    /// Messages about members, of all workers.
    presence_messages: Arc<AtomicU64>,
    finishing: bool,
}

/// The state of one client.
#[derive(Default)]
pub(crate) struct State {
    buffer: MessageBuffer,
    /// The ref of the last message, which is the join or a heartbeat.
    reference: u32,
    /// When the heartbeat under way was due.
    due: Micros,
    joined: bool,
    /// A heartbeat is under way.
    waiting: bool,
}

impl Phoenix {
    pub(super) fn new(
        setup: ClientSetup,
        topics: u32,
        every: Duration,
        signer: Option<Signer>,
        nodes: NodeArgs,
        presence_messages: Arc<AtomicU64>,
    ) -> Phoenix {
        Phoenix { setup, topics, every, signer, nodes, presence_messages, finishing: false }
    }

    /// The number of a client among those of all workers.
    fn number(&self, ctx: &Context<'_>) -> u32 {
        ctx.client() * self.setup.workers + self.setup.worker
    }

    /// The number of its user.
    fn user(&self, ctx: &Context<'_>) -> u32 {
        self.nodes.user(self.number(ctx))
    }

    fn topic(&self, ctx: &Context<'_>) -> String {
        topic(self.user(ctx) % self.topics)
    }

    /// The reply to the join, or to a heartbeat.
    fn replied(&self, state: &mut State, message: &PhoenixMessage<'_>, ctx: &mut Context<'_>) {
        let now = ctx.out.now();
        if state.waiting && message.is_ok(None, state.reference, HEARTBEAT_TOPIC) {
            state.waiting = false;
            ctx.score.answered(state.due, now);
            if self.finishing {
                return ctx.clear_timer();
            }
            let passed = ctx.score.micros(now).since(state.due);
            return ctx.start_timer(self.every.saturating_sub(passed));
        }
        let join_ref = JOIN_REF.to_string();
        if state.joined || !message.is_ok(Some(&join_ref), JOIN_REF, &self.topic(ctx)) {
            return unexpected(message, ctx);
        }
        state.joined = true;
        state.reference = JOIN_REF;
        ctx.ready();
        // The first heartbeats are spread over the interval.
        let hash = hash(self.setup.seed, self.number(ctx), u32::MAX);
        ctx.start_timer(self.every.mul_f64(fraction(hash)));
    }
}

impl WsScenario for Phoenix {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn returns(&self) -> Option<Pauses> {
        self.nodes.pauses()
    }

    fn open(&mut self, _: &mut State, ctx: &mut Context<'_>) {
        let token = self.signer.as_ref().map(|signer| signer.token(&user(self.user(ctx))));
        ctx.command(&join(&self.topic(ctx), token.as_deref()));
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        let Some(message) = PhoenixMessage::parse(&text, ctx) else { return };
        match message.event {
            "phx_reply" => self.replied(state, &message, ctx),
            "presence_state" | "presence_diff" | "presence_count" => {
                if message.topic != self.topic(ctx) {
                    return unexpected(&message, ctx);
                }
                self.presence_messages.fetch_add(1, Ordering::Relaxed);
            }
            _ => unexpected(&message, ctx),
        }
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        if !state.joined {
            ctx.timed_out("no reply to the join");
        } else if state.waiting {
            ctx.timed_out("no reply to a heartbeat");
        } else if !self.finishing {
            state.reference = state.reference.checked_add(1).unwrap_or(JOIN_REF + 1);
            state.due = ctx.score.micros(ctx.out.due());
            let text = heartbeat(state.reference);
            state.waiting = ctx.ask(MessageKind::Text.opcode(), text.as_bytes());
        }
    }

    fn owed(&self, state: &State) -> u32 {
        state.waiting.into()
    }

    fn finish(&mut self, _: &mut Output<'_>) {
        self.finishing = true;
    }
}

/// Ends the connection over a message that should not have come.
fn unexpected(message: &PhoenixMessage<'_>, ctx: &mut Context<'_>) {
    let PhoenixMessage { reference, topic, event, payload, .. } = message;
    let detail = format_args!("`{event}` of {topic} to {reference:?}, unexpected: {payload}");
    ctx.fail(Fault::Wrong, detail);
}

pub(super) fn topic(number: u32) -> String {
    format!("room:{number}")
}
