//! Several shards that hear each other late, with members that read at once, late or never: what may
//! happen to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use murre_router::channels::{
    ChannelError, ChannelLimits, Channels, Direction, Event, HistoryQuery, Origin, Publisher,
    Pulled, ShardMessage,
};
use murre_router::{Member, Ticket};

use super::choices::Choices;
use super::oracle::Oracle;
use super::sockets::{Socket, Sockets, id, known};
use super::{CHANNELS, number, payload, rules};

pub(super) const MEMBERS: u32 = 5;
/// The member of each shard that reads nothing in some worlds.
pub(super) const NEVER: Member = 4;
/// A grace time that does not end.
const PATIENT: u64 = 1 << 40;

/// The shards, their members, the messages on their way, and what the oracle knows.
pub(super) struct World {
    pub(super) choices: Choices,
    pub(super) now: u64,
    pub(super) limits: ChannelLimits,
    /// Few messages may wait.
    pub(super) tight: bool,
    /// `NEVER` reads nothing.
    pub(super) has_idlers: bool,
    /// The others pull as soon as they are full.
    pub(super) is_prompt: bool,
    pub(super) shards: Vec<Channels<Option<u32>>>,
    pub(super) sockets: Vec<Vec<Socket>>,
    /// By shards from and to: what is on its way.
    pub(super) links: Vec<Vec<VecDeque<ShardMessage>>>,
    /// By shard and reader: the subscription that was asked for.
    pub(super) asks: BTreeMap<(usize, u32), Ticket>,
    /// By shard and channel: how much of the log has reached the shard, while it gets publications.
    pub(super) seen: Vec<[usize; CHANNELS.len()]>,
    /// How often history was asked for.
    pub(super) reads: Ticket,
    /// Members whose connections must end, with the channels that they are too slow for.
    pub(super) ending: BTreeSet<(usize, Member, usize)>,
    pub(super) oracle: Oracle,
    /// How often something happened.
    pub(super) kinds: Kinds,
}

pub(crate) type Kinds = BTreeMap<&'static str, u32>;

impl World {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let shards = 1 + choices.index(4);
        let tight = choices.number(4) == 0;
        let seed = u64::from(choices.number(256));
        let mut limits = ChannelLimits::default();
        if tight {
            (limits.messages_max, limits.deliveries_max) = (3, 6);
        }
        limits.log_bytes_max = [1 << 20, 500, 1000, 500, 1][choices.index(5)];
        limits.logs_bytes_max = [1 << 20, 1 << 20, 1 << 20, 1000, 1 << 20, 1][choices.index(6)];
        limits.slice_bytes = [1, 40, 1 << 16][choices.index(3)];
        limits.slow_grace_ms = [20, PATIENT][choices.index(2)];
        let (has_idlers, is_prompt) = (choices.bool(), choices.bool());
        let channels = |shard| Channels::new(shard as u16, shards as u16, seed, rules, limits);
        let mut socket = |_| Socket { room: 1 + choices.number(6), queued: 0, waits: false };
        let sockets = (0..shards).map(|_| (0..MEMBERS).map(&mut socket).collect()).collect();
        World {
            now: 1000,
            limits,
            tight,
            has_idlers,
            is_prompt,
            shards: (0..shards).map(channels).collect(),
            sockets,
            links: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            asks: BTreeMap::new(),
            seen: vec![[0; CHANNELS.len()]; shards],
            reads: 0,
            ending: BTreeSet::new(),
            oracle: Oracle::default(),
            kinds: Kinds::new(),
            choices,
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.kinds.entry(what).or_default() += 1;
    }

    pub(super) fn is_patient(&self) -> bool {
        self.limits.slow_grace_ms == PATIENT
    }

    /// Whether the member takes what it is offered, sooner or later.
    pub(super) fn reads(&self, member: Member) -> bool {
        !self.has_idlers || member != NEVER
    }

    /// Takes what a shard has to tell.
    pub(super) fn tell(&mut self, shard: usize) {
        while let Some(event) = self.shards[shard].event() {
            if let Event::Readable { member } = event {
                self.sockets[shard][member as usize].waits = false;
            }
            self.oracle.event(shard, event, &mut self.seen[shard]);
        }
    }

    pub(super) fn owner(&self, channel: usize) -> usize {
        usize::from(self.shards[0].owner(CHANNELS[channel]))
    }

