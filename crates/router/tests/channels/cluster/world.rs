//! The nodes, their members, and what may happen to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use murre_router::channels::{
    ChannelError, ChannelLimits, Channels, Direction, Event, HistoryQuery, Origin, Overrun,
    Position, Publication, Publisher, Pulled, ShardMessage, Start, Stats, Subscribers, Taken,
};
use murre_router::{Member, Ticket};

use super::broker::{Broker, Mail};
use super::oracle::{Heard, Subscription, check_page};
use super::{CHANNELS, known, payload, rules};
use crate::oracles::choices::Choices;

const MEMBERS: u32 = 4;
/// Within this number of rounds everything comes to rest.
const ROUNDS: usize = 3000;

pub(crate) type Kinds = BTreeMap<&'static str, u32>;

/// One shard of a node with its members.
struct Shard {
    channels: Channels,
    members: Members,
}

/// The connections of the members, and what they hear.
#[derive(Default)]
struct Members {
    /// By member and channel: the subscription.
    live: BTreeMap<(Member, usize), Ticket>,
    /// By member: free places of its connection.
    room: BTreeMap<Member, u32>,
    subscriptions: BTreeMap<Ticket, Subscription>,
}

struct Node {
    shards: Vec<Shard>,
    /// By shards from and to.
    links: Vec<Vec<VecDeque<ShardMessage>>>,
}

struct World {
    choices: Choices,
    /// The broker loses nothing and answers all.
    is_calm: bool,
    /// No shard is ever behind.
    is_roomy: bool,
    now: u64,
    broker: Broker,
    nodes: Vec<Node>,
    tickets: Ticket,
    /// Positions that clients have reached, by channel.
    reached: Vec<(usize, Position)>,
    /// Queries of history that were asked.
    reads: BTreeMap<Ticket, (usize, Start)>,
    /// Publications with tickets that have no outcome.
    publishing: BTreeMap<Ticket, usize>,
    kinds: Kinds,
}

impl Subscribers<()> for Members {
    fn offer(&mut self, member: Member, publication: &Publication, (): &mut ()) -> Taken {
        let room = self.room.entry(member).or_insert(3);
        let Some(left) = room.checked_sub(1) else { return Taken::Full };
        *room = left;
        self.of(member, &publication.channel).hear(publication);
        Taken::Yes
    }

    fn overrun(&mut self, _: Member, _: &Arc<str>) -> Overrun {
        Overrun::SkipToOldest
    }

    fn dropped(&mut self, member: Member, channel: &Arc<str>, count: u64) {
        assert!((1..1000).contains(&count), "{count}");
        self.of(member, channel).heard.push(Heard::Dropped);
    }
}

impl Members {
    fn of(&mut self, member: Member, channel: &str) -> &mut Subscription {
        let ticket = self.live.get(&(member, known(channel))).expect("it is subscribed");
        self.subscriptions.get_mut(ticket).expect("it was asked for")
    }
}

impl World {
    fn new(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let (nodes, shards) = (1 + choices.index(3), 1 + choices.index(3));
        let (is_calm, is_roomy) = (choices.bool(), choices.bool());
        let mut limits = ChannelLimits {
            slice_bytes: [1, 100, 1 << 16][choices.index(3)],
            slow_grace_ms: 1 << 40,
            history_bytes_max: [1 << 20, 1 << 20, 800][choices.index(3)],
            log_bytes_max: [1 << 20, 1 << 20, 600][choices.index(3)],
            messages_max: [1000, 1000, 5][choices.index(3)],
            ..ChannelLimits::default()
        };
        if is_roomy {
            limits = ChannelLimits { slow_grace_ms: 1 << 40, ..ChannelLimits::default() };
        }
        let broker = Broker::new(nodes);
        let node = |node: usize| {
            let shard = |shard: usize| {
                let channels = Channels::new(shard as u16, shards as u16, 1, rules, limits);
                let commands = broker.links[node].commands.of_shard(shard);
                Shard { channels: channels.with_backplane(commands), members: Members::default() }
            };
            let links = (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect());
            Node { shards: (0..shards).map(shard).collect(), links: links.collect() }
        };
        World {
            nodes: (0..nodes).map(node).collect(),
            now: 1000,
            is_calm,
            is_roomy,
            broker,
            tickets: 0,
            reached: Vec::new(),
            reads: BTreeMap::new(),
            publishing: BTreeMap::new(),
            kinds: Kinds::new(),
            choices,
        }
    }

