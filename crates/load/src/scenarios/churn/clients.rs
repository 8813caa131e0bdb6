//! One worker's clients: subscribers that outlive their connections, and the publisher.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use murre_codec::Kind as MessageKind;
use murre_core::{CloseReason, ConnId};

use crate::client::channel::{MessageBuffer, ServerMessage, publish, subscribe, unsubscribe};
use crate::client::ws::{Piece, WsScenario};
use crate::client::{Context, Output, fraction, hash};
use crate::engine::score::{Fault, Micros, Score};
use crate::scenarios::churn::args::Args;
use crate::scenarios::churn::shared::{Shared, one_more};
use crate::scenarios::churn::subscriber::{Data, Stage, Subscriber};
use crate::scenarios::scenario::ClientSetup;

/// One shard's clients.
pub(crate) struct Churn {
    args: Args,
    setup: ClientSetup,
    shared: Arc<Shared>,
    subscribers: Vec<Subscriber>,
    /// Subscribers without a connection, the longest free at the end.
    free: Vec<u32>,
    publisher: Option<ConnId>,
    begun: Option<Instant>,
    published: u64,
    /// Publications that the server has not answered.
    unanswered: u32,
    finishing: bool,
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
    #[default]
    None,
    Publisher,
    Subscriber(u32),
}

impl Churn {
    pub(crate) fn new(args: Args, setup: ClientSetup, shared: Arc<Shared>) -> Churn {
        // The publisher is number 0 of all; the subscribers follow it.
        let all = (1..=setup.conns).filter(|number| number % setup.workers == setup.worker);
        let subscriber = |number: u32| Subscriber::new((number - 1) % args.channels);
        let subscribers: Vec<_> = all.map(subscriber).collect();
        Churn {
            free: (0..subscribers.len() as u32).collect(),
            subscribers,
            shared,
            publisher: None,
            begun: None,
            published: 0,
            unanswered: 0,
            finishing: false,
            complete: false,
            args,
            setup,
        }
    }

    fn is_kept(&self, channel: u32) -> bool {
        channel < self.args.kept()
    }

    /// Runs after each other do not share the history.
    fn identifier(&self, channel: u32) -> String {
        let namespace = if self.is_kept(channel) { "kept" } else { "churn" };
        format!("{namespace}:churn-{}-{channel}", self.setup.seed)
    }

    fn subscriber(&mut self, place: u32) -> &mut Subscriber {
        &mut self.subscribers[place as usize]
    }

    /// Random number and pause of a subscriber's next change.
    fn next_change(&mut self, place: u32) -> (u64, Duration) {
        let seed = self.setup.seed ^ u64::from(self.setup.worker) << 40;
        let subscriber = self.subscriber(place);
        subscriber.round = subscriber.round.wrapping_add(1);
        let hash = hash(seed, place, subscriber.round);
        (hash, Duration::from_secs_f64(self.args.idle.at(fraction(hash))))
    }

    fn rest(&mut self, place: u32, ctx: &mut Context<'_>) {
        let (_, pause) = self.next_change(place);
        ctx.start_timer(pause);
    }

    fn subscribe(&mut self, place: u32, ctx: &mut Context<'_>) {
        let subscriber = self.subscriber(place);
        subscriber.stage = Stage::Subscribing;
        let (channel, position) = (subscriber.channel, subscriber.position);
        ctx.command(&subscribe(&self.identifier(channel), position));
    }

    fn publication(
        &mut self,
        place: u32,
        (data, offset): (&Data, Option<u64>),
        ctx: &mut Context<'_>,
    ) {
        let timely = match self.subscriber(place).receive(data.number, offset) {
            Ok(timely) => timely,
            Err(why) => return ctx.fail(Fault::Wrong, why),
        };
        if timely {
            let after = ctx.score.micros(Instant::now()).since(Micros(data.sent));
            ctx.score.arrived(after, 0);
        } else {
            ctx.score.arrived_late();
        }
    }