    pub(super) fn subscribe(&mut self) {
        let (shard, member, channel) = self.anybody();
        let from = self.oracle.start(channel, &mut self.choices);
        let (now, key) = (self.now, (shard, member, channel));
        let (owner, was) = (self.owner(channel), self.oracle.live.contains_key(&key));
        let ticket = self.oracle.next_ticket();
        if !was {
            self.oracle.asked(shard, member, channel, from);
            self.oracle.live.insert(key, ticket);
        }
        let waiting = self.shards[shard].messages(owner as u16).len();
        let outcome = self.shards[shard].subscribe(member, CHANNELS[channel], from, ticket, now);
        for message in &self.shards[shard].messages(owner as u16)[waiting..] {
            if let ShardMessage::Join { reader, .. } = message {
                self.asks.insert((shard, *reader), ticket);
            }
        }
        // A shard that owns the channel asks and answers before it returns. One that is joined already
        // does not ask; whether it is, only the channels know.
        if owner == shard && outcome.is_ok() && rules(CHANNELS[channel]).is_some() {
            let info = self.shards[shard].channel(CHANNELS[channel]).expect("it is owned");
            self.oracle.joined(ticket, now, &info);
        } else if owner == shard && outcome.is_ok() {
            self.seen[shard][channel] = self.oracle.logged(channel);
        }
        match outcome {
            Ok(()) => assert!(!was),
            Err(ChannelError::AlreadySubscribed) => assert!(was),
            Err(refused) => {
                assert!(self.tight && !was && refused == ChannelError::Overloaded);
                self.oracle.ended(shard, member, channel);
            }
        }
        self.tell(shard);
        if self.choices.bool() {
            self.pull(shard, member);
        }
    }

    pub(super) fn unsubscribe(&mut self) {
        let (shard, member, channel) = self.anybody();
        let ticket = self.oracle.live.get(&(shard, member, channel)).copied();
        let pending = ticket.filter(|ticket| self.oracle.is_pending(*ticket));
        let outcome = self.shards[shard].unsubscribe(member, CHANNELS[channel]);
        self.tell(shard);
        match ticket {
            None => assert_eq!(outcome, Err(ChannelError::NotSubscribed)),
            Some(_) => {
                assert_eq!(outcome, Ok(()));
                let withdrawn = pending.is_none_or(|ticket| !self.oracle.is_pending(ticket));
                assert!(withdrawn, "a pending subscription was not withdrawn");
                self.oracle.ended(shard, member, channel);
                self.ending.remove(&(shard, member, channel));
            }
        }
    }

    /// The member's number is used again by the next subscriber.
    pub(super) fn leave(&mut self, shard: usize, member: u32) {
        let mut pending = Vec::new();
        for channel in 0..CHANNELS.len() {
            let Some(&ticket) = self.oracle.live.get(&(shard, member, channel)) else { continue };
            if self.oracle.is_pending(ticket) {
                pending.push(ticket);
            }
            self.oracle.ended(shard, member, channel);
        }
        let mut forgotten = Vec::new();
        self.shards[shard].leave(member, |ticket| forgotten.push(ticket));
        self.tell(shard);
        pending.sort_unstable();
        forgotten.sort_unstable();
        assert_eq!(forgotten, pending, "the tickets that get no event");
        assert!(!self.shards[shard].is_behind(member));
        self.ending.retain(|(of, ending, _)| (*of, *ending) != (shard, member));
        let room = self.sockets[shard][member as usize].room;
        self.sockets[shard][member as usize] = Socket { room, queued: 0, waits: false };
    }

    pub(super) fn publish(&mut self) -> u32 {
        let (shard, member, channel) = self.anybody();
        let (ticketed, except) = (self.choices.bool(), self.choices.number(4) == 0);
        self.publish_to(shard, member, channel, ticketed, except)
    }

    pub(super) fn publish_to(
        &mut self,
        shard: usize,
        member: Member,
        channel: usize,
        ticketed: bool,
        except: bool,
    ) -> u32 {
        let (number, now) = (self.oracle.publication(), self.now);
        let origin = Origin(u64::from(number) << 16 | id(shard, member));
        let publisher = Publisher { origin, ticket: ticketed.then_some(number), except };
        let outcome =
            self.shards[shard].publish(CHANNELS[channel], payload(number), publisher, now);
        if let Err(refused) = outcome {
            assert_eq!(refused, ChannelError::Overloaded);
            self.oracle.outcome(number, Err(refused));
            self.count("refused");
        }
        if self.owner(channel) == shard {
            self.at_owner(shard, channel, number);
        }
        self.tell(shard);
        number
    }