    fn set_time(&self) {
        self.broker.links.iter().for_each(|link| link.commands.set_time(self.now));
    }

    fn count(&mut self, what: &'static str) {
        *self.kinds.entry(what).or_default() += 1;
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    fn anybody(&mut self) -> (usize, usize, Member, usize) {
        let node = self.choices.index(self.nodes.len());
        let shard = self.choices.index(self.nodes[node].shards.len());
        (node, shard, self.choices.number(MEMBERS), self.choices.index(CHANNELS.len()))
    }

    fn start(&mut self, channel: usize) -> Start {
        let reached: Vec<Position> =
            self.reached.iter().filter(|(of, _)| *of == channel).map(|(_, at)| *at).collect();
        let Some(at) = reached.len().checked_sub(1 + self.choices.index(4)) else {
            return Start::Head;
        };
        let position = reached[at];
        match self.choices.number(16) {
            0..3 => Start::Head,
            3 => Start::After(Position { epoch: 1, ..position }),
            4 => Start::After(Position { offset: u64::MAX, ..position }),
            5 => Start::AfterOffset(u64::MAX),
            6 => Start::After(Position { offset: u64::MAX - 1, ..position }),
            7 => Start::After(Position { offset: 0, ..position }),
            _ => Start::After(position),
        }
    }

    fn subscribe(&mut self) {
        let (node, shard, member, channel) = self.anybody();
        let (from, ticket, now) = (self.start(channel), self.ticket(), self.now);
        let Shard { channels, members } = &mut self.nodes[node].shards[shard];
        if members.live.contains_key(&(member, channel)) {
            return;
        }
        members.live.insert((member, channel), ticket);
        let (recovery, heard) = (None, Vec::new());
        let subscription =
            Subscription { channel, from, recovery, heard, begun_at: 0, is_live: true };
        members.subscriptions.insert(ticket, subscription);
        if let Err(refused) = channels.subscribe(member, CHANNELS[channel], from, ticket, now) {
            assert_eq!(refused, ChannelError::Overloaded);
            members.live.remove(&(member, channel));
            members.subscriptions.remove(&ticket);
        }
        self.events(node, shard);
    }

    fn unsubscribe(&mut self, leaves: bool) {
        let (node, shard, member, channel) = self.anybody();
        let Shard { channels, members } = &mut self.nodes[node].shards[shard];
        let mut ended = Vec::new();
        if leaves {
            channels.leave(member, |_| ());
            ended.extend((0..CHANNELS.len()).filter_map(|of| members.live.remove(&(member, of))));
            members.room.remove(&member);
        } else if let Some(ticket) = members.live.remove(&(member, channel)) {
            assert_eq!(channels.unsubscribe(member, CHANNELS[channel]), Ok(()));
            ended.push(ticket);
        }
        for ticket in ended {
            let subscription = members.subscriptions.get_mut(&ticket).expect("it was live");
            subscription.is_live = false;
            let is_kept = rules(CHANNELS[subscription.channel]).is_some();
            if let Some(position) = subscription.reached().filter(|_| is_kept) {
                self.reached.push((subscription.channel, position));
            }
        }
        self.events(node, shard);
    }

    fn publish(&mut self) {
        let (node, shard, member, channel) = self.anybody();
        let ticket = self.ticket();
        let origin = Origin(u64::from(member));
        let publisher = Publisher { origin, ticket: Some(ticket), except: false };
        let channels = &mut self.nodes[node].shards[shard].channels;
        match channels.publish(CHANNELS[channel], payload(ticket), publisher, self.now) {
            Ok(()) => _ = self.publishing.insert(ticket, channel),
            Err(refused) => assert_eq!(refused, ChannelError::Overloaded),
        }
        self.events(node, shard);
    }

    fn read(&mut self) {
        let (node, shard, _, channel) = self.anybody();
        let (start, ticket) = (self.start(channel), self.ticket());
        let limit = [0, 2, 100][self.choices.index(3)];
        let direction = Direction::Forward;
        let query = HistoryQuery { start, limit, bytes_max: 1 << 20, direction };
        let channels = &mut self.nodes[node].shards[shard].channels;
        match channels.history(CHANNELS[channel], query, ticket, self.now) {
            Ok(()) => _ = self.reads.insert(ticket, (channel, start)),
            Err(ChannelError::NoHistory) => assert!(rules(CHANNELS[channel]).is_none()),
            Err(refused) => assert_eq!(refused, ChannelError::Overloaded),
        }
        self.events(node, shard);
    }

    /// Takes what a shard has to tell.
    fn events(&mut self, node: usize, shard: usize) {
        while let Some(event) = self.nodes[node].shards[shard].channels.event() {
            let members = &mut self.nodes[node].shards[shard].members;
            match event {
                Event::Subscribed { ticket, recovery, .. } => {
                    let subscription = members.subscriptions.get_mut(&ticket).expect("asked");
                    subscription.recovery = recovery;
                    subscription.begun_at = self.broker.streams[subscription.channel].all.len();
                    let recovered = recovery.and_then(|recovery| recovery.recovered);
                    if let Start::After(from) = subscription.from
                        && recovered == Some(false)
                        && self.is_calm
                        && self.is_roomy
                        && self.broker.streams[subscription.channel].keeps_all_after(from)
                    {
                        self.count("false alarm");
                    }
                    match recovered {
                        Some(true) => self.count("recovered"),
                        Some(false) => self.count("not recovered"),
                        None => {}
                    }
                }
                Event::Refused { member: Some(member), ticket, error } => {
                    assert_eq!(error, ChannelError::Overloaded);
                    let subscription = members.subscriptions.remove(&ticket).expect("asked");
                    if members.live.get(&(member, subscription.channel)) == Some(&ticket) {
                        members.live.remove(&(member, subscription.channel));
                    }
                    self.count("join refused");
                }
                Event::Refused { member: None, ticket, .. } => {
                    self.reads.remove(&ticket).expect("it was asked");
                    self.count("query refused");
                }
                Event::Published { ticket, outcome, .. } => {
                    let ticket = ticket.expect("it has one");
                    let channel = self.publishing.remove(&ticket).expect("told once");
                    if let Ok(position) = outcome {
                        let all = &self.broker.streams[channel].all;
                        let stored = all.iter().find(|stored| stored.number == ticket);
                        let stored = stored.expect("what is published is there");
                        assert!(position.is_none_or(|position| position == stored.position));
                    }
                }
                Event::History { ticket, page } => {
                    let (channel, start) = self.reads.remove(&ticket).expect("it was asked");
                    check_page(&page, start, &self.broker.streams[channel]);
                    self.count("page");
                }
                Event::Withdrawn { .. } | Event::Readable { .. } => {}
            }
        }
    }

    /// Carries at most `count` messages from one shard of a node to another.
    fn carry(&mut self, node: usize, from: usize, to: usize, count: usize) {
        let Node { shards, links } = &mut self.nodes[node];
        links[from][to].extend(std::mem::take(shards[from].channels.messages(to as u16)));
        for _ in 0..count {
            let Node { shards, links } = &mut self.nodes[node];
            let Some(message) = links[from][to].pop_front() else { break };
            shards[to].channels.receive(from as u16, message, self.now);
            self.events(node, to);
        }
    }

    /// Hands a mail of the broker to its shard.
    fn mail(&mut self, node: usize, which: usize, twice: bool) -> bool {
        let Some((shard, mail)) = self.broker.mail(node, which, twice) else { return false };
        let since = self.broker.time_of(&mail).unwrap_or(self.now);
        let (channels, now) = (&mut self.nodes[node].shards[shard].channels, self.now);
        match mail {
            Mail::Appended(id, outcome) => channels.appended(id, outcome),
            Mail::Fetched(id, answer, ..) => channels.fetched(id, answer, now),
            Mail::Opened(channel, head) => channels.opened(CHANNELS[channel], head, now),
            Mail::Unopened(channel) => channels.unopened(CHANNELS[channel], now),
            Mail::Arrived(channel, arrived) => {
                channels.arrived(CHANNELS[channel], arrived, since, now);
            }
            Mail::Lost(channel, since) => channels.lost(Some(CHANNELS[channel]), since),
        }
        self.events(node, shard);
        true
    }

    fn deliver(&mut self, node: usize, shard: usize, budget: usize) -> bool {
        let Shard { channels, members } = &mut self.nodes[node].shards[shard];
        let more = channels.deliver(budget, self.now, members);
        self.events(node, shard);
        more
    }

    fn drain(&mut self, node: usize, shard: usize, member: Member) {
        let Shard { channels, members } = &mut self.nodes[node].shards[shard];
        members.room.insert(member, 3);
        let pulled = channels.pull(member, self.now, members);
        self.events(node, shard);
        if pulled == Pulled::Waiting {
            self.count("waits for history");
        }
    }

    fn disconnect(&mut self, node: usize) {
        let kept = self.choices.index(3);
        let since = self.broker.disconnect(node, kept, self.now);
        for shard in &mut self.nodes[node].shards {
            shard.channels.lost(None, since);
        }
        self.broker.links[node].commands.refuse(self.choices.bool());
        self.count("disconnected");
    }

    fn reconnect(&mut self, node: usize) {
        self.broker.reconnect(node);
        self.broker.links[node].commands.refuse(false);
    }

    fn forget(&mut self) {
        self.broker.forget();
        for node in &mut self.nodes {
            for shard in &mut node.shards {
                shard.channels.lost(None, self.now);
            }
        }
        self.count("forgotten");
    }

    fn expire(&mut self, node: usize) {
        for shard in 0..self.nodes[node].shards.len() {
            self.nodes[node].shards[shard].channels.expire(self.now);
            self.events(node, shard);
        }
    }

    fn step(&mut self) {
        let (node, shard, member, some) = self.anybody();
        let now = self.now;
        self.set_time();
        match self.choices.number(128) {
            0..14 => self.subscribe(),
            14..18 => self.unsubscribe(false),
            18..20 => self.unsubscribe(true),
            20..40 => self.publish(),
            40..43 => self.read(),
            43..63 => {
                let luck = if self.is_calm { 19 } else { self.choices.number(20) };
                self.broker.execute(node, luck, now);
            }
            63..67 => {
                self.broker.read_head(node, some, now);
            }
            67..92 => {
                let (which, twice) = (self.choices.index(8), self.choices.number(12) == 1);
                self.mail(node, which, twice);
            }
            92..104 => {
                let to = self.choices.index(self.nodes[node].shards.len());
                self.carry(node, shard, to, 2);
            }
            104..112 => _ = self.deliver(node, shard, 3),
            112..117 => self.drain(node, shard, member),
            117..120 => self.now += u64::from(self.choices.number(25)),
            120..122 => self.expire(node),
            122 => self.broker.unsubscribe(node),
            123.. if self.is_calm => {}
            123 => {
                let which = self.choices.index(8);
                if self.broker.lose(node, which) {
                    self.count("lost");
                }
            }
            124 => self.disconnect(node),
            125 | 126 => self.reconnect(node),
            _ if self.choices.number(4) == 1 => self.forget(),
            _ => {}
        }
    }

    /// Runs until nothing is on its way, with a broker that is well.
    fn settle(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.reconnect(node));
        for _ in 0..ROUNDS {
            let mut did = false;
            self.set_time();
            for node in 0..self.nodes.len() {
                while self.broker.execute(node, 10, self.now) {
                    did = true;
                }
                self.broker.unsubscribe(node);
                while self.broker.read_head(node, 0, self.now) {
                    did = true;
                }
                while self.mail(node, 0, false) {
                    did = true;
                }
                let shards = self.nodes[node].shards.len();
                for from in 0..shards {
                    for to in 0..shards {
                        self.carry(node, from, to, usize::MAX);
                    }
                    while self.deliver(node, from, 3) {}
                    (0..MEMBERS).for_each(|member| self.drain(node, from, member));
                }
                self.expire(node);
                let waits = |shard: &Shard| {
                    let stats = shard.channels.stats();
                    let Stats { messages_waiting, deliveries_waiting, readers_behind, .. } = stats;
                    messages_waiting + deliveries_waiting + readers_behind > 0
                        || stats.fetches_waiting + stats.joins_waiting + stats.pending > 0
                        || stats.gaps + stats.appends_waiting > 0
                };
                did |= self.nodes[node].shards.iter().any(waits);
            }
            if !did && self.broker.rests() {
                return;
            }
            // Retries have their times. The broker's publications stay for now.
            self.now += u64::from(self.nodes.iter().any(|node| {
                let due = node.shards.iter().filter_map(|shard| shard.channels.next_expiry());
                due.min().is_some_and(|due| due > self.now)
            }));
        }
        let stats = |node: &Node| -> Vec<Stats> {
            node.shards.iter().map(|shard| shard.channels.stats()).collect()
        };
        panic!("it does not come to rest: {:#?}", self.nodes.iter().map(stats).collect::<Vec<_>>());
    }

