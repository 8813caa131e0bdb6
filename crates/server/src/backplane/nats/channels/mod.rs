//! The channels of this node in NATS: which it subscribes to, and what comes from them.

mod opening;
mod reading;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use murre_router::channels::{Arrived, Interest, Place, Position};
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use super::envelope;
use super::link::Link;
use super::mail::{FromNats, Mail};
use super::names::{KeptIndex, Kind, epoch};
use super::publishes::{Acknowledged, Publish, Publishes};
use super::reads::{Read, ReadError, Reads};
use super::streams::Streams;
use super::wire::Message;
use crate::protocols::json::Validator;

use self::opening::{HeadsRead, State};
pub(super) use self::reading::Fetch;
use self::reading::KeptState;

/// What shards want of NATS.
#[derive(Debug)]
pub(super) enum ChannelCommand {
    Publish(Publish),
    Interest {
        shard: usize,
        channel: Arc<str>,
        interest: Interest,
        kept: Option<KeptIndex>,
    },
    Fetch(Fetch),
    /// See [`Channels::doubt`].
    Doubt,
}

/// The outcome of a task on the thread.
pub(super) enum Done {
    Stream(KeptIndex, Result<String, String>),
    Heads(HeadsRead),
    Fetched(Fetch, Arc<str>, Result<Read, ReadError>),
}

/// All channels, streams, and publications on their way.
pub(super) struct Channels {
    shared: Arc<Shared>,
    streams: Streams,
    reads: Reads,
    done: UnboundedSender<Done>,
    pub(super) mail: Mail,
    publishes: Publishes,
    of_kept: Vec<KeptState>,
    channels: HashMap<Arc<str>, Channel>,
    by_number: HashMap<u64, Arc<str>>,
    /// Subscriptions that are in force once so many pongs have come.
    unconfirmed: VecDeque<(u64, Arc<str>)>,
    /// Subscriptions made since the last ping.
    new: Vec<Arc<str>>,
    /// Channels that were told to wait, and until when.
    waiting: VecDeque<(Instant, Arc<str>)>,
    /// Channels without interest, and when they are left.
    leaving: VecDeque<(Instant, Arc<str>)>,
    /// Channels whose head is looked up again, and when.
    checked_again: VecDeque<(Instant, Arc<str>)>,
    /// In a cluster of NATS servers, when the heads of all channels are looked up again.
    check_at: Option<Instant>,
    validator: Validator,
    /// The number of the connection.
    connection: u64,
}

/// A channel that this node is subscribed to.
struct Channel {
    number: u64,
    shard: usize,
    kept: Option<KeptIndex>,
    /// Whether the shard has no interest any more.
    left: bool,
    state: State,
    /// The offset of a message that was no publication, and of that before it.
    skipped: Option<(u64, u64)>,
}

/// The longest time for which joins wait for a channel.
const PATIENCE: Duration = Duration::from_secs(4);
/// The time for which a channel without subscribers stays subscribed.
const LEAVE_AFTER: Duration = Duration::from_secs(2);

impl Channels {
    pub(super) fn new(
        shared: Arc<Shared>,
        streams: Streams,
        reads: Reads,
        done: UnboundedSender<Done>,
        mail: Mail,
        now: Instant,
    ) -> Self {
        let kept = streams.names.kept();
        Channels {
            of_kept: kept.iter().map(|_| KeptState::new(now)).collect(),
            publishes: Publishes::new(Arc::clone(&shared), kept),
            shared,
            streams,
            reads,
            done,
            mail,
            channels: HashMap::new(),
            by_number: HashMap::new(),
            unconfirmed: VecDeque::new(),
            new: Vec::new(),
            waiting: VecDeque::new(),
            leaving: VecDeque::new(),
            checked_again: VecDeque::new(),
            check_at: None,
            validator: Validator::default(),
            connection: 0,
        }
    }

    /// Does what a shard wants.
    pub(super) fn obey(&mut self, command: ChannelCommand, link: &mut Link, now: Instant) {
        match command {
            ChannelCommand::Publish(publish) => {
                self.shared.waiting.release(publish.room);
                self.publishes.begin(publish, link, &mut self.mail, now);
            }
            ChannelCommand::Interest { shard, channel, interest, kept } => match interest {
                Interest::First => self.enter(shard, channel, kept, link, now),
                Interest::Last => {
                    if let (Some(entry), Some(at)) =
                        (self.channels.get_mut(&channel), now.checked_add(LEAVE_AFTER))
                    {
                        entry.left = true;
                        self.leaving.push_back((at, channel));
                    }
                }
            },
            ChannelCommand::Fetch(fetch) => {
                self.shared.counts.reads.fetch_add(1, Relaxed);
                self.fetch(fetch, link);
            }
            ChannelCommand::Doubt => self.doubt(link, now),
        }
    }

    fn enter(
        &mut self,
        shard: usize,
        channel: Arc<str>,
        kept: Option<KeptIndex>,
        link: &mut Link,
        now: Instant,
    ) {
        let is_new = !self.channels.contains_key(&channel);
        if is_new {
            let number = self.shared.number();
            self.by_number.insert(number, Arc::clone(&channel));
            let state = State::Open;
            let entry = Channel { number, shard, kept, left: false, state, skipped: None };
            self.channels.insert(Arc::clone(&channel), entry);
            link.subscribe(&self.subject(&channel, kept), None, number);
        }
        if let Some(entry) = self.channels.get_mut(&channel) {
            entry.left = false;
        }
        if kept.is_some() {
            if let Some(until) = now.checked_add(PATIENCE) {
                self.waiting.push_back((until, Arc::clone(&channel)));
            }
            self.open(channel, now);
        }
    }

