//! Presence on the shard that owns the channels: members, watching shards, grace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::backplane::{MemberObserver, PresenceBackplane};
use super::member::{
    Count, Departure, HERE, Meta, News, Node, PresencePage, PresenceQuery, PresentMember, UserName,
    Watch,
};
use super::members::{Flag, Members, Record};
use super::message::{PresenceMessage, Watchers};
use super::remote::Sweep;
use super::rules::{PresenceRules, Stats};
use super::window::Window;
use crate::channels::name::{ByName, Hashing};
use crate::channels::{ChannelName, Interest, Origin};
use crate::names::{Member, Shard};

/// Says whether, and how, a channel has presence.
pub(super) type Rules = Box<dyn Fn(&str) -> Option<PresenceRules> + Send>;

/// The channels with members or watchers that one shard owns.
pub(super) struct Owner {
    rules: Rules,
    pub(super) hashing: Hashing,
    pub(super) channels: ByName<Owned>,
    /// The version of the newest member or update.
    stamp: u32,
    /// Number of members of all channels.
    pub(super) members: u64,
    /// Members whose grace runs, by its end, channel and member.
    leaving: BTreeSet<(u64, u32, u32)>,
    /// The ends of grace by channel, user and member.
    may_return: BTreeMap<(u32, UserName, u32), u64>,
    /// The windows and counts that are due, by time and channel.
    pub(super) due: BTreeSet<(u64, u32, Due)>,
    /// Nodes that are dead, with the channels that may have members of them.
    pub(super) sweeps: Vec<Sweep>,
    pub(super) backplane: Box<dyn PresenceBackplane + Send>,
    pub(super) observer: Option<Box<dyn MemberObserver + Send>>,
    /// Messages for the shards, this one among them.
    pub(super) out: Vec<(Shard, PresenceMessage)>,
}

/// What is due for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Its window closes.
    Window,
    /// Its counts may be told again.
    Count,
}

/// A channel with members or watchers.
pub(super) struct Owned {
    pub(super) rules: PresenceRules,
    pub(super) members: Members,
    pub(super) interests: Vec<ShardInterest>,
    /// Watchers get counts alone.
    pub(super) is_large: bool,
    pub(super) window: Window,
    pub(super) window_due: Option<u64>,
    pub(super) count_due: Option<u64>,
    /// The counts that all watchers of counts know, and those of this node that others know; `None` if they
    /// know different ones.
    pub(super) count_told: Option<(Count, Count)>,
    /// When counts were told last.
    pub(super) count_told_at: Option<u64>,
    /// All members, if none has changed since.
    snapshot: Option<Arc<[PresentMember]>>,
    /// The counts of other nodes in a large channel.
    pub(super) foreign: Vec<(Node, Count)>,
}

/// The watchers on one shard.
pub(super) struct ShardInterest {
    pub(super) shard: Shard,
    /// The channel's key on that shard.
    pub(super) key: u32,
    pub(super) watchers: Watchers,
    /// Whether the shard has yet to hand out the last changes.
    pub(super) is_behind: bool,
}

/// Members whose grace ends in one call of `expire` at most.
const LEAVES_PER_CALL: usize = 256;
/// Members that a page visits for each one of its limit, because most keys may be free.
const KEYS_A_MEMBER: usize = 16;
/// Bytes that a member counts for in a page, beside its name and metadata.
const MEMBER_BYTES: usize = 64;

impl Owner {
    pub(super) fn new(
        rules: Rules,
        hashing: Hashing,
        backplane: Box<dyn PresenceBackplane + Send>,
    ) -> Self {
        Owner {
            rules,
            hashing,
            channels: ByName::new(),
            stamp: 0,
            members: 0,
            leaving: BTreeSet::new(),
            may_return: BTreeMap::new(),
            due: BTreeSet::new(),
            sweeps: Vec::new(),
            backplane,
            observer: None,
            out: Vec::new(),
        }
    }

    fn next_stamp(&mut self) -> u32 {
        self.stamp = self.stamp.checked_add(1).unwrap_or(1);
        self.stamp
    }

    pub(super) fn find(&self, name: &ChannelName) -> Option<u32> {
        self.channels.find(name.hash, &name.text)
    }

