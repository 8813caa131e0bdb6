//! Several shards, their messages and their connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use murre_router::channels::Taken;
use murre_router::presence::{
    Count, News, Node, Presence, PresenceMessage, PresenceRules, PresentMember, Watching,
};

/// Numbers from bytes; 0 when they have run out.
pub(crate) struct Choices<'b>(pub(crate) std::slice::Iter<'b, u8>);

impl Choices<'_> {
    pub(crate) fn has_more(&self) -> bool {
        self.0.len() > 0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % end
    }
}

/// What a watcher of a channel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    Members(BTreeMap<(Node, OriginNumber), PresentMember>),
    Count(Count),
}

/// An origin that has an order.
pub(crate) type OriginNumber = u64;

/// What the connections of one shard know.
#[derive(Default)]
pub(crate) struct Connections {
    pub(crate) known: BTreeMap<(u32, Arc<str>), Known>,
    pub(crate) congested: BTreeSet<u32>,
    pub(crate) told: BTreeMap<&'static str, u32>,
}

impl Watching<()> for Connections {
    fn offer(&mut self, member: u32, channel: &Arc<str>, news: &News, (): &mut ()) -> Taken {
        let mut count = |kind| *self.told.entry(kind).or_default() += 1;
        let Some(known) = self.known.get_mut(&(member, channel.clone())) else {
            panic!("{member} does not watch {channel}");
        };
        if self.congested.contains(&member) {
            count("behind");
            return Taken::Full;
        }
        let key = |member: &PresentMember| (member.node, member.origin.0);
        match news {
            News::Members(members) => {
                count("members");
                let all: BTreeMap<_, _> =
                    members.iter().map(|member| (key(member), member.clone())).collect();
                assert_eq!(all.len(), members.len(), "a member is listed once");
                *known = Known::Members(all);
            }
            News::Changes(changes) => {
                let Known::Members(all) = known else {
                    panic!("changes before members: {known:?}")
                };
                assert!(!changes.is_empty(), "there is something to tell");
                let stamps: BTreeSet<u32> = changes.joins.iter().map(|join| join.stamp).collect();
                assert_eq!(stamps.len(), changes.joins.len(), "a join is told once");
                for leave in &changes.leaves {
                    count("leaves");
                    assert!(!stamps.contains(&leave.stamp), "it came and went in one window");
                    all.remove(&key(leave));
                }
                for join in &changes.joins {
                    count(if join.replaces > 0 { "updates" } else { "joins" });
                    let shown = PresentMember { replaces: 0, ..join.clone() };
                    all.insert(key(join), shown);
                }
            }
            News::Count(now) => {
                count("counts");
                *known = Known::Count(*now);
            }
        }
        Taken::Yes
    }
}

/// Shards, and the messages between them.
pub(crate) struct World {
    pub(crate) shards: Vec<Presence>,
    pub(crate) connections: Vec<Connections>,
    /// By sender and receiver: messages on their way.
    wires: Vec<VecDeque<PresenceMessage>>,
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn new(
        shards: usize,
        messages_max: usize,
        rules: fn(&str) -> Option<PresenceRules>,
    ) -> Self {
        let new = |shard| Presence::new(shard as u16, shards as u16, 7, rules, messages_max);
        World {
            shards: (0..shards).map(new).collect(),
            connections: (0..shards).map(|_| Connections::default()).collect(),
            wires: (0..shards * shards).map(|_| VecDeque::new()).collect(),
            now: 0,
        }
    }

    /// Hands messages of one shard to the wire to another.
    pub(crate) fn hand_over(&mut self, from: usize, to: usize) {
        if from != to {
            let messages = self.shards[from].messages(to as u16).drain(..);
            self.wires[from * self.connections.len() + to].extend(messages);
        }
    }

    /// Messages arrive, at most `count` of them. Returns whether there were some.
    pub(crate) fn arrive(&mut self, from: usize, to: usize, count: usize) -> bool {
        let mut some = false;
        for _ in 0..count {
            let wire = &mut self.wires[from * self.connections.len() + to];
            let Some(message) = wire.pop_front() else { break };
            self.shards[to].receive(from as u16, message, self.now);
            some = true;
        }
        some
    }

    pub(crate) fn deliver(&mut self, shard: usize, limit: usize) -> bool {
        self.shards[shard].deliver(limit, self.now, &mut self.connections[shard])
    }

    /// All messages arrive, and all news are handed out. Time stands still.
    pub(crate) fn settle(&mut self) {
        let all = self.shards.len();
        loop {
            let mut some = false;
            for shard in 0..all {
                self.shards[shard].expire(self.now);
                some |= self.deliver(shard, 5);
                for to in 0..all {
                    self.hand_over(shard, to);
                    some |= self.arrive(shard, to, usize::MAX);
                }
            }
            let due = self.shards.iter().filter_map(Presence::next_expiry);
            some |= due.min().is_some_and(|due| due <= self.now);
            if !some {
                return;
            }
        }
    }

    /// Time passes until nothing is due any more.
    pub(crate) fn calm_down(&mut self) {
        self.settle();
        while let Some(due) = self.shards.iter().filter_map(Presence::next_expiry).min() {
            self.now = self.now.max(due);
            self.settle();
        }
    }
}
