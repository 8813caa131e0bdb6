//! A broker that orders the channels of several nodes: it is late, loses what it sends, disconnects nodes,
//! drops old publications, and forgets all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use murre_router::channels::{
    Append, AppendId, Arrived, Backplane, ChannelError, Fetch, FetchId, FetchReason, Fetched,
    FetchedPublication, Head, Interest, Outgoing, Place, Position,
};

use super::{CHANNELS, known, number, payload, rules};

/// What a node asks of the broker.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Append(AppendId, usize, u32),
    Interest(usize, Interest),
    /// After an offset, up to another one; and the time at which it was asked for.
    Fetch(FetchId, usize, (u64, Option<u64>), FetchReason, u64),
}

/// What comes for a shard of a node.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    Appended(AppendId, Result<Option<Position>, ChannelError>),
    /// The answer about a channel. It comes after this number of arrivals, which were sent before.
    Fetched(FetchId, Result<Fetched, ChannelError>, usize, usize),
    Opened(usize, Head),
    Unopened(usize),
    Arrived(usize, Arrived),
    /// Publications since a time may be missing.
    Lost(usize, u64),
}

/// The commands of one node.
#[derive(Clone, Default)]
pub(super) struct Commands(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// With the shards that ask.
    commands: VecDeque<(usize, Command)>,
    /// Publications are refused at once.
    refuses: bool,
    now: u64,
}

impl Commands {
    pub(super) fn next(&self) -> Option<(usize, Command)> {
        self.0.lock().expect("one thread").commands.pop_front()
    }

    pub(super) fn are_empty(&self) -> bool {
        self.0.lock().expect("one thread").commands.is_empty()
    }

    pub(super) fn refuse(&self, refuses: bool) {
        self.0.lock().expect("one thread").refuses = refuses;
    }

    pub(super) fn set_time(&self, now: u64) {
        self.0.lock().expect("one thread").now = now;
    }

    pub(super) fn of_shard(&self, shard: usize) -> Box<dyn Backplane + Send> {
        Box::new(ShardCommands { shard, commands: self.clone() })
    }
}

struct ShardCommands {
    shard: usize,
    commands: Commands,
}

impl ShardCommands {
    fn push(&self, command: Command) {
        self.commands.0.lock().expect("one thread").commands.push_back((self.shard, command));
    }
}

impl Backplane for ShardCommands {
    fn orders(&self) -> bool {
        true
    }

    fn append(&mut self, id: AppendId, outgoing: Outgoing<'_>) -> Append {
        let channel = known(outgoing.channel);
        assert_eq!(outgoing.keeps_history, rules(CHANNELS[channel]).is_some());
        if self.commands.0.lock().expect("one thread").refuses {
            return Append::Refuse;
        }
        self.push(Command::Append(id, channel, number(outgoing.payload)));
        Append::Later
    }

    fn interest(&mut self, channel: &str, interest: Interest, keeps_history: bool) {
        let channel = known(channel);
        assert_eq!(keeps_history, rules(CHANNELS[channel]).is_some());
        self.push(Command::Interest(channel, interest));
    }

    fn fetch(&mut self, id: FetchId, fetch: Fetch<'_>) {
        let Fetch { channel, after, up_to, reason } = fetch;
        let now = self.commands.0.lock().expect("one thread").now;
        self.push(Command::Fetch(id, known(channel), (after, up_to), reason, now));
    }
}

/// A publication as the broker has ordered it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) position: Position,
    pub(super) number: u32,
    at: u64,
}

/// One channel at the broker.
#[derive(Default)]
pub(super) struct Stream {
    /// All that were ever published, in order.
    pub(super) all: Vec<Stored>,
    /// The first of these that is kept.
    first: usize,
    /// The greatest offset of this epoch that was dropped.
    dropped: u64,
}

/// The connection of one node.
#[derive(Default)]
pub(super) struct Link {
    pub(super) is_connected: bool,
    pub(super) commands: Commands,
    /// By channel: the shard that is subscribed, and whether the end of its interest waits.
    subscriptions: BTreeMap<usize, (usize, bool)>,
    /// Channels whose head has yet to be read.
    heads: Vec<usize>,
    /// By channel: what comes in its order.
    arrivals: BTreeMap<usize, VecDeque<(usize, Mail)>>,
    /// What comes in any order.
    pub(super) answers: Vec<(usize, Mail)>,
}

