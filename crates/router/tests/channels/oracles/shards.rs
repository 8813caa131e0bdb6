//! Several shards that hear each other late, with members that read at once, late or never.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use murre_router::channels::{
    ChannelError, Channels, Cursor, Direction, Event, HistoryQuery, Limits, Origin, Overrun,
    Publication, Publisher, Pulled, ShardMessage, Stats, Subscribers, Taken,
};
use murre_router::{Member, Ticket};

use super::dice::Dice;
use super::oracle::Oracle;
use super::{CHANNELS, number, payload, rules};

const MEMBERS: u32 = 5;
/// The member of each shard that reads nothing in some worlds.
const NEVER: Member = 4;
/// In so many, all that is gathered is handed over, delivered and answered.
const ROUNDS: usize = 2000;
/// A grace time that does not end.
const PATIENT: u64 = 1 << 40;

/// The connection of a member.
#[derive(Clone, Copy, Debug)]
struct Socket {
    room: u32,
    /// Publications that were queued and not taken.
    queued: u32,
    /// It waits for a slice of history.
    waits: bool,
}

/// All sockets of a shard, and what they hear.
struct Sockets<'w> {
    shard: usize,
    sockets: &'w mut [Socket],
    ending: &'w mut BTreeSet<(usize, Member, usize)>,
    oracle: &'w mut Oracle,
    is_patient: bool,
    /// The member that may be slow although the others pull at once.
    idler: Option<Option<Member>>,
    offers: usize,
}

impl Sockets<'_> {
    /// Something is lost for a member.
    fn check_slow(&self, member: Member, channel: &str) {
        assert!(!self.is_patient, "nobody is slow");
        // The history that a reader recovers may go if shards hear each other too late.
        if let Some(idler) = self.idler {
            let recovers = rules(channel).is_some();
            assert!(idler == Some(member) || recovers, "it pulls at once and is not slow");
        }
    }
}

impl Subscribers<Option<u32>> for Sockets<'_> {
    fn offer(
        &mut self,
        member: Member,
        publication: &Publication,
        encoded: &mut Option<u32>,
    ) -> Taken {
        self.offers += 1;
        let published = number(&publication.payload);
        assert_eq!(*encoded.get_or_insert(published), published, "it is one publication's");
        let socket = &mut self.sockets[member as usize];
        if socket.queued == socket.room {
            return Taken::Full;
        }
        self.oracle.heard(self.shard, member, publication);
        if publication.except.is_some_and(|except| except.0 & 0xFFFF == id(self.shard, member)) {
            return Taken::Gone;
        }
        socket.queued += 1;
        Taken::Yes
    }

    fn overrun(&mut self, member: Member, channel: &Arc<str>) -> Overrun {
        self.check_slow(member, channel);
        let ending = (self.shard, member, known(channel));
        assert!(!self.ending.contains(&ending), "asked again");
        match channel.split_once(':').expect("one of these").1 {
            "oldest" => Overrun::SkipToOldest,
            "newest" => Overrun::SkipToNewest,
            _ => {
                self.ending.insert(ending);
                Overrun::End
            }
        }
    }

    fn dropped(&mut self, member: Member, channel: &Arc<str>, count: u64) {
        self.check_slow(member, channel);
        self.oracle.dropped(self.shard, member, channel, count);
    }

    fn conflates(&self, channel: &str) -> bool {
        channel.ends_with("newest")
    }
}

fn id(shard: usize, member: Member) -> u64 {
    (shard as u64) << 8 | u64::from(member)
}

struct World {
    dice: Dice,
    now: u64,
    limits: Limits,
    /// Few messages may wait.
    tight: bool,
    /// `NEVER` reads nothing.
    has_idlers: bool,
    /// The others pull as soon as they are full.
    is_prompt: bool,
    shards: Vec<Channels<Option<u32>>>,
    sockets: Vec<Vec<Socket>>,
    /// By shards from and to: what is on its way.
    links: Vec<Vec<VecDeque<ShardMessage>>>,
    /// By shard and reader: the subscription that was asked for.
    asks: BTreeMap<(usize, u32), Ticket>,
    /// By shard and channel: how much of the log has reached the shard, as long as it is told of it.
    seen: Vec<[usize; CHANNELS.len()]>,
    /// How often history was asked for.
    reads: Ticket,
    /// Members whose connections are to end, with the channels for whose sake.
    ending: BTreeSet<(usize, Member, usize)>,
    oracle: Oracle,
    /// How often something happened.
    kinds: Kinds,
}