    fn subject(&self, channel: &str, kept: Option<KeptIndex>) -> String {
        let kind = if kept.is_some() { Kind::FromStream } else { Kind::Plain };
        self.streams.names.subject(kind, channel)
    }

    /// Takes a message that is for none of the handlers of the link.
    pub(super) fn message(&mut self, message: Message, link: &mut Link, now: Instant) {
        if let Some(end) = link.reply_end(&message) {
            match self.publishes.acknowledged(&end, &message, &mut self.mail, now) {
                Some(Acknowledged::NoStream(kept)) => self.of_kept[kept].look_again(now),
                Some(Acknowledged::Done) | None => {}
            }
            return;
        }
        // One on its way when its channel was left has none.
        let Some(channel) = self.by_number.get(&message.subscription) else { return };
        let channel = Arc::clone(channel);
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        let at = match entry.kept {
            None => None,
            Some(kept) => {
                let (Some(stream), Some(offset)) =
                    (message.header("Nats-Stream"), message.number("Nats-Sequence"))
                else {
                    // No stream has published it.
                    self.shared.counts.malformed.fetch_add(1, Relaxed);
                    return;
                };
                let previous = message.number("Nats-Last-Sequence").unwrap_or(0);
                let previous = match entry.skipped {
                    Some((skipped, before)) if skipped == previous => before,
                    _ => previous,
                };
                let position = Position { epoch: epoch(stream, &channel), offset };
                let state = &mut self.of_kept[kept];
                match &state.name {
                    Some(known) if **known == *stream => state.seen = state.seen.max(offset),
                    Some(_) => {
                        let stream = Arc::from(stream);
                        self.renew(kept, stream, now);
                    }
                    None => {}
                }
                Some(Place { position, previous })
            }
        };
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        let Some((payload, except)) = envelope::open(&message.payload, &mut self.validator) else {
            self.shared.counts.malformed.fetch_add(1, Relaxed);
            if let Some(Place { position, previous }) = at {
                entry.skipped = Some((position.offset, previous));
            }
            return;
        };
        let is_ours = |incarnation: &u64| *incarnation == self.shared.node.incarnation;
        let except =
            except.filter(|(incarnation, _)| is_ours(incarnation)).map(|(_, origin)| origin);
        let arrived = Arrived { payload, except, place: at };
        if !entry.left
            && let Some(arrived) = entry.state.hold(arrived)
        {
            self.mail.add(entry.shard, FromNats::Arrived { channel, arrived });
        }
    }

    /// Takes the outcome of a task.
    pub(super) fn done(&mut self, done: Done, link: &mut Link, now: Instant) {
        match done {
            Done::Stream(kept, found) => self.found(kept, found, link, now),
            Done::Heads(read) => self.heads(read, link, now),
            Done::Fetched(fetch, stream, outcome) => {
                self.fetched(fetch, &stream, outcome, link, now);
            }
        }
    }

    /// What follows from the messages and commands that were taken: pings, look-ups, mail.
    pub(super) fn turn(&mut self, link: &mut Link, now: Instant) {
        if link.is_up() {
            if !self.new.is_empty() {
                self.confirm(link);
            }
            self.take_confirmed(link);
            for kept in 0..self.of_kept.len() {
                self.look(kept, now);
                self.read_heads(kept);
            }
        }
        self.mail.post(link.proved());
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, link: &mut Link, now: Instant) {
        self.publishes.tick(link, &mut self.mail, now);
        while let Some(channel) = due(&mut self.waiting, now) {
            if let Some(entry) = self.channels.get(&channel)
                && matches!(entry.state, State::Opening { .. })
                && !entry.left
            {
                self.mail.add(entry.shard, FromNats::Unopened { channel });
            }
        }
        while let Some(channel) = due(&mut self.leaving, now) {
            if let Some(entry) = self.channels.get(&channel)
                && entry.left
            {
                link.unsubscribe(entry.number);
                self.by_number.remove(&entry.number);
                self.channels.remove(&channel);
            }
        }
        while let Some(channel) = due(&mut self.checked_again, now) {
            if let Some(entry) = self.channels.get(&channel)
                && let (State::Open, Some(kept)) = (&entry.state, entry.kept)
            {
                self.of_kept[kept].to_read.push(channel);
            }
        }
        self.check(link, now);
        self.give_up_fetches(now);
        let counts = &self.shared.counts;
        counts.channels.store(self.channels.len() as u64, Relaxed);
        counts.publishes_waiting.store(self.publishes.len() as u64, Relaxed);
    }
}

/// The first channel of a list whose time has come.
fn due(list: &mut VecDeque<(Instant, Arc<str>)>, now: Instant) -> Option<Arc<str>> {
    let is_due = list.front().is_some_and(|(at, _)| *at <= now);
    if is_due { list.pop_front().map(|(_, channel)| channel) } else { None }
}