    /// The key of a channel, which is made if there is none; `None` if it has no presence.
    fn find_or_add(&mut self, name: &ChannelName) -> Option<u32> {
        self.find(name).or_else(|| {
            let rules = (self.rules)(&name.text)?;
            Some(self.channels.insert(name.clone(), Owned::new(rules)))
        })
    }

    /// A session becomes a member, comes back, or changes its metadata.
    pub(super) fn join(
        &mut self,
        name: &ChannelName,
        (node, origin): (Node, Origin),
        user: &UserName,
        meta: Option<Meta>,
        now: u64,
    ) {
        let Some(channel) = self.find_or_add(name) else { return };
        let members = &self.channels.value(channel).members;
        let Some(key) = members.find(self.hashing, node, origin) else {
            self.insert(channel, (node, origin), user, meta, now);
            return;
        };
        self.cancel_leaving(channel, key);
        let members = &self.channels.value(channel).members;
        if members.get(key).expect("just found").user != *user {
            // The session has another user now.
            self.remove(channel, key);
            self.insert(channel, (node, origin), user, meta, now);
        } else if members.meta(key) != meta.as_ref() {
            self.update(channel, key, meta);
            self.settle(channel, now);
        }
    }

    fn insert(
        &mut self,
        channel: u32,
        (node, origin): (Node, Origin),
        user: &UserName,
        meta: Option<Meta>,
        now: u64,
    ) {
        if let Some(observer) = self.observer.as_mut().filter(|_| node == HERE) {
            observer.joined(&self.channels.name(channel).text, origin, user);
        }
        let record = Record::new(node, origin, user.clone(), self.next_stamp());
        let tells = self.backplane.exchanges();
        self.members += 1;
        let owned = self.channels.value_mut(channel);
        owned.snapshot = None;
        let key = owned.members.insert(self.hashing, record);
        owned.members.set_meta(key, meta);
        if owned.tells_changes(tells) {
            owned.window.joined(&mut owned.members, key);
        }
        // The user is back: the lost connection leaves in the same window.
        if node == HERE {
            let of_user = |key| (channel, user.clone(), key);
            let returned = self.may_return.range(of_user(0)..=of_user(u32::MAX));
            if let Some((&(.., lost), _)) = returned.into_iter().next() {
                self.remove(channel, lost);
            }
        }
        self.settle(channel, now);
    }

    fn update(&mut self, channel: u32, key: u32, meta: Option<Meta>) {
        let stamp = self.next_stamp();
        let tells = self.backplane.exchanges();
        let owned = self.channels.value_mut(channel);
        owned.snapshot = None;
        let (tells, gone_max) = (owned.tells_changes(tells), owned.gone_max());
        if tells {
            owned.window.replaced(&mut owned.members, key, gone_max);
        }
        owned.members.set_meta(key, meta);
        let record = owned.members.get_mut(key).expect("the caller has found it");
        record.stamp = stamp;
        record.set(Flag::Known, false);
    }

    /// Removes a member. The caller settles the channel afterwards.
    fn remove(&mut self, channel: u32, key: u32) {
        self.cancel_leaving(channel, key);
        let tells = self.backplane.exchanges();
        let owned = self.channels.value_mut(channel);
        owned.snapshot = None;
        let gone_max = owned.tells_changes(tells).then(|| owned.gone_max());
        owned.window.leaves(&mut owned.members, key, gone_max);
        let record = owned.members.remove(self.hashing, key);
        if let Some(observer) = self.observer.as_mut().filter(|_| record.node == HERE) {
            observer.left(&self.channels.name(channel).text, record.origin, &record.user);
        }
        self.members -= 1;
    }

    fn cancel_leaving(&mut self, channel: u32, key: u32) {
        let record = self.channels.value_mut(channel).members.get_mut(key);
        let Some(record) = record.filter(|record| record.is(Flag::Leaving)) else { return };
        record.set(Flag::Leaving, false);
        let of_user = (channel, record.user.clone(), key);
        let until = self.may_return.remove(&of_user).expect("it is leaving");
        self.leaving.remove(&(until, channel, key));
    }