    /// A publication has reached its owner.
    pub(super) fn at_owner(&mut self, owner: usize, channel: usize, number: u32) {
        let info = self.shards[owner].channel(CHANNELS[channel]);
        self.oracle.published(channel, number, self.now, info);
        self.seen[owner][channel] = self.oracle.logged(channel);
    }

    pub(super) fn read(&mut self) {
        let (shard, _, channel) = self.anybody();
        let query = HistoryQuery {
            start: self.oracle.start(channel, &mut self.choices),
            limit: self.choices.number(6),
            bytes_max: [20, 100, u32::MAX][self.choices.index(3)],
            direction: [Direction::Forward, Direction::Reverse][self.choices.index(2)],
        };
        let ticket = self.reads;
        self.reads += 1;
        if rules(CHANNELS[channel]).is_none() {
            return;
        }
        if self.owner(channel) == shard {
            self.reads_at(shard, channel, query, ticket);
        }
        let outcome = self.shards[shard].history(CHANNELS[channel], query, ticket, self.now);
        assert!(outcome == Ok(()) || self.tight && outcome == Err(ChannelError::Overloaded));
        self.tell(shard);
    }

    /// A read is about to be answered by the owner.
    pub(super) fn reads_at(
        &mut self,
        owner: usize,
        channel: usize,
        query: HistoryQuery,
        ticket: Ticket,
    ) {
        let info = self.shards[owner].channel(CHANNELS[channel]);
        let position = info.and_then(|info| info.position);
        self.oracle.read(ticket, channel, query, self.now, position);
    }

    /// Some of what one shard gathered for another is handed over.
    pub(super) fn hand_over(&mut self, from: usize, to: usize, most: usize) {
        let messages = self.shards[from].messages(to as u16);
        let most = most.min(messages.len());
        self.links[from][to].extend(messages.drain(..most));
    }

    /// Some of what is on its way arrives.
    pub(super) fn receive(&mut self, from: usize, to: usize, most: usize) {
        for _ in 0..most {
            let Some(message) = self.links[from][to].pop_front() else { return };
            self.arrive(from, to, message);
        }
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, message: ShardMessage) {
        let now = self.now;
        let mut receive = |message| self.shards[to].receive(from as u16, message, now);
        match &message {
            ShardMessage::Publish { channel, payload, .. } => {
                let (channel, number) = (known(&channel.text), number(payload));
                receive(message);
                self.at_owner(to, channel, number);
            }
            ShardMessage::Publication { publication, .. } => {
                let channel = known(&publication.channel);
                let number = number(&publication.payload);
                self.seen[to][channel] =
                    self.seen[to][channel].max(self.oracle.after(channel, number));
                receive(message);
            }
            ShardMessage::Join { reader, .. } => {
                let ticket = self.asks.remove(&(from, *reader)).expect("it was asked");
                receive(message);
                let channel = self.oracle.asks(ticket).expect("nobody has answered");
                let info = self.shards[to].channel(CHANNELS[channel]).expect("it is joined");
                self.oracle.joined(ticket, now, &info);
            }
            ShardMessage::Read { channel, query, ticket } => {
                self.reads_at(to, known(&channel.text), *query, *ticket);
                self.shards[to].receive(from as u16, message, now);
            }
            ShardMessage::ChannelBehind { .. } => {
                receive(message);
                self.count("channel behind");
            }
            ShardMessage::Behind(_) => {
                receive(message);
                self.count("shard behind");
            }
            _ => receive(message),
        }
        self.tell(to);
    }

    pub(super) fn sockets(&mut self, shard: usize) -> (&mut Channels<Option<u32>>, Sockets<'_>) {
        let is_patient = self.is_patient();
        let idler = self.is_prompt.then_some(self.has_idlers.then_some(NEVER));
        let World { shards, sockets, ending, oracle, .. } = self;
        let sockets = &mut sockets[shard][..];
        let to = Sockets { shard, sockets, ending, oracle, is_patient, idler, offers: 0 };
        (&mut shards[shard], to)
    }

