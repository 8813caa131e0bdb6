//! One worker's clients: publishers, subscribers, and connections beside them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use murre_codec::Kind as MessageKind;
use serde::de::IgnoredAny;

use crate::client::channel::{MessageBuffer, ServerMessage, publish, subscribe};
use crate::client::ws::{Piece, WsScenario};
use crate::client::{Context, Output};
use crate::engine::score::{Fault, Micros};
use crate::scenarios::fanout::publisher::Publisher;
use crate::scenarios::fanout::settings::{Role, Settings};
use crate::scenarios::fanout::shared::Shared;
use crate::scenarios::fanout::texts::{Texts, identifier};
use crate::scenarios::ws_idle::{self, WsIdle};

/// One shard's clients.
pub(crate) struct Fanout {
    settings: Settings,
    shared: Arc<Shared>,
    shard: u32,
    /// Places that have no connection.
    free: Vec<u32>,
    /// The publishers that are here.
    publishers: Vec<Publisher>,
    beside: WsIdle,
    texts: Texts,
    begun: Option<Instant>,
    ended: Option<Instant>,
}

/// The state of one client.
#[derive(Default)]
pub(crate) struct State {
    role: Role,
    /// Its place, once it has one.
    place: Option<u32>,
    buffer: MessageBuffer,
    /// Of a subscriber, once it is one: the number of the next publication.
    next: Option<u64>,
    beside: ws_idle::State,
}

impl Fanout {
    pub(crate) fn new(settings: Settings, shared: Arc<Shared>, conns: u32) -> Fanout {
        let shard = settings.setup.worker;
        let here =
            (0..settings.args.publishers).filter(|number| number % settings.workers() == shard);
        let publishers = here.map(Publisher::new).collect();
        Fanout {
            shared,
            shard,
            free: (0..conns).rev().collect(),
            publishers,
            beside: WsIdle::beside(settings.args.every, settings.setup.own_seed()),
            texts: Texts::new(settings.args.payload, settings.args.kept),
            begun: None,
            ended: None,
            settings,
        }
    }

    fn publisher(&mut self, number: u32) -> &mut Publisher {
        &mut self.publishers[(number / self.settings.workers()) as usize]
    }

    /// Publishes as much as may be published now.
    fn publish(&mut self, index: usize, output: &mut Output<'_>) {
        let Some(begun) = self.begun else { return };
        let shared = Arc::clone(&self.shared);
        loop {
            let (publisher, args) = (self.publishers[index], &self.settings.args);
            let (Some(id), now) = (publisher.id, output.out.now()) else { return };
            let in_flight = shared.in_flight(publisher.number);
            let due = match args.rate {
                Some(rate) => publisher.due(args, begun, rate),
                None if in_flight.load(Ordering::Acquire) < args.pipeline => Instant::now(),
                None => return,
            };
            if self.ended.is_some_and(|ended| due >= ended) || (args.rate.is_some() && due > now) {
                return;
            }
            let place = publisher.channel(args);
            let channel = shared.channel(place);
            let members = channel.members.load(Ordering::Relaxed);
            if !channel.has_room() || members == 0 {
                return;
            }
            let number = channel.published.load(Ordering::Relaxed);
            let text = self.texts.data(place, number);
            let command = publish(&identifier(place, args.kept), text, None);
            let micros = output.score.micros(due);
            let slot = channel.slot(number);
            slot.due.store(micros.0, Ordering::Relaxed);
            slot.left.store(members, Ordering::Relaxed);
            output.score.owe(members);
            in_flight.fetch_add(1, Ordering::AcqRel);
            channel.published.store(number + 1, Ordering::Release);
            self.publishers[index].published += 1;
            // The connection is gone: `closed` follows and counts it; the deliveries that are missing fail the run.
            if !output.send(id, MessageKind::Text.opcode(), command.as_bytes()) {
                return;
            }
            output.out.set_timer(id, output.out.ticks(output.timeout));
        }
    }

    /// A subscriber has the next publication of its channel.
    fn delivered(&mut self, channel: u32, number: u64, bytes: usize, ctx: &mut Context<'_>) {
        let shared = Arc::clone(&self.shared);
        let of_channel = shared.channel(channel);
        let due = Micros(of_channel.slot(number).due.load(Ordering::Relaxed));
        let now = Instant::now();
        let score = &mut *ctx.score;
        score.count_bytes(bytes);
        if of_channel.delivered(number) {
            score.over(due, now);
            // Publish before counting, so that the owed answers are never seen at 0 in between.
            if let Some(index) = self.over(channel) {
                self.publish(index, &mut ctx.output());
            }
        }
        ctx.score.answered(due, now);
    }

