//! One worker's clients: members that come and go, and connections beside them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use murre_core::ConnId;

use super::known::Known;
use super::messages::{Message, authenticate, channel_name, join, leave};
use super::shared::Shared;
use super::{Args, Watch};
use crate::client::channel::{MessageBuffer, unreadable};
use crate::client::users::{Signer, user};
use crate::client::ws::{Piece, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::score::{Fault, Micros};
use crate::engine::share::part;
use crate::scenarios::scenario::ClientSetup;
use crate::scenarios::ws_idle::{self, WsIdle};

/// One shard's clients.
pub(crate) struct Presence {
    args: Args,
    setup: ClientSetup,
    signer: Option<Signer>,
    shared: Arc<Shared>,
    /// By slot.
    clients: Vec<Client>,
    /// Slots of members, and of connections that are away, in the order in which they came and went.
    joined: VecDeque<u32>,
    away: VecDeque<u32>,
    /// Joins and leaves so far, on the schedule.
    changes: u64,
    begun: Option<Instant>,
    ended: bool,
    /// Slots of watchers that must still be told something. `None` until all commands are answered.
    inexact: Option<Vec<u32>>,
    look_at: Instant,
    beside: WsIdle,
}

/// One member, or one that has been one.
#[derive(Default)]
pub(crate) struct Client {
    id: Option<ConnId>,
    stage: Stage,
    watches: bool,
    /// Whether the server owes it something because the run ends.
    is_inexact: bool,
    /// The number of its last join.
    join: u32,
    /// When the command under way was due.
    due: Micros,
    known: Known,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Its first join is under way.
    #[default]
    Opening,
    Joined,
    Leaving,
    Away,
    /// A later join is under way.
    Joining,
    /// The connection is over.
    Closed,
}

/// The state of one connection.
#[derive(Default)]
pub(crate) struct State {
    buffer: MessageBuffer,
    /// Of a member.
    slot: Option<u32>,
    beside: ws_idle::State,
}

impl Presence {
    pub(super) fn new(args: Args, setup: ClientSetup, shared: Arc<Shared>) -> Presence {
        Presence {
            // `check` has read it.
            signer: args.users.signer().ok().flatten(),
            beside: WsIdle::beside(args.every, setup.own_seed()),
            args,
            setup,
            shared,
            clients: Vec::new(),
            joined: VecDeque::new(),
            away: VecDeque::new(),
            changes: 0,
            begun: None,
            ended: false,
            inexact: None,
            look_at: Instant::now(),
        }
    }

    /// The workers with members: one more has the connections beside them.
    fn workers(&self) -> u32 {
        self.setup.workers - u32::from(self.args.beside > 0)
    }

    fn is_beside(&self) -> bool {
        self.setup.worker == self.workers()
    }

    /// The number of a connection among those of all workers.
    fn number(&self, slot: u32) -> u32 {
        slot * self.workers() + self.setup.worker
    }

    fn channel(&self, slot: u32) -> u32 {
        self.number(slot) % self.args.channels
    }

    fn join_command(&self, slot: u32) -> String {
        let client = &self.clients[slot as usize];
        let watch: Option<Watch> = client.watches.then_some(self.args.watch);
        join(self.channel(slot), client.join, watch)
    }

    // ---- joins and leaves on the schedule ----

    /// When the next change is due.
    fn next_due(&self) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.ended && !self.is_beside())?;
        let here = part(self.setup.conns, self.setup.worker as usize, self.workers() as usize);
        // As many joins as leaves.
        let rate = 2.0 * self.args.rate * f64::from(here) / f64::from(self.setup.conns);
        // A worker without connections has a rate of 0.
        let after = Duration::try_from_secs_f64(self.changes as f64 / rate).ok()?;
        begun.checked_add(after)
    }

    /// Makes all changes that are due. While all connections of a kind wait for answers, they are made later,
    /// and their times count from when they were due.
    fn change(&mut self, output: &mut Output<'_>) {
        let away_max = self.clients.len().div_ceil(AWAY_PART);
        while let Some(due) = self.next_due().filter(|due| *due <= output.out.now()) {
            let joins = self.away.len() > away_max;
            let slot = if joins { self.away.pop_front() } else { self.joined.pop_front() };
            let Some(slot) = slot else { return };
            self.changes += 1;
            let (number, channel) = (self.number(slot), self.channel(slot));
            let client = &mut self.clients[slot as usize];
            // The connection is over, which is counted.
            let Some(id) = client.id else { continue };
            client.due = output.score.micros(due);
            let (tally, text) = if joins {
                client.stage = Stage::Joining;
                client.join += 1;
                self.shared.set(number, client.join);
                (&self.shared.tallies.joins, self.join_command(slot))
            } else {
                client.stage = Stage::Leaving;
                self.shared.set(number, 0);
                (&self.shared.tallies.leaves, leave(channel, client.join))
            };
            tally.fetch_add(1, Ordering::Relaxed);
            if output.ask(id, MessageKind::Text.opcode(), text.as_bytes()) {
                self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
            } else {
                self.clients[slot as usize].stage = Stage::Closed;
            }
        }
    }

    /// The answer to a join or a leave.
    fn answered(&mut self, slot: u32, message: &Message<'_>, ctx: &mut Context<'_>) {
        let channel = channel_name(self.channel(slot));
        let client = &mut self.clients[slot as usize];
        let expected = match client.stage {
            Stage::Opening | Stage::Joining => "subscribed",
            Stage::Leaving => "unsubscribed",
            Stage::Joined | Stage::Away | Stage::Closed => "",
        };
        let is_answer = message.kind == expected
            && message.id == Some(client.join.into())
            && message.identifier == channel;
        if !is_answer {
            return unexpected(message, ctx);
        }
        client.known = Known::Nothing;
        ctx.clear_timer();
        if client.stage == Stage::Opening {
            ctx.ready();
        } else {
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            ctx.score.answered(client.due, ctx.out.now());
        }
        if client.stage == Stage::Leaving {
            client.stage = Stage::Away;
            self.away.push_back(slot);
        } else {
            client.stage = Stage::Joined;
            self.joined.push_back(slot);
        }
    }

    /// A message about members.
    fn told(&mut self, slot: u32, message: &Message<'_>, ctx: &mut Context<'_>) {
        let channel = self.channel(slot);
        let client = &mut self.clients[slot as usize];
        let is_told = client.watches && matches!(client.stage, Stage::Joined | Stage::Leaving);
        if !is_told || message.identifier != channel_name(channel) {
            return unexpected(message, ctx);
        }
        let tallies = &self.shared.tallies;
        let tally = match &message.kind[..] {
            "presence_state" => &tallies.states,
            "presence_diff" => &tallies.diffs,
            _ => &tallies.counts,
        };
        tally.fetch_add(1, Ordering::Relaxed);
        match client.known.take(channel, message, &self.shared) {
            Ok(changes) => _ = tallies.changes.fetch_add(changes as u64, Ordering::Relaxed),
            Err(why) => ctx.fail(Fault::Wrong, format_args!("{}: {why}", message.kind)),
        }
    }

    // ---- the end ----

    /// Once all commands are answered, each watcher must come to know what there is. Looks which have.
    fn look(&mut self, output: &mut Output<'_>) {
        if !self.ended || output.out.now() < self.look_at {
            return;
        }
        self.look_at = output.out.now() + LOOK;
        let Some(inexact) = &mut self.inexact else { return };
        if self.shared.in_flight.load(Ordering::Acquire) > 0 {
            return;
        }
        let (workers, worker) =
            (self.setup.workers - u32::from(self.args.beside > 0), self.setup.worker);
        let (clients, shared, channels) = (&mut self.clients, &self.shared, self.args.channels);
        inexact.retain(|&slot| {
            let client = &mut clients[slot as usize];
            let channel = (slot * workers + worker) % channels;
            if client.is_inexact && client.known.is_exact(channel, shared) {
                client.is_inexact = false;
                shared.tallies.exact.fetch_add(1, Ordering::Relaxed);
                output.score.forget(1);
            }
            client.is_inexact
        });
    }
}

