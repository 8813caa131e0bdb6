//! Several nodes over a simulated bus that delays, loses, repeats and disconnects. Nodes die, come back and
//! stand still. When all is calm again, every watcher knows exactly the members of the nodes that live.

mod cases;
mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};

use fastrand::Rng;
use murre_router::channels::{Origin, Taken};
use murre_router::presence::{
    Count, Departure, Meta, News, Presence, PresenceQuery, PresenceRules, PresentMember, UserName,
    Watch, Watching,
};

use super::counts::Counts;
use super::exchange::{Asker, Clocks, Exchange, Out, Subject, ToShard};
use super::finds::FoundHere;
use super::shard::{Command, ShardPresence};

fn owner(channel: &str) -> u16 {
    murre_router::channels::owner(channel, SHARDS, SEED)
}

const SHARDS: u16 = 2;
const SEED: u64 = 7;
/// Milliseconds of one step.
const STEP: u64 = 10;

fn rules(channel: &str) -> Option<PresenceRules> {
    let rules = PresenceRules { lists: true, push_max: 8, interval_ms: 1000, grace_ms: 0 };
    Some(match channel {
        "counts" => PresenceRules { lists: false, ..rules },
        "grace" => PresenceRules { grace_ms: 800, push_max: 1000, ..rules },
        _ => rules,
    })
}

/// What a watcher knows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    Members(BTreeMap<(u16, u64), PresentMember>),
    Count(Count),
}

/// The watchers of a shard, by member and channel.
#[derive(Default)]
struct Watchers {
    known: BTreeMap<(u32, Arc<str>), Known>,
    /// Leaves that they were told.
    leaves: u64,
}

impl Watching<()> for Watchers {
    fn offer(&mut self, member: u32, channel: &Arc<str>, news: &News, (): &mut ()) -> Taken {
        let Some(known) = self.known.get_mut(&(member, channel.clone())) else {
            panic!("{member} does not watch {channel}");
        };
        let key = |member: &PresentMember| (member.node, member.origin.0);
        match news {
            News::Members(all) => {
                *known = Known::Members(all.iter().map(|one| (key(one), one.clone())).collect());
            }
            News::Changes(changes) => {
                let Known::Members(all) = known else { panic!("changes before members") };
                for leave in &changes.leaves {
                    self.leaves += u64::from(all.remove(&key(leave)).is_some());
                }
                all.extend(changes.joins.iter().map(|join| (key(join), join.clone())));
            }
            News::Count(count) => *known = Known::Count(*count),
        }
        Taken::Yes
    }
}

type Shown = BTreeSet<(u64, UserName, Option<Vec<u8>>)>;

/// A node, which is dead if it has no `life`.
#[derive(Default)]
struct Node {
    life: Option<Life>,
    /// It does nothing before this time.
    stopped_until: u64,
    /// It has no connection before this time.
    cut_until: u64,
    was_cut: bool,
}