pub(super) struct Broker {
    pub(super) epoch: u32,
    sequence: u64,
    pub(super) streams: [Stream; CHANNELS.len()],
    pub(super) links: Vec<Link>,
}

impl Broker {
    pub(super) fn new(nodes: usize) -> Self {
        let link = || Link { is_connected: true, ..Link::default() };
        let links = (0..nodes).map(|_| link()).collect();
        Broker { epoch: 100, sequence: 0, streams: Default::default(), links }
    }

    /// Executes the next command of a node. `luck` decides what goes wrong.
    pub(super) fn execute(&mut self, node: usize, luck: u32, now: u64) -> bool {
        let Some((shard, command)) = self.links[node].commands.next() else { return false };
        let fails = !self.links[node].is_connected || luck == 1;
        match command {
            Command::Append(id, channel, number) => {
                let outcome = match fails {
                    true => Err(ChannelError::Overloaded),
                    false => Ok(self.publish(channel, number, node, now)),
                };
                // The answer may be lost.
                let outcome = if luck == 2 { Err(ChannelError::Overloaded) } else { outcome };
                self.links[node].answers.push((shard, Mail::Appended(id, outcome)));
            }
            Command::Interest(channel, Interest::First) => {
                let link = &mut self.links[node];
                link.subscriptions.insert(channel, (shard, false));
                if rules(CHANNELS[channel]).is_none() {
                } else if !link.is_connected && luck > 3 {
                    link.answers.push((shard, Mail::Unopened(channel)));
                } else if link.is_connected {
                    link.read_head(channel);
                }
            }
            Command::Interest(channel, Interest::Last) => {
                let subscription = self.links[node].subscriptions.get_mut(&channel);
                subscription.expect("it was subscribed").1 = true;
            }
            Command::Fetch(id, channel, range, reason, asked) => {
                let answer = match fails {
                    true => Err(ChannelError::Overloaded),
                    false => Ok(self.fetch(channel, range, (reason, asked), luck, now)),
                };
                let link = &mut self.links[node];
                let before = link.arrivals.get(&channel).map_or(0, VecDeque::len);
                link.answers.push((shard, Mail::Fetched(id, answer, channel, before)));
            }
        }
        true
    }

    /// Ends the subscriptions whose interest has ended for a while: nothing of them comes any more.
    pub(super) fn unsubscribe(&mut self, node: usize) {
        let Link { subscriptions, heads, arrivals, answers, commands, .. } = &mut self.links[node];
        if !commands.are_empty() {
            return;
        }
        subscriptions.retain(|channel, (_, ends)| {
            if *ends {
                heads.retain(|head| head != channel);
                arrivals.remove(channel);
                answers.retain(|(_, mail)| {
                    !matches!(mail, Mail::Opened(of, _) | Mail::Unopened(of) if of == channel)
                });
            }
            !*ends
        });
    }

    fn publish(&mut self, channel: usize, number: u32, by: usize, now: u64) -> Option<Position> {
        self.expire(now);
        let stream = &mut self.streams[channel];
        self.sequence += 1;
        let position = Position { epoch: self.epoch, offset: self.sequence };
        let kept = &stream.all[stream.first..];
        let previous = kept.last().map_or(0, |stored| stored.position.offset);
        stream.all.push(Stored { position, number, at: now });
        let retention = rules(CHANNELS[channel]);
        let place = retention.map(|_| Place { position, previous });
        match retention {
            None => stream.first = stream.all.len(),
            Some(retention) => {
                while stream.all.len() - stream.first > retention.size as usize {
                    stream.drop_oldest();
                }
            }
        }
        for (node, link) in self.links.iter_mut().enumerate() {
            if let Some((shard, _)) = link.subscriptions.get(&channel)
                && link.is_connected
            {
                let except = (node == by && number % 8 == 7).then_some(super::NOBODY);
                let arrived = Arrived { payload: payload(number), except, place };
                let mail = Mail::Arrived(channel, arrived);
                link.arrivals.entry(channel).or_default().push_back((*shard, mail));
            }
        }
        place.map(|place| place.position)
    }

