//! What the owner of a channel tells its watchers: changes of small channels, counts of large ones.

use super::member::News;
use super::message::PresenceMessage;
use super::owner::{Due, Owned, Owner};
use super::rules::WINDOW_MS;

/// Members that the changes of one call of `tell_due` have at most, to within the changes of a channel.
const MEMBERS_PER_CALL: usize = 4096;
/// Channels whose watchers are told something in one call.
const CHANNELS_PER_CALL: usize = 64;

impl Owner {
    /// Reacts to a change of a channel: it becomes large or small, its window or its count is due, or it
    /// is forgotten.
    pub(super) fn settle(&mut self, channel: u32, now: u64) {
        if self.forget_unused(channel) {
            return;
        }
        let owned = self.channels.value(channel);
        let watchers = owned.watchers();
        let clients = owned.count().clients.max(watchers.members.into());
        let push_max = u64::from(owned.rules.push_max);
        // A node that tells numbers alone has members that this one does not know.
        let lists = owned.rules.lists && owned.foreign.is_empty();
        match owned.is_large {
            false if clients > push_max || !lists => self.grow(channel, now),
            true if lists && clients.saturating_mul(2) < push_max => self.shrink(channel),
            _ => {}
        }
        self.schedule(channel, now);
    }

    /// Forgets a channel without members and watchers, when other nodes know that it has no members here.
    /// Returns whether it is forgotten.
    fn forget_unused(&mut self, channel: u32) -> bool {
        let exchanges = self.backplane.exchanges();
        let owned = self.channels.value(channel);
        let is_used = !owned.interests.is_empty() || owned.members.len() > 0;
        if is_used || exchanges && owned.owes_nodes() {
            return false;
        }
        let Owned { window_due, count_due, .. } = *owned;
        self.cancel(channel, window_due, Due::Window);
        self.cancel(channel, count_due, Due::Count);
        self.channels.remove(channel);
        true
    }

    /// The channel is large from now on: its watchers get counts.
    fn grow(&mut self, channel: u32, now: u64) {
        let owned = self.channels.value_mut(channel);
        owned.is_large = true;
        owned.window.clear(&mut owned.members);
        let (watchers, window_due) = (owned.watchers(), owned.window_due.take());
        self.cancel(channel, window_due, Due::Window);
        if watchers.members > 0 {
            self.tell_count(channel, now);
        }
    }

    /// The channel is small from now on: its watchers get all members, then changes.
    fn shrink(&mut self, channel: u32) {
        self.channels.value_mut(channel).is_large = false;
        self.tell_members(channel);
    }

    fn cancel(&mut self, channel: u32, due: Option<u64>, what: Due) {
        if let Some(at) = due {
            self.due.remove(&(at, channel, what));
        }
    }

    fn schedule(&mut self, channel: u32, now: u64) {
        let exchanges = self.backplane.exchanges();
        let owned = self.channels.value_mut(channel);
        if !owned.tells_changes(exchanges) {
            owned.window.clear(&mut owned.members);
            let window_due = owned.window_due.take();
            self.cancel(channel, window_due, Due::Window);
        } else if owned.window_due.is_none()
            && !owned.window.is_empty()
            && !owned.interests.iter().any(|interest| interest.is_behind)
        {
            let at = now.saturating_add(WINDOW_MS);
            owned.window_due = Some(at);
            self.due.insert((at, channel, Due::Window));
        }
        let owned = self.channels.value_mut(channel);
        if owned.tells_count(exchanges) && owned.count_due.is_none() && owned.is_count_due() {
            let interval = u64::from(owned.rules.interval_ms);
            let next = owned.count_told_at.map_or(0, |at| at.saturating_add(interval));
            let at = next.max(now.saturating_add(WINDOW_MS));
            owned.count_due = Some(at);
            self.due.insert((at, channel, Due::Count));
        }
    }