struct Life {
    incarnation: u64,
    shards: Vec<Presence>,
    watchers: Vec<Watchers>,
    exchange: Exchange,
    commands: Receiver<Command>,
    counts: Arc<Counts>,
    subscriptions: BTreeSet<Arc<str>>,
    members: BTreeMap<(&'static str, u64), (UserName, Option<Meta>)>,
    watches: BTreeMap<(u16, u32, &'static str), Watch>,
}

/// A message on its way: when it arrives, and the channel of its subject.
type Mail = (u64, Option<Arc<str>>, Vec<u8>);

struct World {
    now: u64,
    rng: Rng,
    nodes: Vec<Node>,
    /// By sender and receiver.
    wires: Vec<VecDeque<Mail>>,
    /// By sender and receiver: messages are lost until then, and nobody is told.
    lossy_until: Vec<u64>,
    repeats: bool,
    next: u64,
}

impl World {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut world = World {
            now: 1_000_000,
            rng: Rng::with_seed(seed),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            wires: (0..nodes * nodes).map(|_| VecDeque::new()).collect(),
            lossy_until: vec![0; nodes * nodes],
            repeats: false,
            next: 0,
        };
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    /// A number that is used once.
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn start(&mut self, node: usize) {
        let (sender, commands) = channel();
        let shard = |shard| {
            let backplane = ShardPresence { shard, exchange: sender.clone() };
            Presence::new(shard, SHARDS, SEED, rules, 100).with_backplane(Box::new(backplane))
        };
        let (incarnation, counts) = (self.next(), Arc::<Counts>::default());
        let name = format!("node-{node}").into();
        self.nodes[node].life = Some(Life {
            incarnation,
            shards: (0..SHARDS).map(shard).collect(),
            watchers: (0..SHARDS).map(|_| Watchers::default()).collect(),
            exchange: Exchange::new(
                incarnation,
                name,
                SHARDS,
                Box::new(owner),
                Arc::clone(&counts),
            ),
            commands,
            counts,
            subscriptions: BTreeSet::new(),
            members: BTreeMap::new(),
            watches: BTreeMap::new(),
        });
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node] = Node::default();
        for other in 0..self.nodes.len() {
            let wire = self.wire(other, node);
            self.wires[wire].clear();
        }
    }

    fn wire(&self, from: usize, to: usize) -> usize {
        from * self.nodes.len() + to
    }

    fn life(&mut self, node: usize) -> &mut Life {
        self.nodes[node].life.as_mut().expect("it lives")
    }

    // ---- what sessions do ----

    fn join(&mut self, node: usize, channel: &'static str, user: &str) -> u64 {
        let origin = self.next();
        self.update(node, channel, origin, user, None);
        origin
    }

    fn update(
        &mut self,
        node: usize,
        channel: &'static str,
        origin: u64,
        user: &str,
        meta: Option<u64>,
    ) {
        let (now, user) = (self.now, UserName::from(user));
        let meta = meta.map(|meta| Meta::new(meta.to_string().as_bytes()));
        let life = self.life(node);
        let shard = (origin % u64::from(SHARDS)) as usize;
        let joined = life.shards[shard].join(channel, Origin(origin), &user, meta.clone(), now);
        joined.expect("there is room");
        life.members.insert((channel, origin), (user, meta));
    }

    fn leave(&mut self, node: usize, channel: &'static str, origin: u64, how: Departure) {
        let now = self.now;
        let life = self.life(node);
        life.shards[(origin % u64::from(SHARDS)) as usize].leave(channel, Origin(origin), how, now);
        life.members.remove(&(channel, origin));
    }

    fn watch(&mut self, node: usize, shard: u16, slot: u32, channel: &'static str, watch: Watch) {
        let now = self.now;
        let life = self.life(node);
        let at = usize::from(shard);
        life.watchers[at].known.insert((slot, channel.into()), Known::Nothing);
        life.shards[at].watch(slot, channel, watch, now).expect("there is room");
        life.watches.insert((shard, slot, channel), watch);
    }

    fn unwatch(&mut self, node: usize, shard: u16, slot: u32, channel: &'static str) {
        let now = self.now;
        let life = self.life(node);
        let at = usize::from(shard);
        life.watchers[at].known.remove(&(slot, channel.into()));
        life.shards[at].unwatch(slot, channel, now);
        life.watches.remove(&(shard, slot, channel));
    }

    // ---- time and the bus ----

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.now += STEP;
            (0..self.nodes.len()).for_each(|node| self.step(node));
        }
    }

    fn step(&mut self, at: usize) {
        let now = self.now;
        let Node { life: Some(life), stopped_until, cut_until, was_cut } = &mut self.nodes[at]
        else {
            return;
        };
        if *stopped_until > now {
            return;
        }
        if *cut_until > now {
            *was_cut = true;
        } else if std::mem::take(was_cut) {
            life.exchange.lost(now);
        }
        let nodes = self.wires.len().isqrt();
        for from in 0..nodes {
            let wire = &mut self.wires[from * nodes + at];
            while wire.front().is_some_and(|(due, ..)| *due <= now) {
                let Some((_, channel, bytes)) = wire.pop_front() else { break };
                life.exchange.hear(channel.as_ref(), &bytes, now);
            }
        }
        life.turn(now);
        life.exchange.tick(Clocks { steady: now, wall: now });
        for out in life.exchange.take_out() {
            match out {
                Out::Publish(subject, bytes) => self.publish(at, &subject, &bytes),
                Out::Subscribe(channel) => {
                    assert!(self.life(at).subscriptions.insert(channel), "once");
                }
                Out::Unsubscribe(channel) => {
                    assert!(self.life(at).subscriptions.remove(&channel), "it was subscribed");
                }
                // A mailbox is full at times.
                Out::Shard(_, what) if self.repeats && !what.is_needed() && self.rng.u8(..) < 3 => {
                    self.life(at).exchange.undelivered(&what, now);
                }
                Out::Shard(shard, ToShard::Remote(event)) => {
                    self.life(at).shards[usize::from(shard)].remote(event, now);
                }
                Out::Shard(shard, ToShard::Tell(channel)) => {
                    self.life(at).shards[usize::from(shard)].tell(&channel);
                }
                Out::Shard(shard, ToShard::Read { to, id, channel, query }) => {
                    assert_eq!(shard, owner(&channel));
                    let page = self.life(at).shards[usize::from(shard)].page(&channel, query);
                    self.life(at).exchange.hear_page(to, id, page);
                }
                Out::Shard(shard, ToShard::Find { to, id, user }) => {
                    let life = self.life(at);
                    let here = life.members.iter().filter(|((_, origin), (name, _))| {
                        *name == *user && origin % u64::from(SHARDS) == u64::from(shard)
                    });
                    let connections = here.map(|((_, origin), _)| Origin(*origin)).collect();
                    let found = FoundHere { shard, shards: SHARDS, connections };
                    life.exchange.hear_found(to, id, found);
                }
                Out::Shard(_, ToShard::Page { .. }) => unreachable!("the API reads"),
            }
        }
    }

    fn publish(&mut self, from: usize, subject: &Subject, bytes: &[u8]) {
        if self.nodes[from].cut_until > self.now {
            return;
        }
        for to in 0..self.nodes.len() {
            let node = &self.nodes[to];
            let Some(life) = &node.life else { continue };
            let (gets, channel) = match subject {
                Subject::Nodes => (true, None),
                Subject::Node(incarnation) => (life.incarnation == *incarnation, None),
                Subject::Channel(name) => (life.subscriptions.contains(name), Some(name.clone())),
            };
            let wire = self.wire(from, to);
            if !gets || node.cut_until > self.now || self.lossy_until[wire] > self.now {
                continue;
            }
            let last = self.wires[wire].back().map_or(0, |(due, ..)| *due);
            let due = last.max(self.now + self.rng.u64(0..50));
            let times = if self.repeats && self.rng.u8(..) < 20 { 2 } else { 1 };
            for _ in 0..times {
                self.wires[wire].push_back((due, channel.clone(), bytes.to_vec()));
            }
        }
    }

    /// All members of a channel, by pages that a node gives.
    fn list(&mut self, node: usize, channel: &str, limit: u32) -> (Vec<PresentMember>, Count) {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let (answer, mut answered) = tokio::sync::oneshot::channel();
            let (query, now) = (PresenceQuery { from, limit, bytes_max: 1 << 20 }, self.now);
            self.life(node).exchange.read(Asker::Api(answer), channel.into(), query, now);
            let page = loop {
                self.pass(STEP);
                match answered.try_recv() {
                    Ok(page) => break page,
                    Err(why) => assert_eq!(why, tokio::sync::oneshot::error::TryRecvError::Empty),
                }
            };
            assert!(page.unanswered.is_empty(), "{:?}", page.unanswered);
            assert!(page.members.len() <= limit as usize);
            all.extend(page.members);
            match page.next {
                Some(next) => from = next,
                None => return (all, page.count),
            }
        }
    }

    /// The sessions of a user on all nodes, as a node finds them.
    fn find(&mut self, node: usize, user: &str) -> Vec<u64> {
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        let now = self.now;
        self.life(node).exchange.find(answer, &user.into(), now);
        let found = loop {
            self.pass(STEP);
            if let Ok(found) = answered.try_recv() {
                break found;
            }
        };
        assert!(found.unanswered.is_empty(), "{:?}", found.unanswered);
        let mut all: Vec<_> = found.nodes.iter().flat_map(|(_, of)| of).map(|of| of.0).collect();
        all.sort_unstable();
        all
    }

    // ---- what must be ----

    /// Whether all watchers know the members of all nodes that live; otherwise what is wrong.
    fn check(&self) -> Result<(), String> {
        let lives = || self.nodes.iter().filter_map(|node| node.life.as_ref());
        for (at, life) in self.nodes.iter().enumerate() {
            let Some(life) = &life.life else { continue };
            for (&(shard, slot, channel), watch) in &life.watches {
                let mut all = Shown::new();
                for other in lives() {
                    let here = other.members.iter().filter(|((of, _), _)| *of == channel);
                    let here: Shown = here
                        .map(|((_, origin), (user, meta))| shown(*origin, user, meta))
                        .collect();
                    all.extend(here);
                }
                let different =
                    all.iter().map(|(_, user, _)| user).collect::<BTreeSet<_>>().len() as u64;
                let known = &life.watchers[usize::from(shard)].known[&(slot, channel.into())];
                let is_right = match known {
                    Known::Nothing => false,
                    Known::Count(count) => {
                        let is_large = *watch == Watch::Counts
                            || rules(channel).is_some_and(|rules| !rules.lists)
                            || all.len() >= 4;
                        is_large
                            && count.clients == all.len() as u64
                            && (different..=count.clients).contains(&count.users)
                    }
                    Known::Members(members) => {
                        let members = members.values();
                        all == members
                            .map(|one| shown(one.origin.0, &one.user, &one.meta))
                            .collect()
                    }
                };
                if !is_right {
                    return Err(format!(
                        "watcher {slot} of shard {shard} of node {at} in {channel:?}: knows {known:?}, \
                         there are {all:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn sum(&self, count: impl Fn(&Counts) -> u64) -> u64 {
        self.nodes.iter().filter_map(|node| Some(count(&node.life.as_ref()?.counts))).sum()
    }
}

fn shown(origin: u64, user: &UserName, meta: &Option<Meta>) -> (u64, UserName, Option<Vec<u8>>) {
    (origin, user.clone(), meta.as_ref().map(|meta| meta.bytes().to_vec()))
}

impl Life {
    /// A turn of all shards, whose commands the exchange gets.
    fn turn(&mut self, now: u64) {
        for shard in 0..usize::from(SHARDS) {
            self.shards[shard].expire(now);
            self.shards[shard].deliver(1000, now, &mut self.watchers[shard]);
            for to in 0..usize::from(SHARDS) {
                if to != shard {
                    let messages: Vec<_> =
                        self.shards[shard].messages(to as u16).drain(..).collect();
                    messages
                        .into_iter()
                        .for_each(|message| self.shards[to].receive(shard as u16, message, now));
                }
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            let Command::FromShard(shard, channel, what) = command else { panic!("from a shard") };
            self.exchange.hear_shard(shard, channel, what, now);
        }
    }
}

/// The total of a count.
fn of(count: &std::sync::atomic::AtomicU64) -> u64 {
    count.load(Relaxed)
}