    /// Handles a message to a subscriber.
    fn handle(&mut self, place: u32, text: &[u8], ctx: &mut Context<'_>) {
        let Some(message) = ServerMessage::<'_, Data>::parse(text, ctx) else { return };
        let (channel, stage) = (self.subscriber(place).channel, self.subscriber(place).stage);
        if message.identifier != self.identifier(channel) {
            return message.unexpected(ctx);
        }
        match (&message.kind[..], &message.data, stage) {
            ("publication", Some(data), Stage::Subscribed | Stage::Unsubscribing) => {
                self.publication(place, (data, message.offset), ctx);
            }
            ("subscribed", _, Stage::Subscribing) => {
                let (kept, answer) = (self.is_kept(channel), (message.position, message.recovered));
                let sent = self.shared.sent(channel).load(Ordering::Acquire);
                let subscriber = &mut self.subscribers[place as usize];
                match subscriber.subscribed(kept, answer, sent, &self.shared.counts) {
                    Ok(()) => {
                        ctx.ready();
                        self.rest(place, ctx);
                    }
                    Err(why) => ctx.fail(Fault::Wrong, why),
                }
            }
            ("unsubscribed", _, Stage::Unsubscribing) => {
                one_more(&self.shared.counts.unsubscribed);
                self.subscriber(place).stage = Stage::Resting;
                self.rest(place, ctx);
            }
            _ => message.unexpected(ctx),
        }
    }

    /// Handles a message to the publisher.
    fn answered(&mut self, text: &[u8], ctx: &mut Context<'_>) {
        let Some(message) = ServerMessage::<'_, Data>::parse(text, ctx) else { return };
        let asked = self.published - u64::from(self.unanswered);
        if message.kind != "published" || self.unanswered == 0 {
            return message.unexpected(ctx);
        }
        if message.id.is_none_or(|id| id >= self.published) {
            let detail = format_args!("answer {:?} for {asked}", message.id);
            return ctx.fail(Fault::Wrong, detail);
        }
        self.unanswered -= 1;
        one_more(&self.shared.counts.published);
        ctx.score.forget(1);
        if self.unanswered == 0 {
            ctx.clear_timer();
        }
    }

    fn due(&self) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.finishing)?;
        let after = Duration::from_secs_f64(self.published as f64 / self.args.rate);
        self.publisher.is_some().then(|| begun + after)
    }

    fn publish(&mut self, output: &mut Output<'_>) {
        while let (Some(due), Some(id)) = (self.due(), self.publisher) {
            if due > output.out.now() {
                return;
            }
            let channel = (self.published % u64::from(self.args.channels)) as u32;
            let sent = self.shared.sent(channel);
            let number = sent.load(Ordering::Relaxed);
            let micros = output.score.micros(Instant::now()).0;
            let data = format!(r#"{{"number":{number},"sent":{micros}}}"#);
            let command = publish(&self.identifier(channel), &data, Some(self.published));
            sent.store(number + 1, Ordering::Release);
            if !output.ask(id, MessageKind::Text.opcode(), command.as_bytes()) {
                return;
            }
            self.published += 1;
            self.unanswered += 1;
        }
    }

    /// After the last publication: checks whether all subscribers of this worker have everything.
    fn check_complete(&mut self, score: &mut Score) {
        if self.complete || !self.finishing || !self.shared.over.load(Ordering::Acquire) {
            return;
        }
        let shared = &self.shared;
        self.complete = self.subscribers.iter().all(|subscriber| {
            subscriber.stage == Stage::Subscribed
                && subscriber.run.has_all(shared.sent(subscriber.channel).load(Ordering::Acquire))
        });
        if self.complete {
            score.forget(1);
        }
    }
}

