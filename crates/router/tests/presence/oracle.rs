//! A naive model of who is in which channel, beside shards whose messages are late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use murre_router::channels::{ChannelError, Origin};
use murre_router::presence::{
    Count, Departure, Meta, PresenceEvent, PresenceQuery, PresenceRules, PresentMember, Stats,
    UserName, Watch,
};

use crate::world::{Choices, Known, World};

const SLOTS: usize = 6;
const CHANNELS: [&str; 5] = ["", "__proto__", "large", "never", "quick"];

fn rules(channel: &str) -> Option<PresenceRules> {
    let rules = PresenceRules { lists: true, push_max: 4, interval_ms: 1000, grace_ms: 500 };
    Some(match channel {
        "large" => PresenceRules { lists: false, ..rules },
        "quick" => PresenceRules { grace_ms: 0, push_max: 1, interval_ms: 0, ..rules },
        "never" => return None,
        "__proto__" => PresenceRules { push_max: 1000, ..rules },
        _ => rules,
    })
}

/// One connection after another in a slot.
#[derive(Default)]
struct Session {
    generation: u64,
    user: usize,
    member_of: BTreeMap<&'static str, Option<Meta>>,
    watches: BTreeMap<&'static str, Watch>,
}

/// Users and metadata, by origin.
type Shown = BTreeMap<u64, (UserName, Option<Meta>)>;

struct Model<'b> {
    choices: Choices<'b>,
    world: World,
    sessions: Vec<Session>,
    users: Vec<UserName>,
    pages: u32,
    refused: u32,
}

/// Runs the steps, and returns how often each kind of news was told.
pub(crate) fn run(steps: &[u8]) -> BTreeMap<&'static str, u32> {
    let mut choices = Choices(steps.iter());
    let (shards, messages_max) = (1 + choices.below(4), [2, 1000][choices.below(2)]);
    let users = ["", "__proto__", "ann", &"é".repeat(127)];
    let mut model = Model {
        choices,
        world: World::new(shards, messages_max, rules),
        sessions: (0..shards * SLOTS).map(|_| Session::default()).collect(),
        users: users.into_iter().map(UserName::from).collect(),
        pages: 0,
        refused: 0,
    };
    while model.choices.has_more() {
        model.step();
    }
    model.check();
    model.end()
}