    /// Tells watchers what is due, for a bounded number of channels.
    pub(super) fn tell_due(&mut self, now: u64) {
        let mut told = 0;
        for _ in 0..CHANNELS_PER_CALL {
            let Some(&(at, channel, what)) = self.due.first() else { return };
            if at > now || told >= MEMBERS_PER_CALL {
                return;
            }
            self.due.pop_first();
            let owned = self.channels.value_mut(channel);
            match what {
                Due::Window => {
                    owned.window_due = None;
                    told += self.tell_changes(channel);
                }
                Due::Count => {
                    owned.count_due = None;
                    if owned.is_count_due() {
                        self.tell_count(channel, now);
                    }
                }
            }
            self.forget_unused(channel);
        }
    }

    /// A shard has handed out the last changes of a channel.
    pub(super) fn taken(&mut self, channel: u32, shard: crate::names::Shard, now: u64) {
        let owned = self.channels.value_mut(channel);
        let interest = owned.interests.iter_mut().find(|interest| interest.shard == shard);
        if let Some(interest) = interest {
            interest.is_behind = false;
            self.schedule(channel, now);
        }
    }

    /// Tells watchers the changes of a channel's window. Returns their number.
    fn tell_changes(&mut self, channel: u32) -> usize {
        let owned = self.channels.value_mut(channel);
        let Some(changes) = owned.window.take(&mut owned.members) else {
            let number = owned.members.len();
            self.tell_members(channel);
            return number;
        };
        if changes.is_empty() {
            return 0;
        }
        let number = changes.joins.len() + changes.leaves.len();
        if self.backplane.exchanges() {
            let (ours, left) = (changes.of_this_node(), owned.members.here());
            if !ours.is_empty() {
                self.backplane.changes(&self.channels.name(channel).text, &ours, left);
            }
        }
        self.broadcast(channel, &News::Changes(changes.into()));
        number
    }

    /// Tells watchers all members of a channel.
    fn tell_members(&mut self, channel: u32) {
        let owned = self.channels.value_mut(channel);
        owned.window.clear(&mut owned.members);
        let news = News::Members(owned.snapshot());
        if self.backplane.exchanges() {
            self.tell_nodes(channel);
        }
        self.broadcast(channel, &news);
    }

    /// Tells other nodes what this one has in a channel: all members, or their number.
    pub(super) fn tell_nodes(&mut self, channel: u32) {
        let name = self.channels.name(channel).text.clone();
        let owned = self.channels.value_mut(channel);
        if owned.is_large {
            let count = owned.count_here();
            self.backplane.count(&name, count);
        } else {
            let members = owned.members.show_here();
            self.backplane.members(&name, &members);
        }
    }

    /// Tells the counts of a channel.
    fn tell_count(&mut self, channel: u32, now: u64) {
        let owned = self.channels.value_mut(channel);
        let count = owned.count();
        owned.count_told = Some((count, owned.count_here()));
        owned.count_told_at = Some(now);
        if self.backplane.exchanges() && owned.is_large {
            self.tell_nodes(channel);
        }
        self.broadcast(channel, &News::Count(count));
    }

    /// Sends news to the shards whose watchers get them.
    fn broadcast(&mut self, channel: u32, news: &News) {
        let Owner { channels, out, .. } = self;
        let text = channels.name(channel).text.clone();
        let owned = channels.value_mut(channel);
        let is_large = owned.is_large;
        for interest in &mut owned.interests {
            let gets = match news {
                News::Count(_) => {
                    interest.watchers.counts > 0 || is_large && interest.watchers.members > 0
                }
                News::Members(_) | News::Changes(_) => interest.watchers.members > 0,
            };
            if gets {
                interest.is_behind |= !matches!(news, News::Count(_));
                let (key, channel, news) = (interest.key, text.clone(), news.clone());
                let message = PresenceMessage::News { key, channel, news, is_large };
                out.push((interest.shard, message));
            }
        }
    }
}

impl Owned {
    /// Whether other nodes may believe that a channel without members here has some.
    fn owes_nodes(&self) -> bool {
        !self.window.is_empty() || self.is_large && self.is_count_due()
    }

    /// Whether somebody is told the counts.
    fn tells_count(&self, exchanges: bool) -> bool {
        let watched = self.interests.iter().any(|interest| {
            interest.watchers.counts > 0 || self.is_large && interest.watchers.members > 0
        });
        watched || self.is_large && exchanges
    }
}