    pub(super) fn deliver(&mut self, shard: usize, budget: usize) -> bool {
        let now = self.now;
        let (channels, mut to) = self.sockets(shard);
        let more = channels.deliver(budget, now, &mut to);
        assert!(to.offers <= budget, "the budget is kept");
        self.tell(shard);
        self.end(shard);
        more
    }

    /// The member's connection has taken everything.
    pub(super) fn drain(&mut self, shard: usize, member: Member) {
        if self.reads(member) {
            self.sockets[shard][member as usize].queued = 0;
            self.pull(shard, member);
        }
    }

    /// All connections take what they can.
    pub(super) fn pull_at_once(&mut self) {
        for shard in 0..self.shards.len() {
            for member in 0..MEMBERS {
                if !self.reads(member) {
                    continue;
                }
                let ends =
                    |world: &World| world.ending.iter().any(|of| (of.0, of.1) == (shard, member));
                while self.shards[shard].is_behind(member)
                    && !self.sockets[shard][member as usize].waits
                    && !ends(self)
                {
                    self.drain(shard, member);
                }
            }
        }
    }

    pub(super) fn pull(&mut self, shard: usize, member: Member) {
        let now = self.now;
        let (channels, mut to) = self.sockets(shard);
        let pulled = channels.pull(member, now, &mut to);
        let offers = to.offers;
        let mut ending = self.ending.range((shard, member, 0)..(shard, member + 1, 0));
        let ends = ending.next().is_some();
        let socket = &mut self.sockets[shard][member as usize];
        match pulled {
            Pulled::CaughtUp => assert!(ends || !self.shards[shard].is_behind(member)),
            Pulled::Full => assert!(offers > 0 && socket.queued == socket.room),
            Pulled::Waiting => socket.waits = true,
        }
        match pulled {
            Pulled::CaughtUp if offers > 0 => self.count("caught up"),
            Pulled::CaughtUp => {}
            Pulled::Full => self.count("full"),
            Pulled::Waiting => self.count("waits for history"),
        }
        self.tell(shard);
        self.end(shard);
    }

    /// Connections end.
    pub(super) fn end(&mut self, shard: usize) {
        for (shard, member, _) in self.ending.clone().range((shard, 0, 0)..(shard + 1, 0, 0)) {
            if self.choices.bool() {
                self.leave(*shard, *member);
                self.count("ended");
            }
        }
    }

    pub(super) fn expire(&mut self, shard: usize) {
        self.shards[shard].expire(self.now);
        self.tell(shard);
    }

    pub(super) fn anybody(&mut self) -> (usize, u32, usize) {
        (self.any_shard(), self.choices.number(MEMBERS), self.choices.index(CHANNELS.len()))
    }

    pub(super) fn any_shard(&mut self) -> usize {
        self.choices.index(self.shards.len())
    }

    pub(super) fn step(&mut self) {
        match self.choices.number(106) {
            0..18 => self.subscribe(),
            18..24 => self.unsubscribe(),
            24..26 => {
                let (shard, member, _) = self.anybody();
                self.leave(shard, member);
            }
            26..50 => _ = self.publish(),
            50..54 => self.read(),
            way @ 54..84 => {
                let (from, to, some) = (self.any_shard(), self.any_shard(), self.choices.index(8));
                match way {
                    54..70 => self.hand_over(from, to, some),
                    _ => self.receive(from, to, some),
                }
            }
            84..94 => {
                let (shard, some) = (self.any_shard(), self.choices.index(8));
                self.deliver(shard, some);
            }
            94..97 => self.now += u64::from(self.choices.number(30)),
            97..100 => {
                let shard = self.any_shard();
                self.expire(shard);
            }
            _ => {
                let (shard, member, _) = self.anybody();
                self.drain(shard, member);
            }
        }
        if self.is_prompt {
            self.pull_at_once();
        }
        let stats = self.shards.iter().map(Channels::stats);
        for (shard, stats) in stats.enumerate() {
            let behind = (0..MEMBERS).filter(|member| self.shards[shard].is_behind(*member));
            assert_eq!(stats.members_behind, behind.count() as u64);
            assert_eq!(stats.readers_behind == 0, self.shards[shard].nobody_behind());
            assert!(stats.log_bytes >= 160 * stats.log_publications);
        }
    }
}