impl Model<'_> {
    fn step(&mut self) {
        let at = self.choices.below(self.sessions.len());
        let (shard, slot) = (at / SLOTS, (at % SLOTS) as u32);
        let channel = CHANNELS[self.choices.below(CHANNELS.len())];
        let (origin, now) = (self.origin(at), self.world.now);
        let other = self.choices.below(self.world.shards.len());
        match self.choices.below(20) {
            0..5 => self.join(at, channel),
            5 => {
                self.world.shards[shard].leave(channel, origin, Departure::Left, now);
                self.sessions[at].member_of.remove(channel);
            }
            6 => self.lose(at),
            7..9 => self.watch(at, channel),
            9 => {
                self.world.shards[shard].unwatch(slot, channel, now);
                self.sessions[at].watches.remove(channel);
                self.world.connections[shard].known.remove(&(slot, channel.into()));
            }
            10 => _ = self.world.connections[shard].congested.insert(slot),
            11 => self.resume(shard, slot),
            12 => self.world.hand_over(shard, other),
            13 => _ = self.world.arrive(shard, other, 3),
            14 => _ = self.world.deliver(shard, self.choices.below(4)),
            15..17 => {
                self.world.now += self.choices.below(120) as u64;
                self.world.shards[shard].expire(self.world.now);
            }
            17 | 18 => self.world.settle(),
            _ => self.check(),
        }
    }

    fn origin(&self, at: usize) -> Origin {
        let generation = self.sessions[at].generation;
        Origin((at / SLOTS) as u64 * 1_000_000 + (at % SLOTS) as u64 * 10_000 + generation)
    }

    fn join(&mut self, at: usize, channel: &'static str) {
        let meta = self.choices.below(4) as u8;
        let meta = (meta > 0).then(|| Meta::new(&[meta]));
        let (origin, now) = (self.origin(at), self.world.now);
        let session = &mut self.sessions[at];
        let user = &self.users[session.user];
        match self.world.shards[at / SLOTS].join(channel, origin, user, meta.clone(), now) {
            Ok(()) => {
                if channel != "never" {
                    session.member_of.insert(channel, meta);
                }
            }
            Err(why) => {
                assert_eq!(why, ChannelError::Overloaded);
                self.refused += 1;
            }
        }
    }

    /// The connection is lost; another one has the slot.
    fn lose(&mut self, at: usize) {
        let (shard, slot) = (at / SLOTS, (at % SLOTS) as u32);
        let (origin, now) = (self.origin(at), self.world.now);
        let user = self.choices.below(self.users.len());
        let session = &mut self.sessions[at];
        for channel in session.member_of.keys() {
            self.world.shards[shard].leave(channel, origin, Departure::Lost, now);
        }
        for &channel in session.watches.keys() {
            self.world.shards[shard].unwatch(slot, channel, now);
            self.world.connections[shard].known.remove(&(slot, channel.into()));
        }
        let generation = session.generation + 1;
        *session = Session { generation, user, ..Session::default() };
        self.world.connections[shard].congested.remove(&slot);
    }

    fn watch(&mut self, at: usize, channel: &'static str) {
        let (shard, slot) = (at / SLOTS, (at % SLOTS) as u32);
        let watch = [Watch::Members, Watch::Counts][usize::from(self.choices.below(3) == 0)];
        match self.world.shards[shard].watch(slot, channel, watch, self.world.now) {
            Ok(()) => {
                self.sessions[at].watches.insert(channel, watch);
                let known = &mut self.world.connections[shard].known;
                known.insert((slot, channel.into()), Known::Nothing);
            }
            Err(why) => assert_eq!(why, ChannelError::Overloaded),
        }
    }

    fn resume(&mut self, shard: usize, slot: u32) {
        if self.world.connections[shard].congested.remove(&slot) {
            self.world.shards[shard].resume(slot, self.world.now);
        }
    }

    /// When everything has arrived and all connections have taken everything, all know the truth.
    fn check(&mut self) {
        for at in 0..self.sessions.len() {
            self.resume(at / SLOTS, (at % SLOTS) as u32);
        }
        self.world.calm_down();
        for channel in CHANNELS {
            let members = self.members(channel);
            let users: BTreeSet<&str> = members.values().map(|(user, _)| &**user).collect();
            let count = Count { clients: members.len() as u64, users: users.len() as u64 };
            let shown: Shown = members.clone();
            let (listed, counted) = self.list(channel);
            assert_eq!(listed, shown, "the pages of {channel:?}");
            assert_eq!(counted, count, "{channel:?}");
            let watchers = self.sessions.iter().filter_map(|session| session.watches.get(channel));
            let watchers = watchers.filter(|watch| **watch == Watch::Members).count() as u64;
            let size = count.clients.max(watchers);
            for (at, session) in self.sessions.iter().enumerate() {
                let Some(watch) = session.watches.get(channel) else { continue };
                let known = &self.world.connections[at / SLOTS].known;
                let known = &known[&((at % SLOTS) as u32, Arc::from(channel))];
                let push_max =
                    rules(channel).filter(|rules| rules.lists).map_or(0, |rules| rules.push_max);
                match (watch, known) {
                    (Watch::Counts, known) => assert_eq!(*known, Known::Count(count)),
                    (Watch::Members, Known::Count(known)) => {
                        assert_eq!(*known, count, "{channel:?}");
                        assert!(size * 2 >= u64::from(push_max), "{channel:?} is small");
                    }
                    (Watch::Members, Known::Members(known)) => {
                        let shown = shown_of(known.values());
                        assert_eq!(shown, members, "{channel:?} of {at}");
                        assert!(size <= u64::from(push_max), "{channel:?} is large");
                    }
                    (Watch::Members, Known::Nothing) => panic!("{at} knows nothing of {channel:?}"),
                }
            }
        }
    }

    fn members(&self, channel: &str) -> Shown {
        let sessions = self.sessions.iter().enumerate();
        let members = sessions.filter_map(|(at, session)| {
            let meta = session.member_of.get(channel)?;
            Some((self.origin(at).0, (self.users[session.user].clone(), meta.clone())))
        });
        members.collect()
    }

    /// All members by pages, and the counts.
    fn list(&mut self, channel: &str) -> (Shown, Count) {
        let (mut members, mut from) = (Vec::new(), 0);
        loop {
            let limit = 1 + self.choices.below(5) as u32;
            let query = PresenceQuery { from, limit, bytes_max: 300 };
            self.world.shards[0].read(channel, query, 77, self.world.now).expect("calm");
            self.world.settle();
            let Some(PresenceEvent::Page { ticket: 77, page }) = self.world.shards[0].event()
            else {
                panic!("there is one page");
            };
            self.pages += 1;
            assert!(page.members.len() <= limit as usize);
            members.extend(page.members);
            match page.next {
                Some(next) => from = next,
                None => {
                    let shown = shown_of(members.iter());
                    assert_eq!(shown.len(), members.len(), "each is listed once");
                    return (shown, page.count);
                }
            }
        }
    }

    /// All leave: nothing is left.
    fn end(mut self) -> BTreeMap<&'static str, u32> {
        (0..self.sessions.len()).for_each(|at| self.lose(at));
        self.world.calm_down();
        let mut told = BTreeMap::from([("page", self.pages), ("refused", self.refused)]);
        for (shard, connections) in self.world.shards.iter().zip(self.world.connections) {
            assert_eq!(shard.stats(), Stats::default());
            connections.told.into_iter().for_each(|(kind, n)| *told.entry(kind).or_default() += n);
        }
        told
    }
}

fn shown_of<'m>(members: impl Iterator<Item = &'m PresentMember>) -> Shown {
    members.map(|member| (member.origin.0, (member.user.clone(), member.meta.clone()))).collect()
}
