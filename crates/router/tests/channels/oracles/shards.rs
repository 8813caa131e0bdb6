//! Several shards that hear each other late.

use std::collections::VecDeque;

use murre_router::Ticket;
use murre_router::channels::{Channels, Cursor, Limits, Note, Position, Refused, Stats};

use super::dice::Dice;
use super::oracle::Oracle;
use super::{CHANNELS, number, payload, rules};

const MEMBERS: u32 = 5;
/// In so many, all that is gathered is handed over, delivered and answered.
const ROUNDS: usize = 1000;

/// What a note is about, as far as the oracle has to know when it arrives.
#[derive(Clone, Copy)]
enum About {
    /// A subscription is asked for.
    Ask(Ticket),
    /// A publication of this number, on its way to the owner.
    Publish(usize, u32),
    /// On its way from the owner.
    Publication(usize, u32),
    /// History is asked for.
    Read {
        ticket: Ticket,
        channel: usize,
        after: Option<Position>,
        limit: u32,
    },
    Other,
}

struct World {
    dice: Dice,
    now: u64,
    tight: bool,
    shards: Vec<Channels<Option<u32>>>,
    /// By shards from and to: what the gathered notes are about, and what is on its way.
    gathered: Vec<Vec<VecDeque<About>>>,
    links: Vec<Vec<VecDeque<(About, Note)>>>,
    /// By shard and channel: how much of the log has reached the shard, as long as it is told of it.
    seen: Vec<[usize; CHANNELS.len()]>,
    /// How often history was asked for.
    reads: Ticket,
    oracle: Oracle,
}

impl World {
    fn new(bytes: &[u8]) -> Self {
        let mut dice = Dice::new(bytes);
        let shards = 1 + dice.index(4);
        let tight = dice.number(4) == 0;
        let seed = u64::from(dice.number(256));
        let limits = match tight {
            true => Limits { notes_max: 3, deliveries_max: 6, ..Limits::default() },
            false => Limits::default(),
        };
        let channels = |shard| Channels::new(shard as u16, shards as u16, seed, rules, limits);
        World {
            now: 1000,
            tight,
            shards: (0..shards).map(channels).collect(),
            gathered: vec![vec![VecDeque::new(); shards]; shards],
            links: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            seen: vec![[0; CHANNELS.len()]; shards],
            reads: 0,
            oracle: Oracle::default(),
            dice,
        }
    }

    /// Calls one shard, notes what its new notes are about, and takes its events.
    fn call<T>(
        &mut self,
        shard: usize,
        about: impl Fn(usize, usize) -> About,
        call: impl FnOnce(&mut Channels<Option<u32>>) -> T,
    ) -> T {
        let channels = &mut self.shards[shard];
        let result = call(channels);
        for (to, gathered) in self.gathered[shard].iter_mut().enumerate() {
            let notes = channels.notes(to as u16).len();
            for at in gathered.len()..notes {
                gathered.push_back(about(to, at));
            }
        }
        while let Some(event) = channels.event() {
            self.oracle.event(shard, event, &mut self.seen[shard]);
        }
        result
    }

    fn owner(&self, channel: usize) -> usize {
        usize::from(self.shards[0].owner(CHANNELS[channel]))
    }

    fn subscribe(&mut self) {
        let (shard, member, channel) = self.anybody();
        let from = match self.dice.bool() {
            true => self.oracle.position(channel, &mut self.dice),
            false => None,
        };
        let (now, key) = (self.now, (shard, member, channel));
        let (owner, was) = (self.owner(channel), self.oracle.live.contains_key(&key));
        let ticket = self.oracle.next_ticket();
        if !was {
            self.oracle.asked(shard, member, channel, from);
            self.oracle.live.insert(key, ticket);
        }
        // A shard that owns the channel asks and answers before it returns. One that is joined already
        // does not ask; whether it is, only the channels know.
        let outcome = if owner == shard && !was {
            let outcome =
                self.shards[shard].subscribe(member, CHANNELS[channel], from, ticket, now);
            if outcome.is_ok() && rules(CHANNELS[channel]).is_some() {
                let info = self.shards[shard].channel(CHANNELS[channel]).expect("it is owned");
                self.oracle.joined(ticket, now, &info);
            } else if outcome.is_ok() {
                self.seen[shard][channel] = self.oracle.logged(channel);
            }
            self.call(shard, |_, _| About::Other, |_| outcome)
        } else {
            self.call(
                shard,
                |_, _| About::Ask(ticket),
                |channels| channels.subscribe(member, CHANNELS[channel], from, ticket, now),
            )
        };
        match outcome {
            Ok(()) => assert!(!was),
            Err(Refused::AlreadySubscribed) => assert!(was),
            Err(refused) => {
                assert!(self.tight && !was && refused == Refused::Overloaded);
                self.oracle.ended(shard, member, channel);
            }
        }
    }

