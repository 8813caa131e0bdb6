//! The channels of this node in NATS: which it subscribes to, and what comes from them.
//!
//! A channel with history is opened in two steps: when NATS has answered a ping behind the subscription, this is in
//! force, and the newest publication of the channel is looked up. What arrives before its offset is known is held.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use murre_router::channels::{
    Arrived, ChannelError, FetchId, FetchReason, Fetched, Head, Interest, Place, Position,
};
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use super::envelope;
use super::link::Link;
use super::mail::{FromNats, Mail};
use super::names::{KeptIndex, Kind, epoch};
use super::publishes::{Acknowledged, Publish, Publishes};
use super::reads::{CHANNELS_MAX, Heads, Read, ReadError, Reads};
use super::streams::{Seen, Streams};
use super::wire::Message;
use crate::protocols::json::Validator;

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

/// A read for the owner of a channel.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    pub(super) shard: usize,
    pub(super) id: FetchId,
    pub(super) channel: Arc<str>,
    pub(super) kept: KeptIndex,
    pub(super) after: u64,
    pub(super) reason: FetchReason,
    /// When its reader is told that it has failed.
    pub(super) until: Instant,
}

/// The outcome of a task on the thread.
pub(super) enum Done {
    Stream(KeptIndex, Result<String, String>),
    Heads {
        kept: KeptIndex,
        connection: u64,
        stream: Arc<str>,
        channels: Vec<Arc<str>>,
        heads: Result<Heads, ReadError>,
    },
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
    /// When it was made, and when the one before broke.
    connected_at: Option<Instant>,
    disconnected_at: Option<Instant>,
}

/// The stream of a namespace with history.
struct KeptState {
    /// The name by which it was known last.
    name: Option<Arc<str>>,
    /// The greatest offset that was seen in it.
    seen: u64,
    look: Look,
    /// Channels whose newest publication is to be looked up.
    to_read: Vec<Arc<str>>,
    /// Look-ups in flight.
    reading: u32,
    /// Why there is no stream, as the log has it.
    problem: Option<String>,
    /// Reads that wait for the stream.
    fetches: Vec<Fetch>,
}

/// Whether a stream is looked for.
enum Look {
    /// From this time on.
    At(Instant),
    Running,
    /// It was found.
    Done,
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

/// How far a channel with history is. Those without are always open.
enum State {
    Opening { held: Vec<Arrived>, has_dropped: bool },
    Open,
}

/// The longest time for which joins wait for a channel.
const PATIENCE: Duration = Duration::from_secs(4);
/// The time for which a channel without subscribers stays subscribed.
const LEAVE_AFTER: Duration = Duration::from_secs(2);
/// Publications that are held for a channel that is being opened.
const HELD_MAX: usize = 256;
/// Subscriptions that are made again between two pings: the server is silent while it makes them, and must not look
/// dead.
const SUBSCRIPTIONS_PER_PING: usize = 8192;
/// Look-ups in flight for one namespace.
const READING_MAX: u32 = 2;
/// The pause before a stream that could not be had is looked for again.
const STREAM_AGAIN: Duration = Duration::from_millis(500);
/// A loss of messages is noticed within this time after a connection is there.
const NOTICED: Duration = Duration::from_secs(60);
/// In a cluster of NATS servers, the time by which all of them know a subscription.
const KNOWN_EVERYWHERE: Duration = Duration::from_secs(2);
/// In a cluster of NATS servers, the time between two look-ups of the heads of all channels.
const CHECK_EVERY: Duration = Duration::from_secs(60);

impl Channels {
    pub(super) fn new(
        shared: Arc<Shared>,
        streams: Streams,
        reads: Reads,
        done: UnboundedSender<Done>,
        mail: Mail,
        now: Instant,
    ) -> Self {
        let kept = || KeptState {
            name: None,
            seen: 0,
            look: Look::At(now),
            to_read: Vec::new(),
            reading: 0,
            problem: None,
            fetches: Vec::new(),
        };
        Channels {
            of_kept: streams.names.kept().iter().map(|_| kept()).collect(),
            publishes: Publishes::new(shared.node.incarnation),
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
            connected_at: None,
            disconnected_at: None,
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
                self.fetch(fetch, now);
            }
            ChannelCommand::Doubt => self.doubt(link, now),
        }
    }