    /// A publication is over: its publisher may go on. Returns the publisher if it is here; another worker is
    /// woken.
    fn over(&self, channel: u32) -> Option<usize> {
        let workers = self.settings.workers();
        let publisher = channel % self.settings.args.publishers;
        self.shared.in_flight(publisher).fetch_sub(1, Ordering::AcqRel);
        if publisher % workers == self.shard {
            return Some((publisher / workers) as usize);
        }
        self.shared.wakeups.wake((publisher % workers) as usize);
        None
    }

    /// Handles a message to a subscriber.
    fn handle(&mut self, channel: u32, state: &mut State, text: &[u8], ctx: &mut Context<'_>) {
        let Some(number) = state.next else {
            let Some(message) = ServerMessage::<'_, &str>::parse(text, ctx) else { return };
            if message.kind != "subscribed"
                || message.identifier != identifier(channel, self.settings.args.kept)
            {
                return message.unexpected(ctx);
            }
            let of_channel = self.shared.channel(channel);
            of_channel.members.fetch_add(1, Ordering::Relaxed);
            state.next = Some(of_channel.published.load(Ordering::Acquire));
            ctx.clear_timer();
            return ctx.ready();
        };
        let published = self.shared.channel(channel).published.load(Ordering::Acquire);
        if number >= published || !self.texts.was_right(text, channel, number) {
            let Some(message) = ServerMessage::<'_, &str>::parse(text, ctx) else { return };
            if message.kind != "publication" {
                return message.unexpected(ctx);
            }
            if number >= published {
                return ctx
                    .fail(Fault::Wrong, "a publication that was not published, or one twice");
            }
            if let Err(why) = self.texts.check(text, &message, channel, number) {
                return ctx.fail(Fault::Wrong, why);
            }
        }
        state.next = Some(number + 1);
        self.delivered(channel, number, text.len(), ctx);
    }
}

impl WsScenario for Fanout {
    type State = State;
    const READY_WHEN_OPEN: bool = false;

    fn open(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        let place = self.free.pop().expect("as many places as connections");
        state.place = Some(place);
        state.role = self.settings.role(self.shard, place);
        match state.role {
            Role::Publisher(number) => {
                self.publisher(number).id = Some(ctx.id);
                ctx.ready();
            }
            Role::Beside => {
                ctx.ready();
                self.beside.open(&mut state.beside, ctx);
            }
            Role::Subscriber { channel } => {
                ctx.command(&subscribe(&identifier(channel, self.settings.args.kept), None));
            }
        }
    }