    fn unsubscribe(&mut self) {
        let (shard, member, channel) = self.anybody();
        let ticket = self.oracle.live.get(&(shard, member, channel)).copied();
        let pending = ticket.filter(|ticket| self.oracle.is_pending(*ticket));
        let outcome = self.call(
            shard,
            |_, _| About::Other,
            |channels| channels.unsubscribe(member, CHANNELS[channel]),
        );
        match ticket {
            None => assert_eq!(outcome, Err(Refused::NotSubscribed)),
            Some(_) => {
                assert_eq!(outcome, Ok(()));
                let withdrawn = pending.is_none_or(|ticket| !self.oracle.is_pending(ticket));
                assert!(withdrawn, "a pending subscription was not withdrawn");
                self.oracle.ended(shard, member, channel);
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
        let forget = |ticket| forgotten.push(ticket);
        self.call(shard, |_, _| About::Other, |channels| channels.leave(member, forget));
        pending.sort_unstable();
        forgotten.sort_unstable();
        assert_eq!(forgotten, pending, "the tickets that get no event");
    }

    fn publish(&mut self) {
        let (shard, _, channel) = self.anybody();
        let (number, now) = (self.oracle.publication(), self.now);
        let publish = |channels: &mut Channels<_>| {
            channels.publish(CHANNELS[channel], payload(number), Some(number), now)
        };
        let outcome = match self.owner(channel) == shard {
            true => self.at_owner(shard, channel, number, publish),
            false => self.call(shard, |_, _| About::Publish(channel, number), publish),
        };
        if let Err(refused) = outcome {
            assert!(self.tight && refused == Refused::Overloaded);
            self.oracle.outcome(number, Err(refused));
        }
    }

    /// A publication reaches its owner.
    fn at_owner<T>(
        &mut self,
        owner: usize,
        channel: usize,
        number: u32,
        publish: impl FnOnce(&mut Channels<Option<u32>>) -> T,
    ) -> T {
        let about = |_, _| About::Publication(channel, number);
        let result = self.call(owner, about, publish);
        let info = self.shards[owner].channel(CHANNELS[channel]);
        self.oracle.published(channel, number, self.now, info);
        self.seen[owner][channel] = self.oracle.logged(channel);
        result
    }

    fn read(&mut self) {
        let (shard, _, channel) = self.anybody();
        let after = self.oracle.position(channel, &mut self.dice).filter(|_| self.dice.bool());
        let (ticket, limit) = (self.reads, self.dice.number(6));
        self.reads += 1;
        if rules(CHANNELS[channel]).is_none() {
            return;
        }
        if self.owner(channel) == shard {
            self.reads(shard, About::Read { ticket, channel, after, limit });
        }
        let now = self.now;
        let about = |_, _| About::Read { ticket, channel, after, limit };
        let outcome = self.call(shard, about, |channels| {
            channels.history(CHANNELS[channel], after, limit, ticket, now)
        });
        assert!(outcome == Ok(()) || self.tight && outcome == Err(Refused::Overloaded));
    }

    /// A read is about to be answered by the owner.
    fn reads(&mut self, owner: usize, about: About) {
        let About::Read { ticket, channel, after, limit } = about else { return };
        let info = self.shards[owner].channel(CHANNELS[channel]);
        let position = info.and_then(|info| info.position);
        self.oracle.read(ticket, channel, after, limit, self.now, position);
    }

    /// Some of what one shard gathered for another is handed over.
    fn hand_over(&mut self, from: usize, to: usize, most: usize) {
        let notes = self.shards[from].notes(to as u16);
        let most = most.min(notes.len());
        let abouts = self.gathered[from][to].drain(..most);
        self.links[from][to].extend(abouts.zip(notes.drain(..most)));
    }

    /// Some of what is on its way arrives.
    fn receive(&mut self, from: usize, to: usize, most: usize) {
        for _ in 0..most {
            let Some((about, note)) = self.links[from][to].pop_front() else { return };
            self.arrive(from, to, about, note);
        }
    }

    fn arrive(&mut self, from: usize, to: usize, about: About, note: Note) {
        let now = self.now;
        let receive = |channels: &mut Channels<_>| channels.receive(from as u16, note, now);
        match about {
            About::Publish(channel, number) => self.at_owner(to, channel, number, receive),
            About::Publication(channel, number) => {
                self.seen[to][channel] =
                    self.seen[to][channel].max(self.oracle.after(channel, number));
                self.call(to, |_, _| About::Other, receive);
            }
            About::Ask(ticket) => {
                self.call(to, |_, _| About::Other, receive);
                // It is only the count of subscribers if the shard was joined already.
                if let Some(channel) = self.oracle.asks(ticket) {
                    let info = self.shards[to].channel(CHANNELS[channel]).expect("the shard cares");
                    self.oracle.joined(ticket, now, &info);
                }
            }
            About::Read { .. } => {
                self.reads(to, about);
                self.call(to, |_, _| About::Other, receive);
            }
            About::Other => self.call(to, |_, _| About::Other, receive),
        }
    }

    fn deliver(&mut self, shard: usize, budget: usize) -> bool {
        let mut left = budget;
        let oracle = &mut self.oracle;
        let more = self.shards[shard].deliver(budget, |publication, form, subscribers| {
            let published = number(&publication.payload);
            assert_eq!(*form.get_or_insert(published), published, "a form is one publication's");
            left = left.checked_sub(subscribers.len()).expect("the budget is kept");
            for subscriber in subscribers {
                oracle.heard(shard, subscriber.member(), publication);
            }
        });
        self.call(shard, |_, _| About::Other, |_| more)
    }

    fn expire(&mut self, shard: usize) {
        let now = self.now;
        self.call(shard, |_, _| About::Other, |channels| channels.expire(now));
    }

    fn anybody(&mut self) -> (usize, u32, usize) {
        (self.any_shard(), self.dice.number(MEMBERS), self.dice.index(CHANNELS.len()))
    }

    fn any_shard(&mut self) -> usize {
        self.dice.index(self.shards.len())
    }

    fn step(&mut self) {
        match self.dice.number(100) {
            0..22 => self.subscribe(),
            22..30 => self.unsubscribe(),
            30..32 => {
                let (shard, member, _) = self.anybody();
                self.leave(shard, member);
            }
            32..50 => self.publish(),
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
            94..97 => self.now += u64::from(self.dice.number(12)),
            _ => {
                let shard = self.any_shard();
                self.expire(shard);
            }
        }
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        let shards = self.shards.len();
        for _ in 0..ROUNDS {
            for from in 0..shards {
                for to in 0..shards {
                    self.hand_over(from, to, usize::MAX);
                    self.receive(from, to, usize::MAX);
                }
                while self.deliver(from, 3) {}
            }
            let waiting = self.shards.iter().map(|channels| {
                let Stats { notes_waiting, deliveries_waiting, .. } = channels.stats();
                notes_waiting + deliveries_waiting
            });
            if waiting.sum::<u64>() == 0 && self.links.iter().flatten().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("shards have always something to do");
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
                // Reports are put off while too many notes wait.
                assert!(self.tight || live.count() as u64 == info.subscribers);
            }
        }
    }
}

/// Nothing is lost, nothing comes twice, all subscribers hear the owner's order, recovery is exact,
/// nobody hears who has left, and everything is given back, however late shards hear each other.
pub(crate) fn several(bytes: &[u8]) {
    let mut world = World::new(bytes);
    while world.dice.has_more() {
        world.step();
    }
    world.settle();
    world.check_subscriptions();
    world.oracle.check();

    for shard in 0..world.shards.len() {
        (0..MEMBERS).for_each(|member| world.leave(shard, member));
    }
    world.settle();
    world.oracle.check();
    world.now += 200;
    for shard in 0..world.shards.len() {
        world.expire(shard);
        assert_eq!(world.shards[shard].stats(), Stats::default(), "something is not given back");
    }
}
