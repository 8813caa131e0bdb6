//! One worker's clients: publishers, and subscribers that recover.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use serde::Deserialize;

use crate::client::channel::{MessageBuffer, Position, ServerMessage, publish, subscribe};
use crate::client::ws::{Piece, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::failover::Pauses;
use crate::engine::score::{Fault, Micros};
use crate::scenarios::recover::Args;
use crate::scenarios::recover::log::Part;
use crate::scenarios::recover::publisher::Publisher;
use crate::scenarios::recover::shared::Shared;
use crate::scenarios::recover::subscriber::{Received, Stage, Subscriber};
use crate::scenarios::scenario::ClientSetup;

/// One shard's clients. The publishers are the first of all clients of the run.
pub(crate) struct Recover {
    args: Args,
    setup: ClientSetup,
    shared: Arc<Shared>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Parts that have ended with a loss that the server has told.
    parts: Vec<Part>,
    publishing: bool,
    finishing: bool,
    /// Since when nothing more is published.
    over: Option<Instant>,
    /// All subscribers of this worker have everything; the score is told once.
    complete: bool,
}

/// The state of one connection.
#[derive(Default)]
pub(crate) struct State {
    role: Role,
    buffer: MessageBuffer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    /// Not open yet.
    #[default]
    None,
    Publisher(usize),
    Subscriber(usize),
}

/// The published data.
#[derive(Debug, Deserialize)]
struct Data {
    number: u64,
    /// When, on our clock.
    sent: u32,
    /// The node that it was published on.
    node: usize,
}

impl Recover {
    pub(super) fn new(
        args: Args,
        setup: ClientSetup,
        nodes: u32,
        conns: u32,
        shared: Arc<Shared>,
    ) -> Recover {
        let Args { channels, publishers: first, rate, .. } = args;
        let all = (0..conns).map(|client| client * setup.workers + setup.worker);
        let (publishers, subscribers): (Vec<_>, Vec<_>) = all.partition(|&number| number < first);
        let publisher = |number| Publisher::new(number, first, channels, rate);
        // As many clients as there are nodes are one on each.
        let subscriber = |number| Subscriber::new(number / nodes % channels);
        Recover {
            publishers: publishers.into_iter().map(publisher).collect(),
            subscribers: subscribers.into_iter().map(subscriber).collect(),
            shared,
            parts: Vec::new(),
            publishing: false,
            finishing: false,
            over: None,
            complete: false,
            args,
            setup,
        }
    }

    /// The role of a client: the worker's publishers are its first clients.
    fn role(&self, client: u32) -> Role {
        let client = client as usize;
        match client.checked_sub(self.publishers.len()) {
            None => Role::Publisher(client),
            Some(subscriber) => Role::Subscriber(subscriber),
        }
    }

    /// Runs after each other do not share the history.
    fn identifier(&self, channel: u32) -> String {
        let namespace = if self.args.plain { "plain" } else { "kept" };
        format!("{namespace}:recover-{}-{channel}", self.setup.seed)
    }

    /// The position of a publication. Without history it is its number.
    fn position(&self, known: Option<Position>, number: u64) -> Option<Position> {
        if self.args.plain { Some(Position { epoch: 0, offset: number + 1 }) } else { known }
    }

    // ---- publishers ----

    fn publish(&mut self, index: usize, output: &mut Output<'_>) {
        let now = output.out.now();
        while let (Some(conn), Some(due)) =
            (self.publishers[index].conn, self.publishers[index].due(now))
        {
            if due > now {
                return;
            }
            let publisher = &mut self.publishers[index];
            let (number, node) = (publisher.take(now), publisher.node);
            let channel = publisher.channel(number);
            let sent = output.score.micros(Instant::now()).0;
            let data = format!(r#"{{"number":{number},"sent":{sent},"node":{node}}}"#);
            let command = publish(&self.identifier(channel), &data, Some(number));
            if !output.ask(conn, MessageKind::Text.opcode(), command.as_bytes()) {
                return;
            }
            self.publishers[index].in_flight += 1;
            self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Handles a message to a publisher.
    fn answered(&mut self, index: usize, text: &[u8], ctx: &mut Context<'_>) {
        let Some(message) = ServerMessage::<'_, Data>::parse(text, ctx) else { return };
        let publisher = &self.publishers[index];
        let Some(number) = message.id.filter(|&id| id < publisher.next) else {
            return message.unexpected(ctx);
        };
        let channel = publisher.channel(number);
        let position = self.position(message.position, number);
        match (&message.kind[..], &message.code[..], position) {
            ("published", _, Some(position)) if message.identifier == self.identifier(channel) => {
                self.shared.counts.published.fetch_add(1, Ordering::Relaxed);
                if let Err(why) = self.shared.log(channel).published(position, number) {
                    ctx.fail(Fault::Wrong, format_args!("of channel {channel}: {why}"));
                }
            }
            ("error", "overloaded", _) => {
                self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            _ => message.unexpected(ctx),
        }
        if ctx.state.is_over() {
            // `closed` follows and counts it.
            return;
        }
        ctx.score.forget(1);
        let publisher = &mut self.publishers[index];
        publisher.in_flight -= 1;
        if publisher.in_flight == 0 {
            ctx.clear_timer();
        }
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    // ---- subscribers ----

    fn subscribe(&mut self, index: usize, ctx: &mut Context<'_>) {
        let subscriber = &mut self.subscribers[index];
        subscriber.stage = Stage::Subscribing;
        let (channel, position) = (subscriber.channel, subscriber.position);
        let position = position.filter(|_| !self.args.plain);
        ctx.command(&subscribe(&self.identifier(channel), position));
    }

    fn subscribed(
        &mut self,
        index: usize,
        answer: (Option<Position>, Option<bool>),
        ctx: &mut Context<'_>,
    ) {
        let subscriber = &mut self.subscribers[index];
        let (how, part) = match subscriber.subscribed(answer, self.args.plain) {
            Ok(subscribed) => subscribed,
            Err(why) => return ctx.fail(Fault::Wrong, why),
        };
        self.parts.extend(part);
        if let Some(ended) = subscriber.ended.take() {
            let now = Instant::now();
            let ended = ctx.score.micros(ended);
            ctx.score.over(ended, now);
            self.shared.outages.back(how, now);
        }
        ctx.clear_timer();
        ctx.ready();
    }

    fn publication(
        &mut self,
        index: usize,
        (data, offset): (&Data, Option<u64>),
        ctx: &mut Context<'_>,
    ) {
        let plain = self.args.plain.then_some(data.number + 1);
        let Some(offset) = plain.or(offset) else {
            return ctx.fail(Fault::Wrong, "a publication of a channel with history has no offset");
        };
        let subscriber = &mut self.subscribers[index];
        let channel = subscriber.channel;
        let noted = subscriber.receive(offset).and_then(|(position, received)| {
            self.shared.log(channel).received(position, data.number)?;
            Ok(received)
        });
        match noted {
            // Between nodes.
            Ok(Received::Live) if data.node != ctx.node() => {
                let after = ctx.score.micros(Instant::now()).since(Micros(data.sent));
                ctx.score.arrived(after, 0);
            }
            Ok(Received::Live) => ctx.score.arrived_late(),
            Ok(Received::Recovered) => {
                self.shared.counts.recovered_publications.fetch_add(1, Ordering::Relaxed);
                ctx.score.arrived_late();
            }
            Err(why) => ctx.fail(
                Fault::Wrong,
                format_args!("publication {} of channel {channel}: {why}", data.number),
            ),
        }
    }

    /// Handles a message to a subscriber.
    fn handle(&mut self, index: usize, text: &[u8], ctx: &mut Context<'_>) {
        let Some(message) = ServerMessage::<'_, Data>::parse(text, ctx) else { return };
        let Subscriber { channel, stage, .. } = self.subscribers[index];
        if message.identifier != self.identifier(channel) {
            return message.unexpected(ctx);
        }
        match (&message.kind[..], &message.data, stage) {
            ("publication", Some(data), Stage::Subscribed) => {
                self.publication(index, (data, message.offset), ctx);
            }
            ("subscribed", _, Stage::Subscribing) => {
                self.subscribed(index, (message.position, message.recovered), ctx);
            }
            ("dropped", _, Stage::Subscribed) => {
                let count = message.count.unwrap_or_default();
                self.shared.counts.dropped.fetch_add(count, Ordering::Relaxed);
                let part = self.subscribers[index].dropped();
                self.parts.extend(part);
            }
            ("error", _, Stage::Subscribing) if message.code == "overloaded" => {
                self.subscribers[index].stage = Stage::Refused;
                let hash = hash(self.setup.own_seed(), index as u32, ctx.id.index());
                ctx.start_timer(AGAIN.mul_f64(0.5 + fraction(hash)));
            }
            _ => message.unexpected(ctx),
        }
    }

    // ---- the end ----

    /// After the last publication: checks whether all subscribers of this worker have everything. One that
    /// is subscribed and has not is waited for only so long: the oracle says what is missing.
    fn check_complete(&mut self, output: &mut Output<'_>) {
        if self.complete || !self.finishing || !self.shared.is_over() {
            return;
        }
        let waited = self.over.get_or_insert_with(Instant::now).elapsed();
        let patient = waited < output.timeout / 2;
        self.complete = self.subscribers.iter().all(|one| {
            let newest = || self.shared.log(one.channel).newest();
            one.stage == Stage::Subscribed && (!patient || one.has(newest()))
        });
        if self.complete {
            for one in &mut self.subscribers {
                let newest = self.shared.log(one.channel).newest();
                self.parts.extend(one.end(newest));
            }
            self.shared.add(&mut self.parts);
            output.score.forget(1);
        }
    }
}

impl WsScenario for Recover {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn returns(&self) -> Option<Pauses> {
        Some(Pauses::Doubled)
    }

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        state.role = self.role(ctx.client());
        match state.role {
            Role::Publisher(index) => {
                let publisher = &mut self.publishers[index];
                (publisher.conn, publisher.node) = (Some(ctx.id), ctx.node());
                ctx.ready();
            }
            Role::Subscriber(index) => self.subscribe(index, ctx),
            Role::None => unreachable!("each client has a role"),
        }
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        match state.role {
            Role::Subscriber(index) => self.handle(index, &text, ctx),
            Role::Publisher(index) => self.answered(index, &text, ctx),
            Role::None => unreachable!("messages follow `open`"),
        }
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        match state.role {
            Role::Publisher(index) if self.publishers[index].in_flight == 0 => {}
            Role::Subscriber(index) if self.subscribers[index].stage == Stage::Refused => {
                self.subscribe(index, ctx);
            }
            _ => ctx.timed_out("no answer"),
        }
    }

    fn owed(&self, state: &State) -> u32 {
        match state.role {
            Role::Publisher(index) => self.publishers[index].in_flight,
            _ => 0,
        }
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.publishing = true;
        self.shared.outages.start(output.out.now());
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        if self.publishing {
            (0..self.publishers.len()).for_each(|index| self.publish(index, output));
        }
        self.check_complete(output);
    }

    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.finishing && !self.complete {
            return Some(now + CHECK_EVERY);
        }
        self.publishers.iter().filter(|_| self.publishing).filter_map(|one| one.due(now)).min()
    }

    /// Each worker owes one answer: that all its subscribers have everything.
    fn finish(&mut self, output: &mut Output<'_>) {
        (self.publishing, self.finishing) = (false, true);
        output.score.owe(1);
        self.shared.finish();
    }

    fn closed(&mut self, state: State) {
        match state.role {
            Role::None => {}
            Role::Publisher(index) => {
                let publisher = &mut self.publishers[index];
                publisher.conn = None;
                let unanswered = std::mem::take(&mut publisher.in_flight).into();
                self.shared.counts.unanswered.fetch_add(unanswered, Ordering::Relaxed);
                self.shared.in_flight.fetch_sub(unanswered, Ordering::AcqRel);
            }
            Role::Subscriber(index) => {
                let subscriber = &mut self.subscribers[index];
                let was = std::mem::replace(&mut subscriber.stage, Stage::Away);
                if was == Stage::Subscribed && !self.complete {
                    let now = Instant::now();
                    subscriber.ended = Some(now);
                    self.shared.outages.ended(now);
                }
            }
        }
    }
}

/// How often to look whether the other shards are done publishing.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// The mean pause before a refused subscription is tried again.
const AGAIN: Duration = Duration::from_secs(1);