pub(crate) type Kinds = BTreeMap<&'static str, u32>;

impl World {
    fn new(bytes: &[u8]) -> Self {
        let mut dice = Dice::new(bytes);
        let shards = 1 + dice.index(4);
        let tight = dice.number(4) == 0;
        let seed = u64::from(dice.number(256));
        let mut limits = Limits::default();
        if tight {
            (limits.messages_max, limits.deliveries_max) = (3, 6);
        }
        limits.log_bytes_max = [1 << 20, 500, 1000, 500, 1][dice.index(5)];
        limits.logs_bytes_max = [1 << 20, 1 << 20, 1 << 20, 1000, 1 << 20, 1][dice.index(6)];
        limits.slice_bytes = [1, 40, 1 << 16][dice.index(3)];
        limits.slow_grace_ms = [20, PATIENT][dice.index(2)];
        let (has_idlers, is_prompt) = (dice.bool(), dice.bool());
        let channels = |shard| Channels::new(shard as u16, shards as u16, seed, rules, limits);
        let mut socket = |_| Socket { room: 1 + dice.number(6), queued: 0, waits: false };
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
            dice,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.kinds.entry(what).or_default() += 1;
    }

    fn is_patient(&self) -> bool {
        self.limits.slow_grace_ms == PATIENT
    }

    /// Whether the member takes what it is offered, sooner or later.
    fn reads(&self, member: Member) -> bool {
        !self.has_idlers || member != NEVER
    }

    /// Takes what a shard has to tell.
    fn tell(&mut self, shard: usize) {
        while let Some(event) = self.shards[shard].event() {
            if let Event::Readable { member } = event {
                self.sockets[shard][member as usize].waits = false;
            }
            self.oracle.event(shard, event, &mut self.seen[shard]);
        }
    }

    fn owner(&self, channel: usize) -> usize {
        usize::from(self.shards[0].owner(CHANNELS[channel]))
    }

    fn subscribe(&mut self) {
        let (shard, member, channel) = self.anybody();
        let from = self.oracle.start(channel, &mut self.dice);
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
        if self.dice.bool() {
            self.pull(shard, member);
        }
    }

