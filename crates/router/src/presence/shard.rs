//! Presence on one shard: its state, and the messages and events that change it.

use std::collections::VecDeque;

use super::backplane::{LocalPresence, MemberObserver, PresenceBackplane, RemoteEvent};
use super::member::{Departure, HERE, Meta, PresencePage, PresenceQuery, UserName};
use super::message::PresenceMessage;
use super::owner::{Owner, ShardInterest};
use super::rules::{PresenceRules, Stats};
use super::watched::{Waiting, Watchings};
use crate::channels::name::{self, Hashing};
use crate::channels::{ChannelError, ChannelName, Encoded, Origin};
use crate::memory::Trim;
use crate::names::{Shard, Ticket};

/// Presence on one shard: the members of the channels that it owns, and its watchers.
///
/// A channel has the same owner as in [`Channels`](crate::channels::Channels) with the same seed. Times
/// are milliseconds of a clock that all shards share and that never goes back. `E` is the caller's
/// encoding of news.
pub struct Presence<E = ()> {
    shard: Shard,
    hashing: Hashing,
    messages_max: usize,
    owner: Owner,
    pub(super) watching: Watchings<E>,
    /// Messages by receiving shard; the list for this shard stays empty.
    outboxes: Box<[Vec<PresenceMessage>]>,
    events: VecDeque<PresenceEvent>,
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceEvent {
    /// A page of members.
    Page {
        /// The ticket of the command.
        ticket: Ticket,
        /// The page.
        page: PresencePage,
    },
}

impl<E: Encoded> Presence<E> {
    /// The presence of `shard`, one of `shards`. All shards get the same `seed` and the same `rules`: how
    /// a channel has presence, by its name, or `None` if it has none. Commands are refused while
    /// `messages_max` messages wait for one other shard.
    ///
    /// # Panics
    /// If there is no such shard, or `messages_max` is 0.
    pub fn new(
        shard: Shard,
        shards: u16,
        seed: u64,
        rules: impl Fn(&str) -> Option<PresenceRules> + Send + 'static,
        messages_max: usize,
    ) -> Self {
        assert!(shard < shards && messages_max > 0);
        let hashing = Hashing::new(seed);
        Presence {
            shard,
            hashing,
            messages_max,
            owner: Owner::new(Box::new(rules), hashing, Box::new(LocalPresence)),
            watching: Watchings::new(),
            outboxes: (0..shards).map(|_| Vec::new()).collect(),
            events: VecDeque::new(),
        }
    }

    /// Replaces the backplane, which is [`LocalPresence`] otherwise. Call it before any other method.
    #[must_use]
    pub fn with_backplane(mut self, backplane: Box<dyn PresenceBackplane + Send>) -> Self {
        self.owner.backplane = backplane;
        self
    }

    /// Has an observer told of the members of channels that this shard owns. Call it before any other
    /// method.
    #[must_use]
    pub fn with_observer(mut self, observer: Box<dyn MemberObserver + Send>) -> Self {
        self.owner.observer = Some(observer);
        self
    }

    pub(super) fn hash(&self, channel: &str) -> u32 {
        self.hashing.hash(channel.as_bytes())
    }

    fn owner_of(&self, hash: u32) -> Shard {
        name::owner(hash, self.outboxes.len() as u16)
    }

    /// The name of a channel, shared if it is known here.
    fn name(&self, channel: &str) -> ChannelName {
        let hash = self.hash(channel);
        if let Some(key) = self.owner.channels.find(hash, channel) {
            return self.owner.channels.name(key).clone();
        }
        match self.watching.channels.find(hash, channel) {
            Some(key) => self.watching.channels.name(key).clone(),
            None => ChannelName { hash, text: channel.into() },
        }
    }

    /// The name of a channel and its owner, if that can take a message.
    pub(super) fn name_and_owner(
        &self,
        channel: &str,
    ) -> Result<(ChannelName, Shard), ChannelError> {
        let name = self.name(channel);
        let owner = self.owner_of(name.hash);
        let is_full = self.outboxes[usize::from(owner)].len() >= self.messages_max;
        if is_full { Err(ChannelError::Overloaded) } else { Ok((name, owner)) }
    }

    /// Whether commands about a channel are refused now.
    pub fn is_overloaded(&self, channel: &str) -> bool {
        let owner = self.owner_of(self.hash(channel));
        self.outboxes[usize::from(owner)].len() >= self.messages_max
    }

    /// A session becomes a member of a channel. If it is one, this is its metadata from now on. Nothing
    /// happens in a channel without presence.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn join(
        &mut self,
        channel: &str,
        origin: Origin,
        user: &UserName,
        meta: Option<Meta>,
        now: u64,
    ) -> Result<(), ChannelError> {
        let (channel, owner) = self.name_and_owner(channel)?;
        let user = user.clone();
        self.send(owner, PresenceMessage::Join { channel, origin, user, meta }, now);
        Ok(())
    }