impl WsScenario for Churn {
    type State = State;
    const READY_WHEN_OPEN: bool = false;
    const REPLACES: bool = true;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        if self.setup.worker == 0 && self.publisher.is_none() {
            state.role = Role::Publisher;
            self.publisher = Some(ctx.id);
            return ctx.ready();
        }
        let place = self.free.pop().expect("as many subscribers as connections");
        state.role = Role::Subscriber(place);
        if std::mem::replace(&mut self.subscriber(place).connected_before, true) {
            one_more(&self.shared.counts.reconnected);
        }
        self.subscribe(place, ctx);
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        match state.role {
            Role::Subscriber(place) => self.handle(place, &text, ctx),
            Role::Publisher | Role::None => self.answered(&text, ctx),
        }
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        let Role::Subscriber(place) = state.role else {
            return ctx.timed_out("no answer to a publication");
        };
        let stage = self.subscriber(place).stage;
        match stage {
            Stage::Resting => self.subscribe(place, ctx),
            // At the end all stay subscribed, to receive everything.
            Stage::Subscribed if self.finishing => {}
            Stage::Subscribed => {
                let (hash, _) = self.next_change(place);
                match hash % 4 {
                    0 | 1 => {
                        self.subscriber(place).stage = Stage::Unsubscribing;
                        let channel = self.subscriber(place).channel;
                        ctx.command(&unsubscribe(&self.identifier(channel)));
                    }
                    2 => {
                        ctx.send_close();
                        ctx.leave();
                        ctx.out.close(ctx.id, CloseReason::Finished);
                    }
                    _ => {
                        ctx.leave();
                        ctx.out.abort(ctx.id, CloseReason::Finished);
                    }
                }
            }
            Stage::Subscribing | Stage::Unsubscribing | Stage::Away => ctx.timed_out("no answer"),
        }
    }

    fn owed(&self, state: &State) -> u32 {
        if state.role == Role::Publisher { self.unanswered } else { 0 }
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.begun = Some(output.out.now());
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        self.publish(output);
        self.check_complete(output.score);
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.finishing && !self.complete {
            return Some(Instant::now() + CHECK_EVERY);
        }
        self.due()
    }

    /// Each worker owes one answer: that all its subscribers have everything.
    fn finish(&mut self, output: &mut Output<'_>) {
        self.finishing = true;
        output.score.owe(1);
        if self.setup.worker == 0 {
            self.shared.over.store(true, Ordering::Release);
        }
    }

    fn closed(&mut self, state: State) {
        match state.role {
            Role::None => {}
            Role::Publisher => (self.publisher, self.unanswered) = (None, 0),
            Role::Subscriber(place) => {
                self.subscriber(place).stage = Stage::Away;
                // Those free the longest are the next.
                self.free.insert(0, place);
            }
        }
    }
}

/// How often to look whether the other shards are done publishing.
const CHECK_EVERY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::cli::args::Span;

    /// Shows that no subscriber is forgotten, that the shard with the publisher has one less, and which
    /// channels are kept.
    #[test]
    fn subscribers_are_spread_over_workers_and_channels() {
        let idle = Span { from: 0.1, to: 0.2 };
        let shared = OnceLock::new();
        let args = Args { idle, channels: 4, kept: Some(1), rate: 100.0, shared };
        let shared = Arc::new(Shared::new(args.channels));
        let setup = |worker| ClientSetup { conns: 11, worker, workers: 3, seed: 9 };
        let shards: Vec<_> = (0..3)
            .map(|worker| Churn::new(args.clone(), setup(worker), Arc::clone(&shared)))
            .collect();
        let subscribers: Vec<_> = shards.iter().map(|shard| shard.subscribers.len()).collect();
        assert_eq!(subscribers, [3, 4, 4]);
        let of_channel = |channel| {
            let subscribers = shards.iter().flat_map(|shard| &shard.subscribers);
            subscribers.filter(|subscriber| subscriber.channel == channel).count()
        };
        assert_eq!([0, 1, 2, 3].map(of_channel), [3, 3, 3, 2]);
        assert_eq!(shards[0].identifier(0), "kept:churn-9-0");
        assert_eq!(shards[0].identifier(1), "churn:churn-9-1");
    }
}