    /// A session is no member any more, or its connection is lost.
    pub(super) fn leave(
        &mut self,
        name: &ChannelName,
        (node, origin): (Node, Origin),
        how: Departure,
        now: u64,
    ) {
        let Some(channel) = self.find(name) else { return };
        let owned = self.channels.value_mut(channel);
        let Some(key) = owned.members.find(self.hashing, node, origin) else { return };
        let grace = u64::from(owned.rules.grace_ms);
        if how == Departure::Left || grace == 0 {
            self.remove(channel, key);
            return self.settle(channel, now);
        }
        let record = owned.members.get_mut(key).expect("just found");
        if !record.set(Flag::Leaving, true) {
            let until = now.saturating_add(grace);
            self.leaving.insert((until, channel, key));
            self.may_return.insert((channel, record.user.clone(), key), until);
        }
    }

    /// Tells other nodes what this one has in a channel.
    pub(super) fn tell(&mut self, name: &ChannelName) {
        match self.find(name) {
            Some(channel) => {
                let owned = self.channels.value_mut(channel);
                if owned.is_count_due() {
                    // Others know another number than watchers of this node.
                    owned.count_told = None;
                }
                self.tell_nodes(channel);
            }
            None => self.backplane.members(&name.text, &[]),
        }
    }

    /// Sets the watchers of a shard. Without any the shard is not interested any more.
    pub(super) fn watching(
        &mut self,
        name: &ChannelName,
        shard: Shard,
        watchers: Watchers,
        now: u64,
    ) {
        let Some(channel) = self.find(name) else { return };
        let owned = self.channels.value_mut(channel);
        let Some(at) = owned.interests.iter().position(|interest| interest.shard == shard) else {
            return;
        };
        owned.interests[at].watchers = watchers;
        if watchers == Watchers::default() {
            owned.interests.swap_remove(at);
            if owned.interests.is_empty() {
                self.forget_foreign(channel);
            }
        }
        self.settle(channel, now);
    }

    /// Nobody here watches the channel any more: other nodes' members are forgotten.
    fn forget_foreign(&mut self, channel: u32) {
        if self.backplane.exchanges() {
            let name = self.channels.name(channel).text.clone();
            self.backplane.interest(&name, Interest::Last);
            self.remove_foreign(channel, |_| true);
        }
    }

    /// Removes the members, and the counts, of other nodes.
    pub(super) fn remove_foreign(&mut self, channel: u32, of: impl Fn(Node) -> bool) {
        let owned = self.channels.value_mut(channel);
        owned.foreign.retain(|(node, _)| !of(*node));
        if owned.members.foreign == 0 {
            return;
        }
        let keys: Vec<u32> = owned
            .members
            .iter()
            .filter(|(_, record)| record.node != HERE && of(record.node))
            .map(|(key, _)| key)
            .collect();
        keys.into_iter().for_each(|key| self.remove(channel, key));
    }

    /// Adds a watcher of a shard, and sends it the state of the channel.
    pub(super) fn watch(
        &mut self,
        name: &ChannelName,
        interest: ShardInterest,
        (watcher, id, watch): (Member, u32, Watch),
        now: u64,
    ) {
        let (shard, key) = (interest.shard, interest.key);
        let Some(channel) = self.find_or_add(name) else {
            let news = News::Count(Count::default());
            self.out.push((shard, PresenceMessage::State { key, watcher, id, news }));
            return;
        };
        let owned = self.channels.value_mut(channel);
        match owned.interests.iter_mut().find(|known| known.shard == shard) {
            Some(known) => (known.key, known.watchers) = (key, interest.watchers),
            None => {
                owned.interests.push(interest);
                if owned.interests.len() == 1 && self.backplane.exchanges() {
                    self.backplane.interest(&name.text, Interest::First);
                }
            }
        }
        // The watcher may be the one with which the channel is large.
        self.settle(channel, now);
        let owned = self.channels.value_mut(channel);
        let news = match watch {
            Watch::Members if !owned.is_large => News::Members(owned.snapshot()),
            _ => {
                if owned.is_count_due() {
                    owned.count_told = None;
                }
                News::Count(owned.count())
            }
        };
        self.out.push((shard, PresenceMessage::State { key, watcher, id, news }));
    }