    /// A session is no member of a channel any more, if it was one.
    pub fn leave(&mut self, channel: &str, origin: Origin, how: Departure, now: u64) {
        let channel = self.name(channel);
        let owner = self.owner_of(channel.hash);
        self.send(owner, PresenceMessage::Leave { channel, origin, how }, now);
    }

    /// Asks for a page of the members of this node in a channel. [`PresenceEvent::Page`] has it.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn read(
        &mut self,
        channel: &str,
        query: PresenceQuery,
        ticket: Ticket,
        now: u64,
    ) -> Result<(), ChannelError> {
        let (channel, owner) = self.name_and_owner(channel)?;
        self.send(owner, PresenceMessage::Read { channel, query, ticket }, now);
        Ok(())
    }

    /// Handles a message from another shard. The messages of one shard must come in their order.
    pub fn receive(&mut self, from: Shard, message: PresenceMessage, now: u64) {
        match message {
            PresenceMessage::Join { channel, origin, user, meta } => {
                self.owner.join(&channel, (HERE, origin), &user, meta, now);
            }
            PresenceMessage::Leave { channel, origin, how } => {
                self.owner.leave(&channel, (HERE, origin), how, now);
            }
            PresenceMessage::Watch { channel, key, watchers, watcher, id, watch } => {
                let interest = ShardInterest { shard: from, key, watchers, is_behind: false };
                self.owner.watch(&channel, interest, (watcher, id, watch), now);
            }
            PresenceMessage::Watching { channel, watchers } => {
                self.owner.watching(&channel, from, watchers, now);
            }
            PresenceMessage::Read { channel, query, ticket } => {
                let page = self.owner.page(&channel, query);
                self.owner.out.push((from, PresenceMessage::Page { ticket, page }));
            }
            PresenceMessage::Taken { channel } => {
                if let Some(key) = self.owner.find(&channel) {
                    self.owner.taken(key, from, now);
                }
            }
            PresenceMessage::State { key, watcher: member, id, news } => {
                self.watching.news.push_back(Waiting::One { key, member, id, news });
            }
            PresenceMessage::News { key, channel, news, is_large } => {
                self.take_news(key, channel, news, is_large);
            }
            PresenceMessage::Page { ticket, page } => {
                self.events.push_back(PresenceEvent::Page { ticket, page });
            }
        }
        self.send_of_owner(now);
    }

    /// Queues a message for another shard, or handles it at once if it is for this one.
    pub(super) fn send(&mut self, to: Shard, message: PresenceMessage, now: u64) {
        match to == self.shard {
            true => self.receive(to, message, now),
            false => self.outboxes[usize::from(to)].push(message),
        }
    }

    /// Sends the messages of the owner.
    fn send_of_owner(&mut self, now: u64) {
        for (to, message) in std::mem::take(&mut self.owner.out) {
            self.send(to, message, now);
        }
    }

    /// The messages queued for a shard, oldest first. The caller removes all of them, or the first ones,
    /// when it hands them over.
    pub fn messages(&mut self, to: Shard) -> &mut Vec<PresenceMessage> {
        &mut self.outboxes[usize::from(to)]
    }

    /// Removes and returns the oldest event.
    #[must_use]
    pub fn event(&mut self) -> Option<PresenceEvent> {
        let event = self.events.pop_front()?;
        self.events.trim();
        Some(event)
    }

    /// Lets members leave whose grace is over, and tells watchers what is due: a bounded amount a call.
    pub fn expire(&mut self, now: u64) {
        self.owner.sweep(now);
        self.owner.end_grace(now);
        self.owner.tell_due(now);
        self.send_of_owner(now);
    }

    /// The time, in milliseconds, at which [`expire`](Self::expire) next has work, or somewhat earlier.
    pub fn next_expiry(&self) -> Option<u64> {
        self.owner.next_expiry()
    }

    /// Takes what another node says about a channel that this shard owns.
    pub fn remote(&mut self, event: RemoteEvent, now: u64) {
        self.owner.remote(event, now);
        self.send_of_owner(now);
    }

    /// Tells other nodes, by the backplane, what this one has in a channel that this shard owns: its members
    /// or, if the channel is large, their number.
    pub fn tell(&mut self, channel: &str) {
        let name = self.name(channel);
        self.owner.tell(&name);
    }

    /// A page of the members of this node in a channel that this shard owns.
    pub fn page(&self, channel: &str, query: PresenceQuery) -> PresencePage {
        self.owner.page(&self.name(channel), query)
    }

    /// Counts of this shard.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            watched: self.watching.channels.len() as u64,
            watchers: self.watching.len() as u64,
            behind: self.watching.behind.len() as u64,
            news_waiting: (self.watching.news.len() + self.watching.counting.len()) as u64,
            messages_waiting: self.outboxes.iter().map(|messages| messages.len() as u64).sum(),
            events_waiting: self.events.len() as u64,
            ..Stats::default()
        };
        self.owner.count_into(&mut stats);
        stats
    }
}