impl WsScenario for Presence {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        if self.is_beside() {
            ctx.ready();
            return self.beside.open(&mut state.beside, ctx);
        }
        let slot = ctx.id.index();
        if self.clients.len() <= slot as usize {
            self.clients.resize_with(slot as usize + 1, Client::default);
        }
        let number = self.number(slot);
        let watches = fraction(hash(self.setup.seed, number, u32::MAX)) < self.args.watching;
        let join = self.clients[slot as usize].join + 1;
        self.clients[slot as usize] =
            Client { id: Some(ctx.id), watches, join, ..Client::default() };
        self.shared.set(number, join);
        state.slot = Some(slot);
        let signer = self.signer.as_ref().expect("`check` has read the secret");
        ctx.command(&authenticate(&signer.token(&user(number)), &self.join_command(slot)));
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        let message: Message<'_> = match serde_json::from_slice(&text) {
            Ok(message) => message,
            Err(error) => return unreadable(&text, &error, ctx),
        };
        let Some(slot) = state.slot else { return unexpected(&message, ctx) };
        ctx.score.count_bytes(text.len());
        match &message.kind[..] {
            "subscribed" | "unsubscribed" => self.answered(slot, &message, ctx),
            "presence_state" | "presence_diff" | "presence_count" => {
                self.told(slot, &message, ctx);
            }
            "authenticated" if self.clients[slot as usize].stage == Stage::Opening => {}
            _ => unexpected(&message, ctx),
        }
    }

    fn pong(&mut self, state: &mut State, payload: &[u8], ctx: &mut Context<'_>) {
        self.beside.pong(&mut state.beside, payload, ctx);
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        match state.slot {
            Some(_) => ctx.timed_out("no answer to a join or a leave"),
            None => self.beside.expired(&mut state.beside, ctx),
        }
    }

    fn owed(&self, state: &State) -> u32 {
        let Some(slot) = state.slot else { return self.beside.owed(&state.beside) };
        let client = &self.clients[slot as usize];
        let asked = matches!(client.stage, Stage::Joining | Stage::Leaving);
        u32::from(asked) + u32::from(client.is_inexact)
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.begun = Some(output.out.now());
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        self.change(output);
        self.look(output);
    }

    fn wake_at(&self) -> Option<Instant> {
        let look = self.inexact.as_ref().filter(|inexact| !inexact.is_empty());
        // A change that waits for answers is made in the turn of one of them.
        let due = self.next_due().filter(|_| !self.joined.is_empty());
        due.into_iter().chain(look.map(|_| self.look_at)).min()
    }

    fn finish(&mut self, output: &mut Output<'_>) {
        self.ended = true;
        self.beside.finish(output);
        let mut inexact = Vec::new();
        for (slot, client) in self.clients.iter_mut().enumerate() {
            let stays = matches!(client.stage, Stage::Joined | Stage::Joining);
            if client.watches && stays {
                client.is_inexact = true;
                inexact.push(slot as u32);
            }
        }
        output.score.owe(inexact.len() as u32);
        self.inexact = Some(inexact);
    }

    fn closed(&mut self, state: State) {
        let Some(slot) = state.slot else { return self.beside.closed(state.beside) };
        let number = self.number(slot);
        let client = &mut self.clients[slot as usize];
        if matches!(client.stage, Stage::Joining | Stage::Leaving) {
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        *client = Client { stage: Stage::Closed, join: client.join, ..Client::default() };
        self.shared.set(number, 0);
    }
}

/// Ends the connection over a message that should not have come.
fn unexpected(message: &Message<'_>, ctx: &mut Context<'_>) {
    let Message { kind, identifier, id, message, .. } = message;
    let detail = format_args!("`{kind}` of `{identifier}` to {id:?}, unexpected: {message}");
    ctx.fail(Fault::Garbled, detail);
}

/// One of so many connections is away at a time.
const AWAY_PART: usize = 100;

/// Time between two looks at what watchers know.
const LOOK: Duration = Duration::from_millis(50);