    fn fetch(
        &mut self,
        channel: usize,
        (after, up_to): (u64, Option<u64>),
        (reason, asked): (FetchReason, u64),
        luck: u32,
        now: u64,
    ) -> Fetched {
        self.expire(now);
        let stream = &self.streams[channel];
        let retention = rules(CHANNELS[channel]).expect("it keeps history");
        let is_asked = |offset: u64| offset > after && up_to.is_none_or(|up_to| offset <= up_to);
        let kept = stream.kept().iter().filter(|stored| is_asked(stored.position.offset));
        let publications = kept.map(|stored| FetchedPublication {
            offset: stored.position.offset,
            age_ms: now - stored.at,
            payload: payload(stored.number),
        });
        let mut publications: Vec<_> = publications.collect();
        let is_complete = match reason {
            // As NATS does not say what it has dropped.
            FetchReason::Gap { missed_ms } => {
                stream.kept().iter().any(|stored| stored.position.offset == after)
                    || publications.len() < retention.size as usize
                        && missed_ms + (now - asked) < retention.ttl_ms
            }
            FetchReason::Recovery | FetchReason::History => stream.dropped <= after,
        };
        let is_gap = matches!(reason, FetchReason::Gap { .. });
        // A part, or the answer of a replica that is behind.
        let has_more = is_gap && luck == 5 && publications.len() > 1;
        if has_more {
            publications.truncate(1);
        } else if is_gap && luck == 6 {
            publications.pop();
        }
        Fetched {
            epoch: self.epoch,
            reached: publications.last().map_or(after, |last| last.offset),
            publications,
            has_more,
            is_complete: is_complete && luck != 4,
        }
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, now: u64) {
        for (channel, stream) in self.streams.iter_mut().enumerate() {
            let Some(retention) = rules(CHANNELS[channel]) else { continue };
            while stream.kept().first().is_some_and(|first| first.at + retention.ttl_ms <= now) {
                stream.drop_oldest();
            }
        }
    }

    /// The time at which the publication in this mail was taken, if it is kept.
    pub(super) fn time_of(&self, mail: &Mail) -> Option<u64> {
        let Mail::Arrived(channel, _) = mail else { return None };
        self.streams[*channel].time_of(mail)
    }

    /// The stream is deleted and made anew.
    pub(super) fn forget(&mut self) {
        self.epoch += 7;
        self.sequence = 0;
        for stream in &mut self.streams {
            (stream.first, stream.dropped) = (stream.all.len(), 0);
        }
        for link in &mut self.links {
            link.reopen();
        }
    }

    /// Reads a head that was asked for.
    pub(super) fn read_head(&mut self, node: usize, which: usize, now: u64) -> bool {
        self.expire(now);
        let link = &mut self.links[node];
        if link.heads.is_empty() || !link.is_connected {
            return false;
        }
        let at = which % link.heads.len();
        let channel = link.heads.swap_remove(at);
        let kept = self.streams[channel].kept().last().map(|stored| stored.position.offset);
        let newest = kept.unwrap_or(self.sequence);
        let head = Head { epoch: self.epoch, newest, is_kept: kept.is_some() };
        let shard = link.subscriptions[&channel].0;
        link.answers.push((shard, Mail::Opened(channel, head)));
        true
    }

    /// Loses a node's connection, and some of what is on its way. Returns the time since which publications may be
    /// missing.
    pub(super) fn disconnect(&mut self, node: usize, kept: usize, now: u64) -> u64 {
        let link = &mut self.links[node];
        link.is_connected = false;
        link.heads.clear();
        let mut since = now;
        for (channel, arrivals) in &mut link.arrivals {
            let lost = arrivals.drain(kept.min(arrivals.len())..);
            let times = lost.filter_map(|(_, mail)| self.streams[*channel].time_of(&mail));
            since = times.chain([since]).min().expect("one at least");
        }
        link.answers.retain_mut(|(_, mail)| match mail {
            Mail::Appended(_, outcome) => {
                *outcome = Err(ChannelError::Overloaded);
                true
            }
            Mail::Fetched(_, answer, ..) => {
                *answer = Err(ChannelError::Overloaded);
                true
            }
            Mail::Opened(..) => false,
            _ => true,
        });
        since
    }

    pub(super) fn reconnect(&mut self, node: usize) {
        let link = &mut self.links[node];
        if !link.is_connected {
            link.is_connected = true;
            link.reopen();
        }
    }