    /// Messages may be lost between NATS servers, which the server of this node does not say: the heads of all
    /// channels are looked up soon.
    pub(super) fn doubt(&mut self, link: &Link, now: Instant) {
        if link.is_in_cluster() {
            let soon = now.checked_add(KNOWN_EVERYWHERE);
            self.check_at = self.check_at.min(soon).or(soon);
        }
    }

    /// Looks up the heads of all channels, if that is due.
    fn check(&mut self, link: &Link, now: Instant) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        let is_busy = |state: &KeptState| state.reading > 0 || !state.to_read.is_empty();
        if self.of_kept.iter().any(is_busy) {
            self.check_at = now.checked_add(KNOWN_EVERYWHERE);
            return;
        }
        self.check_at = now.checked_add(CHECK_EVERY).filter(|_| link.is_in_cluster());
        self.of_kept.iter_mut().for_each(|state| state.look_again(now));
        for (channel, entry) in &self.channels {
            if let (State::Open, Some(kept)) = (&entry.state, entry.kept) {
                self.of_kept[kept].to_read.push(Arc::clone(channel));
            }
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
            self.open(channel);
        }
    }

    fn subject(&self, channel: &str, kept: Option<KeptIndex>) -> String {
        let kind = if kept.is_some() { Kind::FromStream } else { Kind::Plain };
        self.streams.names.subject(kind, channel)
    }

    /// Begins to open a channel with history, whose subscription has been sent.
    fn open(&mut self, channel: Arc<str>) {
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        if let State::Open = entry.state {
            entry.state = State::Opening { held: Vec::new(), has_dropped: false };
        }
        self.new.push(channel);
    }

    /// A connection is there: all is subscribed to, and sent, again.
    pub(super) fn connected(&mut self, link: &mut Link, now: Instant) {
        self.unconfirmed.clear();
        self.new.clear();
        self.connection = self.connection.saturating_add(1);
        self.connected_at = Some(now);
        self.check_at = now.checked_add(CHECK_EVERY).filter(|_| link.is_in_cluster());
        for state in &mut self.of_kept {
            state.to_read.clear();
        }
        let all: Vec<_> = self
            .channels
            .iter()
            .map(|(channel, entry)| (Arc::clone(channel), entry.number, entry.kept))
            .collect();
        for (at, (channel, number, kept)) in all.into_iter().enumerate() {
            link.subscribe(&self.subject(&channel, kept), None, number);
            if kept.is_some() {
                self.open(channel);
            }
            if at.checked_rem(SUBSCRIPTIONS_PER_PING) == Some(0) {
                self.confirm(link);
            }
        }
        self.publishes.again(None, link, &mut self.mail);
    }

    /// The connection is broken: messages may be lost.
    pub(super) fn disconnected(&mut self, now: Instant) {
        self.disconnected_at = Some(now);
        // A stream may be deleted meanwhile. Reads wait until it is found again.
        self.of_kept.iter_mut().for_each(|state| state.look_again(now));
        for entry in self.channels.values_mut().filter(|entry| entry.kept.is_some()) {
            if let State::Open = entry.state {
                entry.state = State::Opening { held: Vec::new(), has_dropped: false };
            }
        }
        self.mail.add_loss();
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
                        self.renew(kept, stream);
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
        match &mut entry.state {
            _ if entry.left => {}
            State::Open => self.mail.add(entry.shard, FromNats::Arrived { channel, arrived }),
            State::Opening { held, has_dropped, .. } => {
                if held.len() < HELD_MAX {
                    held.push(arrived);
                } else {
                    *has_dropped = true;
                }
            }
        }
    }

    /// The stream of a namespace is another one now.
    fn renew(&mut self, kept: KeptIndex, stream: Arc<str>) {
        tracing::warn!(%stream, "another stream keeps the history of a namespace now: what was kept is lost");
        let state = &mut self.of_kept[kept];
        (state.name, state.seen) = (Some(stream), 0);
        state.to_read.clear();
        let of_kept = self.channels.iter().filter(|(_, entry)| entry.kept == Some(kept));
        let all: Vec<_> = of_kept.map(|(channel, _)| Arc::clone(channel)).collect();
        all.into_iter().for_each(|channel| self.open(channel));
    }

    /// Takes the outcome of a task.
    pub(super) fn done(&mut self, done: Done, link: &mut Link, now: Instant) {
        match done {
            Done::Stream(kept, Ok(stream)) => {
                let stream: Arc<str> = stream.into();
                let state = &mut self.of_kept[kept];
                (state.look, state.problem) = (Look::Done, None);
                let fetches = mem::take(&mut state.fetches);
                match &state.name {
                    Some(known) if *known != stream => self.renew(kept, stream),
                    _ => state.name = Some(stream),
                }
                fetches.into_iter().for_each(|fetch| self.fetch(fetch, now));
                self.publishes.again(Some(kept), link, &mut self.mail);
            }
            Done::Stream(kept, Err(why)) => {
                let state = &mut self.of_kept[kept];
                state.look = Look::At(now.checked_add(STREAM_AGAIN).unwrap_or(now));
                if state.problem.as_ref() != Some(&why) {
                    let namespace = &self.streams.names.kept()[kept].namespace;
                    tracing::warn!(%namespace, why, "no stream for the history of a namespace; trying again");
                    state.problem = Some(why);
                }
            }
            Done::Heads { kept, connection, stream, channels, heads } => {
                let state = &mut self.of_kept[kept];
                state.reading = state.reading.saturating_sub(1);
                // All are opened again on a new connection, and in another stream.
                if connection != self.connection || state.name.as_ref() != Some(&stream) {
                    return;
                }
                match heads {
                    Ok(heads) => {
                        state.seen = state.seen.max(heads.newest());
                        for channel in channels {
                            let newest = heads.of(&channel);
                            self.opened(channel, &stream, newest, link, now);
                        }
                    }
                    Err(why) => {
                        state.to_read.extend(channels);
                        if why == ReadError::NoStream {
                            state.look_again(now);
                        }
                    }
                }
            }
            Done::Fetched(fetch, stream, outcome) => {
                let &Fetch { shard, id, ref channel, kept, .. } = &fetch;
                let outcome = match outcome {
                    Ok(Read { publications, is_complete }) => {
                        let epoch = epoch(&stream, channel);
                        Ok(Fetched { epoch, publications, is_complete })
                    }
                    Err(ReadError::NoStream) => {
                        // It is read from the stream that is found, or made, then.
                        self.of_kept[kept].look_again(now);
                        return self.fetch(fetch, now);
                    }
                    Err(ReadError::Away) if now < fetch.until => return self.fetch(fetch, now),
                    Err(ReadError::Away | ReadError::TooLarge) => Err(ChannelError::Overloaded),
                };
                self.mail.add(shard, FromNats::Fetched { id, outcome });
            }
        }
    }

    /// The newest publication of a channel is known.
    fn opened(
        &mut self,
        channel: Arc<str>,
        stream: &str,
        newest: u64,
        link: &mut Link,
        now: Instant,
    ) {
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        let (shard, epoch) = (entry.shard, epoch(stream, &channel));
        if entry.left {
            entry.state = State::Open;
            return;
        }
        let head = Head { epoch, newest };
        self.mail.add(shard, FromNats::Opened { channel: Arc::clone(&channel), head });
        let State::Opening { held, has_dropped } = mem::replace(&mut entry.state, State::Open)
        else {
            return;
        };
        let is_later = |arrived: &Arrived| {
            let at = arrived.place.as_ref().map(|at| at.position);
            at.is_some_and(|at| at.epoch == epoch && at.offset > newest)
        };
        for arrived in held.into_iter().filter(is_later) {
            self.mail.add(shard, FromNats::Arrived { channel: Arc::clone(&channel), arrived });
        }
        if has_dropped {
            self.mail.add(shard, FromNats::Lost { channel: Some(Arc::clone(&channel)) });
            self.open(channel);
        } else if link.is_in_cluster()
            && let Some(at) = now.checked_add(KNOWN_EVERYWHERE)
        {
            self.checked_again.push_back((at, channel));
        }
    }

    /// Reads a channel, as soon as its stream is known.
    fn fetch(&mut self, fetch: Fetch, now: Instant) {
        let state = &mut self.of_kept[fetch.kept];
        let (Some(stream), Look::Done) = (&state.name, &state.look) else {
            state.fetches.push(fetch);
            return;
        };
        let (stream, reads, done) = (Arc::clone(stream), self.reads.clone(), self.done.clone());
        let missed_for = match fetch.reason {
            FetchReason::Gap => self.missed_for(now),
            FetchReason::Recovery | FetchReason::History => Duration::MAX,
        };
        tokio::spawn(async move {
            let outcome = reads.range(&stream, &fetch, missed_for).await;
            let _ = done.send(Done::Fetched(fetch, stream, outcome));
        });
    }

    /// The longest time for which messages may have been missed, if some were.
    fn missed_for(&self, now: Instant) -> Duration {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        match (since(self.connected_at), since(self.disconnected_at)) {
            (Some(up), Some(down)) if up < NOTICED => down,
            _ => NOTICED,
        }
    }

    /// What follows from the messages and commands that were taken: pings, look-ups, mail.
    pub(super) fn turn(&mut self, link: &mut Link, now: Instant) {
        if link.is_up() {
            if !self.new.is_empty() {
                self.confirm(link);
            }
            while self.unconfirmed.front().is_some_and(|(pongs, _)| *pongs <= link.pongs()) {
                let Some((_, channel)) = self.unconfirmed.pop_front() else { break };
                if let Some(kept) = self.channels.get(&channel).and_then(|entry| entry.kept) {
                    self.of_kept[kept].to_read.push(channel);
                }
            }
            for kept in 0..self.of_kept.len() {
                self.look(kept, now);
                self.read_heads(kept);
            }
        }
        self.mail.post();
    }

    /// Has the server answer when the new subscriptions are in force.
    fn confirm(&mut self, link: &mut Link) {
        let pongs = link.ping();
        self.unconfirmed.extend(self.new.drain(..).map(|channel| (pongs, channel)));
    }

    /// Looks for the stream of a namespace, if its time has come.
    fn look(&mut self, kept: KeptIndex, now: Instant) {
        let state = &mut self.of_kept[kept];
        if matches!(state.look, Look::At(at) if at <= now) {
            state.look = Look::Running;
            let seen = state.name.clone().map(|stream| Seen { stream, offset: state.seen });
            let (streams, done) = (self.streams.clone(), self.done.clone());
            tokio::spawn(async move {
                let found = streams.find(kept, seen).await;
                let _ = done.send(Done::Stream(kept, found));
            });
        }
    }

    /// Looks up the newest publications of channels that are being opened.
    fn read_heads(&mut self, kept: KeptIndex) {
        let state = &mut self.of_kept[kept];
        while let (Some(stream), Look::Done) = (&state.name, &state.look)
            && state.reading < READING_MAX
            && !state.to_read.is_empty()
        {
            let count = state.to_read.len().min(CHANNELS_MAX);
            let channels: Vec<_> = state.to_read.drain(..count).collect();
            state.reading = state.reading.saturating_add(1);
            let (stream, connection) = (Arc::clone(stream), self.connection);
            let (reads, done) = (self.reads.clone(), self.done.clone());
            tokio::spawn(async move {
                let heads = reads.heads(&stream, &channels).await;
                let _ = done.send(Done::Heads { kept, connection, stream, channels, heads });
            });
        }
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
        for state in &mut self.of_kept {
            for fetch in state.fetches.extract_if(.., |fetch| fetch.until <= now) {
                let outcome = Err(ChannelError::Overloaded);
                self.mail.add(fetch.shard, FromNats::Fetched { id: fetch.id, outcome });
            }
        }
        let counts = &self.shared.counts;
        counts.channels.store(self.channels.len() as u64, Relaxed);
        counts.publishes_waiting.store(self.publishes.len() as u64, Relaxed);
    }
}

impl KeptState {
    /// Looks for the stream again, unless it is being looked for.
    fn look_again(&mut self, now: Instant) {
        if let Look::Done = self.look {
            self.look = Look::At(now);
        }
    }
}

/// The first channel of a list whose time has come.
fn due(list: &mut VecDeque<(Instant, Arc<str>)>, now: Instant) -> Option<Arc<str>> {
    let is_due = list.front().is_some_and(|(at, _)| *at <= now);
    if is_due { list.pop_front().map(|(_, channel)| channel) } else { None }
}