    fn check(&mut self, is_end: bool) {
        let mut dropped = 0;
        for shard in self.nodes.iter().flat_map(|node| &node.shards) {
            for subscription in shard.members.subscriptions.values() {
                let stream = &self.broker.streams[subscription.channel];
                subscription.check(stream, self.broker.epoch, is_end);
                let told = subscription.heard.iter().filter(|heard| **heard == Heard::Dropped);
                dropped += told.count() as u32;
            }
        }
        if is_end {
            *self.kinds.entry("dropped").or_default() += dropped;
            if self.is_calm && self.is_roomy && dropped > 0 {
                self.count("false alarm");
            }
            assert!(self.publishing.is_empty() && self.reads.is_empty(), "somebody was not told");
        }
    }

    /// Everybody leaves: nothing is left.
    fn end(&mut self) {
        for node in &mut self.nodes {
            for Shard { channels, members } in &mut node.shards {
                (0..MEMBERS).for_each(|member| channels.leave(member, |_| ()));
                members.live.clear();
            }
        }
        self.settle();
        for channels in self.nodes.iter().flat_map(|node| &node.shards).map(|shard| &shard.channels)
        {
            let Stats { evicted, losses, arrivals_dropped, .. } = channels.stats();
            let expected = Stats { evicted, losses, arrivals_dropped, ..Stats::default() };
            assert_eq!(channels.stats(), expected, "something is not given back");
        }
    }
}

/// One run, of the choices that these bytes make.
pub(crate) fn run(bytes: &[u8]) -> Kinds {
    let mut world = World::new(bytes);
    while world.choices.has_more() {
        world.step();
    }
    world.check(false);
    world.settle();
    world.check(true);
    world.end();
    world.kinds
}