    fn message(&mut self, state: &mut State, piece: Piece<'_>, ctx: &mut Context<'_>) {
        let Some(text) = state.buffer.text(&piece, ctx) else { return };
        match state.role {
            Role::Subscriber { channel } => self.handle(channel, state, &text, ctx),
            Role::Publisher(_) | Role::Beside => {
                if let Some(message) = ServerMessage::<'_, IgnoredAny>::parse(&text, ctx) {
                    message.unexpected(ctx);
                }
            }
        }
    }

    fn pong(&mut self, state: &mut State, payload: &[u8], ctx: &mut Context<'_>) {
        self.beside.pong(&mut state.beside, payload, ctx);
    }

    fn expired(&mut self, state: &mut State, ctx: &mut Context<'_>) {
        match state.role {
            Role::Beside => self.beside.expired(&mut state.beside, ctx),
            Role::Subscriber { .. } => ctx.timed_out("not subscribed"),
            Role::Publisher(number) => {
                if self.shared.in_flight(number).load(Ordering::Acquire) > 0 {
                    ctx.timed_out("a publication not delivered to all");
                }
            }
        }
    }

    fn owed(&self, state: &State) -> u32 {
        match (state.role, state.next) {
            (Role::Subscriber { channel }, Some(next)) => {
                self.missing(channel, next).count() as u32
            }
            (Role::Beside, _) => self.beside.owed(&state.beside),
            _ => 0,
        }
    }

    fn begin(&mut self, output: &mut Output<'_>) {
        self.begun = Some(output.out.now());
        self.turn(output);
    }

    fn turn(&mut self, output: &mut Output<'_>) {
        if self.publishers.is_empty() {
            return;
        }
        self.shared.wakeups.taken(self.shard as usize);
        for index in 0..self.publishers.len() {
            self.publish(index, output);
        }
    }

    /// With a rate: when the next publication is due. A publisher that waits for room gets a wakeup.
    fn wake_at(&self) -> Option<Instant> {
        let args = &self.settings.args;
        let (Some(begun), Some(rate), None) = (self.begun, args.rate, self.ended) else {
            return None;
        };
        let able = self.publishers.iter().filter(|publisher| {
            publisher.id.is_some() && self.shared.channel(publisher.channel(args)).has_room()
        });
        able.map(|publisher| publisher.due(args, begun, rate)).min()
    }

    fn finish(&mut self, output: &mut Output<'_>) {
        self.ended = Some(output.out.now());
        self.beside.finish(output);
    }

    fn closed(&mut self, state: State) {
        match (state.role, state.next) {
            (Role::Publisher(number), _) if state.place.is_some() => {
                self.publisher(number).id = None;
            }
            (Role::Beside, _) => self.beside.closed(state.beside),
            (Role::Subscriber { channel }, Some(next)) => {
                let of_channel = self.shared.channel(channel);
                of_channel.members.fetch_sub(1, Ordering::Relaxed);
                for number in self.missing(channel, next) {
                    if of_channel.delivered(number) {
                        self.over(channel);
                    }
                }
            }
            _ => {}
        }
        self.free.extend(state.place);
    }
}

impl Fanout {
    /// Publications under way that a subscriber does not have.
    fn missing(&self, channel: u32, next: u64) -> Range<u64> {
        next..self.shared.channel(channel).published.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::*;
    use crate::engine::wakeups::Wakeups;
    use crate::scenarios::fanout::Args;
    use crate::scenarios::scenario::ClientSetup;

    fn settings() -> Settings {
        let every = Duration::from_secs(1);
        let args = Args {
            payload: 128,
            pipeline: 4,
            rate: Some(100.0),
            every,
            channels: 5,
            kept: false,
            publishers: 2,
            beside: 3,
            shared: OnceLock::new(),
        };
        let setup = ClientSetup { conns: 10, worker: 0, workers: 5, seed: 1 };
        Settings { args, setup }
    }

    /// Shows that all shards together have each role as often as asked, that publishers take
    /// their channels in turns, and that what is due is due once.
    #[test]
    fn every_connection_has_a_role_and_every_channel_a_publisher() {
        let settings = settings();
        let wakeups = Wakeups::new(4);
        let shared = Arc::new(settings.shared(wakeups));
        let shard = |worker| {
            let mut settings = settings.clone();
            settings.setup.worker = worker;
            Fanout::new(settings, Arc::clone(&shared), 3)
        };
        let shards: Vec<_> = (0..5).map(shard).collect();
        let roles_of = |number: u32| {
            let settings = &settings;
            (0..3).map(move |place| settings.role(number, place))
        };
        let roles: Vec<_> = (0..5).flat_map(roles_of).collect();
        let of_channel_count =
            |channel| roles.iter().filter(|&&r| r == Role::Subscriber { channel }).count();
        assert!((0..5).all(|channel| of_channel_count(channel) == 2), "{roles:?}");
        assert_eq!(roles[12..], [Role::Beside; 3], "on a shard of their own");
        assert!(!roles[..12].contains(&Role::Beside));

        let begun = Instant::now();
        let mut due = Vec::new();
        let mut channels = Vec::new();
        for shard in &shards {
            for publisher in &shard.publishers {
                for published in 0..6 {
                    let publisher = Publisher { published, ..*publisher };
                    channels.push(publisher.channel(&settings.args));
                    let at = publisher.due(&settings.args, begun, 1000.0);
                    due.push(at.duration_since(begun));
                }
            }
        }
        assert_eq!(channels, [0, 2, 4, 0, 2, 4, 1, 3, 1, 3, 1, 3]);
        due.sort_unstable();
        let expected: Vec<_> = (0..12).map(Duration::from_millis).collect();
        assert_eq!(due, expected);
    }
}