    /// Loses one publication on its way to a node, and notices it.
    pub(super) fn lose(&mut self, node: usize, which: usize) -> bool {
        let link = &mut self.links[node];
        let arrivals = link.arrivals.iter_mut().filter(|(_, arrivals)| !arrivals.is_empty());
        let mut arrivals: Vec<_> = arrivals.collect();
        if arrivals.is_empty() {
            return false;
        }
        let at = which % arrivals.len();
        let (channel, arrivals) = &mut arrivals[at];
        let channel = **channel;
        let at = which % arrivals.len();
        if !matches!(arrivals[at].1, Mail::Arrived(..)) {
            return false;
        }
        let since = self.streams[channel].time_of(&arrivals[at].1).unwrap_or(0);
        arrivals[at].1 = Mail::Lost(channel, since);
        if link.is_connected {
            link.answers.retain(|(_, mail)| !matches!(mail, Mail::Opened(of, _) if *of == channel));
            if rules(CHANNELS[channel]).is_some() {
                link.read_head(channel);
            }
        }
        true
    }

    /// The next mail for a node, of any kind and channel. It may come twice.
    pub(super) fn mail(&mut self, node: usize, which: usize, twice: bool) -> Option<(usize, Mail)> {
        let link = &mut self.links[node];
        let channels = link.arrivals.iter().filter(|(_, arrivals)| !arrivals.is_empty());
        let channels: Vec<usize> = channels.map(|(channel, _)| *channel).collect();
        let kinds = channels.len() + link.answers.len();
        if kinds == 0 {
            return None;
        }
        let which = which % kinds;
        let channel = match which.checked_sub(channels.len()) {
            None => channels[which],
            Some(answer) => match link.answers[answer].1 {
                Mail::Fetched(_, Ok(_), channel, 1..) if channels.contains(&channel) => channel,
                _ => return Some(link.answers.remove(answer)),
            },
        };
        let arrivals = link.arrivals.get_mut(&channel).expect("just listed");
        let mail = arrivals.pop_front().expect("it is not empty");
        if twice && rules(CHANNELS[channel]).is_some() {
            arrivals.push_front(mail.clone());
        } else {
            for (_, answer) in &mut link.answers {
                if let Mail::Fetched(.., of, before) = answer
                    && *of == channel
                {
                    *before = before.saturating_sub(1);
                }
            }
        }
        Some(mail)
    }

    /// Whether nothing is on its way.
    pub(super) fn rests(&self) -> bool {
        self.links.iter().all(|link| {
            let arrivals = link.arrivals.values().all(VecDeque::is_empty);
            arrivals
                && link.answers.is_empty()
                && link.heads.is_empty()
                && link.commands.are_empty()
        })
    }
}

impl Link {
    fn read_head(&mut self, channel: usize) {
        if !self.heads.contains(&channel) {
            self.heads.push(channel);
        }
    }

    /// Asks for the heads of all channels again.
    fn reopen(&mut self) {
        self.answers.retain(|(_, mail)| !matches!(mail, Mail::Opened(..)));
        if self.is_connected {
            let channels: Vec<usize> = self.subscriptions.keys().copied().collect();
            for channel in channels {
                if rules(CHANNELS[channel]).is_some() {
                    self.read_head(channel);
                }
            }
        }
    }
}

impl Stream {
    pub(super) fn kept(&self) -> &[Stored] {
        &self.all[self.first..]
    }

    /// Whether this is the position of a publication, and no later one was dropped.
    pub(super) fn keeps_all_after(&self, position: Position) -> bool {
        self.dropped <= position.offset && self.all.iter().any(|stored| stored.position == position)
    }

    /// The time of the publication in this mail, if it has a place; that of a lost one.
    fn time_of(&self, mail: &Mail) -> Option<u64> {
        match mail {
            Mail::Arrived(_, arrived) => {
                let position = arrived.place?.position;
                self.all.iter().find(|stored| stored.position == position).map(|stored| stored.at)
            }
            Mail::Lost(_, since) => Some(*since),
            _ => None,
        }
    }

    fn drop_oldest(&mut self) {
        self.dropped = self.all[self.first].position.offset;
        self.first += 1;
    }
}