    fn unsubscribe(&mut self) {
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

    /// The member's number is used again by whoever subscribes next.
    fn leave(&mut self, shard: usize, member: u32) {
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

    fn publish(&mut self) -> u32 {
        let (shard, member, channel) = self.anybody();
        let (ticketed, except) = (self.dice.bool(), self.dice.number(4) == 0);
        self.publish_to(shard, member, channel, ticketed, except)
    }

    fn publish_to(
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
    fn at_owner(&mut self, owner: usize, channel: usize, number: u32) {
        let info = self.shards[owner].channel(CHANNELS[channel]);
        self.oracle.published(channel, number, self.now, info);
        self.seen[owner][channel] = self.oracle.logged(channel);
    }

    fn read(&mut self) {
        let (shard, _, channel) = self.anybody();
        let query = HistoryQuery {
            start: self.oracle.start(channel, &mut self.dice),
            limit: self.dice.number(6),
            bytes_max: [20, 100, u32::MAX][self.dice.index(3)],
            direction: [Direction::Forward, Direction::Reverse][self.dice.index(2)],
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
    fn reads_at(&mut self, owner: usize, channel: usize, query: HistoryQuery, ticket: Ticket) {
        let info = self.shards[owner].channel(CHANNELS[channel]);
        let position = info.and_then(|info| info.position);
        self.oracle.read(ticket, channel, query, self.now, position);
    }

    /// Some of what one shard gathered for another is handed over.
    fn hand_over(&mut self, from: usize, to: usize, most: usize) {
        let messages = self.shards[from].messages(to as u16);
        let most = most.min(messages.len());
        self.links[from][to].extend(messages.drain(..most));
    }

    /// Some of what is on its way arrives.
    fn receive(&mut self, from: usize, to: usize, most: usize) {
        for _ in 0..most {
            let Some(message) = self.links[from][to].pop_front() else { return };
            self.arrive(from, to, message);
        }
    }

    fn arrive(&mut self, from: usize, to: usize, message: ShardMessage) {
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

    fn sockets(&mut self, shard: usize) -> (&mut Channels<Option<u32>>, Sockets<'_>) {
        let is_patient = self.is_patient();
        let idler = self.is_prompt.then_some(self.has_idlers.then_some(NEVER));
        let World { shards, sockets, ending, oracle, .. } = self;
        let sockets = &mut sockets[shard][..];
        let to = Sockets { shard, sockets, ending, oracle, is_patient, idler, offers: 0 };
        (&mut shards[shard], to)
    }

    fn deliver(&mut self, shard: usize, budget: usize) -> bool {
        let now = self.now;
        let (channels, mut to) = self.sockets(shard);
        let more = channels.deliver(budget, now, &mut to);
        assert!(to.offers <= budget, "the budget is kept");
        self.tell(shard);
        self.end(shard);
        more
    }

    /// The member's connection has taken everything.
    fn drain(&mut self, shard: usize, member: Member) {
        if self.reads(member) {
            self.sockets[shard][member as usize].queued = 0;
            self.pull(shard, member);
        }
    }

    /// All connections take what they can.
    fn pull_at_once(&mut self) {
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

    fn pull(&mut self, shard: usize, member: Member) {
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
    fn end(&mut self, shard: usize) {
        for (shard, member, _) in self.ending.clone().range((shard, 0, 0)..(shard + 1, 0, 0)) {
            if self.dice.bool() {
                self.leave(*shard, *member);
                self.count("ended");
            }
        }
    }

    fn expire(&mut self, shard: usize) {
        self.shards[shard].expire(self.now);
        self.tell(shard);
    }

    fn anybody(&mut self) -> (usize, u32, usize) {
        (self.any_shard(), self.dice.number(MEMBERS), self.dice.index(CHANNELS.len()))
    }

    fn any_shard(&mut self) -> usize {
        self.dice.index(self.shards.len())
    }

    fn step(&mut self) {
        match self.dice.number(106) {
            0..18 => self.subscribe(),
            18..24 => self.unsubscribe(),
            24..26 => {
                let (shard, member, _) = self.anybody();
                self.leave(shard, member);
            }
            26..50 => _ = self.publish(),
            50..54 => self.read(),
            way @ 54..84 => {
                let (from, to, some) = (self.any_shard(), self.any_shard(), self.dice.index(8));
                match way {
                    54..70 => self.hand_over(from, to, some),
                    _ => self.receive(from, to, some),
                }
            }
            84..94 => {
                let (shard, some) = (self.any_shard(), self.dice.index(8));
                self.deliver(shard, some);
            }
            94..97 => self.now += u64::from(self.dice.number(30)),
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

    /// Until nothing is on its way, and everybody that reads has caught up.
    fn settle(&mut self) {
        let shards = self.shards.len();
        for _ in 0..ROUNDS {
            for from in 0..shards {
                for to in 0..shards {
                    self.hand_over(from, to, usize::MAX);
                    self.receive(from, to, usize::MAX);
                }
                while self.deliver(from, 3) {}
                for member in 0..MEMBERS {
                    if !self.sockets[from][member as usize].waits {
                        self.drain(from, member);
                    }
                }
            }
            for (shard, member, _) in self.ending.clone() {
                self.leave(shard, member);
                self.count("ended");
            }
            let waiting = self.shards.iter().enumerate().map(|(shard, channels)| {
                let Stats { messages_waiting, deliveries_waiting, .. } = channels.stats();
                let reads = (0..MEMBERS).filter(|member| self.reads(*member));
                let behind = reads.filter(|member| self.shards[shard].is_behind(*member));
                messages_waiting + deliveries_waiting + behind.count() as u64
            });
            if waiting.sum::<u64>() == 0 && self.links.iter().flatten().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("shards have always something to do");
    }

    /// Those that read nothing become slow, or have left.
    fn outlast_idlers(&mut self) {
        if self.is_patient() {
            (0..self.shards.len()).for_each(|shard| self.leave(shard, NEVER));
        }
        self.now += 100;
        // As many turns as are needed for that.
        (0..3).for_each(|_| self.settle());
        self.now += 20;
        (0..self.shards.len()).for_each(|shard| self.expire(shard));
        self.settle();
    }

    /// Nobody that could make publishers wait is left: every publication is taken.
    fn check_that_nothing_is_refused(&mut self) {
        for (channel, name) in CHANNELS.iter().enumerate() {
            for shard in 0..self.shards.len() {
                self.outlast_idlers();
                let number = self.publish_to(shard, 0, channel, true, false);
                self.settle();
                assert!(!self.oracle.is_refused(number), "{name} is refused");
            }
        }
    }

    /// What is kept for readers that are slow is bounded.
    fn check_bounds(&self) {
        // The newest publication of each channel stays.
        let newest = 64 + 4 + 160;
        let Limits { log_bytes_max, logs_bytes_max, .. } = self.limits;
        let logs = CHANNELS.len() as u64 * log_bytes_max.max(newest);
        for channels in &self.shards {
            let bytes = channels.stats().log_bytes;
            assert!(bytes <= logs.min(logs_bytes_max.max(newest)), "{bytes} bytes");
        }
    }

    /// Every shard knows who is subscribed, and the owners how many.
    fn check_subscriptions(&self) {
        for (shard, channels) in self.shards.iter().enumerate() {
            for member in 0..MEMBERS {
                let live = self.oracle.live.range((shard, member, 0)..(shard, member + 1, 0));
                let mut live: Vec<&str> =
                    live.map(|((_, _, channel), _)| CHANNELS[*channel]).collect();
                let mut subscriptions: Vec<&str> = channels.subscriptions(member).collect();
                live.sort_unstable();
                subscriptions.sort_unstable();
                assert_eq!(subscriptions, live);
            }
            let (listed, more) = channels.channels(Cursor::default(), 1000);
            assert!(more.is_none() && listed.len() as u64 == channels.stats().owned);
            for info in listed {
                assert_eq!(usize::from(channels.owner(&info.name)), shard);
                let live = self.oracle.live.keys().filter(|key| *CHANNELS[key.2] == *info.name);
                // Reports are put off while too many messages wait.
                assert!(self.tight || live.count() as u64 == info.subscribers);
            }
        }
    }
}

fn known(channel: &str) -> usize {
    CHANNELS.iter().position(|known| *known == channel).expect("one of these")
}

/// Nothing is lost and nothing comes twice, or its member is told how much is missing; all subscribers
/// hear the owner's order, recovery is exact, nobody hears after it has left, publishers do not wait
/// for ever, logs are bounded, and everything is given back, however late shards hear each other.
pub(crate) fn several(bytes: &[u8]) -> Kinds {
    let mut world = World::new(bytes);
    while world.dice.has_more() {
        world.step();
    }
    world.settle();
    world.check_subscriptions();
    let reads = |world: &World| {
        let has_idlers = world.has_idlers;
        move |member| !has_idlers || member != NEVER
    };
    world.oracle.check(reads(&world));

    world.check_that_nothing_is_refused();
    world.outlast_idlers();
    world.check_bounds();
    world.oracle.check(reads(&world));

    for shard in 0..world.shards.len() {
        (0..MEMBERS).for_each(|member| world.leave(shard, member));
    }
    world.settle();
    world.oracle.check(reads(&world));
    let held: u64 = world.shards.iter().map(|channels| channels.stats().holds).sum();
    assert_eq!(held, 0, "nobody is left for whom history is held");
    world.now += 200;
    for shard in 0..world.shards.len() {
        world.expire(shard);
        assert_eq!(world.shards[shard].stats(), Stats::default(), "something is not given back");
    }
    let (dropped, recovered) = world.oracle.kinds();
    *world.kinds.entry("dropped").or_default() += dropped;
    *world.kinds.entry("recovered").or_default() += recovered;
    world.kinds
}