    /// A page of the members of this node in a channel.
    pub(super) fn page(&self, name: &ChannelName, query: PresenceQuery) -> PresencePage {
        let PresenceQuery { from, limit, bytes_max } = query;
        let Some(channel) = self.find(name) else { return PresencePage::default() };
        let owned = self.channels.value(channel);
        let (limit, end) = (limit as usize, owned.members.keys_end());
        let from = u32::try_from(from).unwrap_or(end);
        let visits = limit.saturating_mul(KEYS_A_MEMBER).max(1024) as u32;
        let last = end.min(from.saturating_add(visits));
        let (mut members, mut bytes, mut key) = (Vec::new(), 0_usize, from);
        while limit > 0 && key < last && members.len() < limit {
            if let Some(record) = owned.members.get(key).filter(|record| record.node == HERE) {
                let meta = owned.members.meta(key).map_or(0, |meta| meta.bytes().len());
                bytes = bytes.saturating_add(MEMBER_BYTES + meta + record.user.len());
                if bytes > bytes_max as usize && !members.is_empty() {
                    break;
                }
                members.push(owned.members.shown(key));
            }
            key += 1;
        }
        let next = (limit > 0 && key < end).then_some(key.into());
        PresencePage { count: owned.count_here(), members, next, unanswered: Vec::new() }
    }

    /// Lets members leave whose grace is over, a bounded number of them.
    pub(super) fn end_grace(&mut self, now: u64) {
        for _ in 0..LEAVES_PER_CALL {
            let Some(&(until, channel, key)) = self.leaving.first() else { return };
            if until > now {
                return;
            }
            self.remove(channel, key);
            self.settle(channel, now);
        }
    }

    /// The time at which the next grace ends, or something is due.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let grace = self.leaving.first().map(|(until, ..)| *until);
        let due = self.due.first().map(|(at, ..)| *at);
        let sweep = self.sweeps.first().map(|_| 0);
        grace.into_iter().chain(due).chain(sweep).min()
    }

    pub(super) fn count_into(&self, stats: &mut Stats) {
        stats.channels = self.channels.len() as u64;
        stats.members = self.members;
        stats.leaving = self.leaving.len().max(self.may_return.len()) as u64;
        stats.due = (self.due.len() + self.sweeps.len()) as u64;
    }
}

impl Owned {
    fn new(rules: PresenceRules) -> Self {
        Owned {
            rules,
            members: Members::new(),
            interests: Vec::new(),
            is_large: !rules.lists || rules.push_max == 0,
            window: Window::default(),
            window_due: None,
            count_due: None,
            count_told: None,
            count_told_at: None,
            snapshot: None,
            foreign: Vec::new(),
        }
    }

    /// How many are in the channel, on all nodes.
    pub(super) fn count(&self) -> Count {
        let mut count = self.members.count();
        for (_, foreign) in &self.foreign {
            count.clients = count.clients.saturating_add(foreign.clients);
            count.users = count.users.saturating_add(foreign.users);
        }
        count
    }

    /// How many members of this node there are. In a channel that is not large on all nodes, the users may
    /// be fewer.
    pub(super) fn count_here(&self) -> Count {
        let clients = self.members.here() as u64;
        Count { clients, users: self.members.count().users.min(clients) }
    }

    /// Whether the counts have changed since they were told.
    pub(super) fn is_count_due(&self) -> bool {
        self.count_told != Some((self.count(), self.count_here()))
    }

    /// Number of watchers of all shards.
    pub(super) fn watchers(&self) -> Watchers {
        let mut sum = Watchers::default();
        for ShardInterest { watchers, .. } in &self.interests {
            sum.members = sum.members.saturating_add(watchers.members);
            sum.counts = sum.counts.saturating_add(watchers.counts);
        }
        sum
    }

    /// Whether somebody is told each join and leave.
    pub(super) fn tells_changes(&self, exchanges: bool) -> bool {
        let watched = self.interests.iter().any(|interest| interest.watchers.members > 0);
        !self.is_large && (watched || exchanges)
    }

    /// Number of leaves in a window at most. With more, watchers get all members instead.
    fn gone_max(&self) -> usize {
        (self.rules.push_max as usize).saturating_mul(4)
    }

    /// All members. A watcher may know them from now on.
    pub(super) fn snapshot(&mut self) -> Arc<[PresentMember]> {
        let members = &mut self.members;
        Arc::clone(self.snapshot.get_or_insert_with(|| members.show_all()))
    }
}
