//! Subscriptions: joining a channel through its owner, moving between list and readers, and leaving.

use super::channel::Channel;
use super::channel::{NONE, Subscriber};
use super::event::{Begun, ChannelError, Event};
use super::members::{MemberPlace, Membership};
use super::message::ShardMessage;
use super::name::ChannelName;
use super::pending::PendingJoin;
use super::publication::Start;
use super::readers::{Reader, ReaderState};
use super::shard::Channels;
use super::subscribers::Encoded;
use crate::memory::Trim;
use crate::names::{Member, Shard, Ticket};

/// A subscription of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The channel's key on this shard, below 2^30. No other channel has it while the subscription lasts.
    pub channel: u32,
    /// Whether the owner of the channel has yet to answer: `Event::Subscribed` follows.
    pub pending: bool,
}

impl<E: Encoded> Channels<E> {
    /// Subscribes a member. `Event::Subscribed` reports when the subscription begins. In a channel with
    /// history the member gets the publications after `start`, if all of them are still there; it may
    /// then be behind and has to pull.
    ///
    /// # Errors
    /// `AlreadySubscribed`, `TooMany` and `Overloaded`.
    pub fn subscribe(
        &mut self,
        member: Member,
        channel: &str,
        start: Start,
        ticket: Ticket,
        now: u64,
    ) -> Result<(), ChannelError> {
        let hash = self.hashing.hash(channel.as_bytes());
        let known = self.channels.find(hash, channel);
        if known.is_some_and(|key| self.membership(member, key).is_some()) {
            return Err(ChannelError::AlreadySubscribed);
        }
        if self.members.of(member).len() >= self.limits.subscriptions_max {
            return Err(ChannelError::TooMany);
        }
        if let Some(key) = known
            && let Channel { joined: true, keeps_history: false, .. } = self.channels.value(key)
        {
            let index = self.members.add(member, Membership::new(key, MemberPlace::Listed(0)));
            self.list(member, index, key);
            self.events.push_back(Event::Subscribed { member, ticket, recovery: None });
            self.report(key);
            return Ok(());
        }
        let owner = self.owner_of(hash);
        if self.is_overloaded(owner) {
            return Err(ChannelError::Overloaded);
        }
        let key = known.unwrap_or_else(|| {
            let keeps_history = self.owner.retention(channel).is_some();
            let name = self.name(hash, channel);
            self.channels.insert(name, Channel::new(owner, keeps_history))
        });
        self.request_join(member, key, start, ticket, now);
        Ok(())
    }

    /// Appends a member to a channel's list. It does not get the publications that are being handed out.
    pub(super) fn list(&mut self, member: Member, index: u32, key: u32) {
        let channel = self.channels.value_mut(key);
        let place = MemberPlace::Listed(channel.subscribers.len() as u32);
        channel.subscribers.push(Subscriber { member, index });
        self.members.place(member, index, place);
    }

    /// Removes the subscriber at place `gap` from a channel's list.
    pub(super) fn unlist(&mut self, gap: u32, key: u32) {
        let Channel { subscribers, log, .. } = self.channels.value_mut(key);
        let len = subscribers.len() as u32;
        self.logs.close_gap(*log, gap, len, |from, to| {
            let moved = subscribers[from as usize];
            subscribers[to as usize] = moved;
            self.members.place(moved.member, moved.index, MemberPlace::Listed(to));
        });
        subscribers.pop();
    }

    /// Sends a join to the owner of a channel.
    fn request_join(&mut self, member: Member, key: u32, start: Start, ticket: Ticket, now: u64) {
        let channel = self.channels.value_mut(key);
        channel.unlisted += 1;
        channel.reported = channel.members();
        let (owner, subscribers) = (channel.owner, channel.reported);
        let reader = self.readers.next_id();
        let entry = self.joins.vacant_entry();
        let join = entry.key() as u32;
        let index = self.members.add(member, Membership::new(key, MemberPlace::Joining(join)));
        entry.insert(Some(PendingJoin { member, index, channel: key, ticket, reader }));
        let channel = self.channels.name(key).clone();
        let message = ShardMessage::Join { channel, key, subscribers, join, reader, start };
        self.send(owner, message, now);
    }

    /// Takes the owner's answer: the member is subscribed or refused, unless it has withdrawn its join.
    pub(super) fn joined(&mut self, join: u32, outcome: Result<Begun, ChannelError>, now: u64) {
        let pending = self.joins.remove(join as usize);
        self.joins.trim();
        let Some(PendingJoin { member, index, channel: key, ticket, reader }) = pending else {
            return;
        };
        let Begun { recovery, missed, next } = match outcome {
            Ok(begun) => begun,
            Err(error) => {
                self.events.push_back(Event::Refused { member: Some(member), ticket, error });
                let (_, moved) = self.members.remove(member, index);
                if let Some(moved) = moved {
                    self.reindex(moved, index);
                }
                self.channels.value_mut(key).unlisted -= 1;
                return self.left(key);
            }
        };
        let channel = self.channels.value_mut(key);
        channel.joined = true;
        match missed {
            1.. => {
                let reader = Reader {
                    member,
                    index,
                    channel: key,
                    id: reader,
                    state: ReaderState::Fast,
                    held: true,
                    cursor: next - missed,
                    dropped: 0,
                };
                let log = self.logs.open(key, channel, next);
                assert_eq!(self.logs[log].end(), next, "publications come before the answer");
                self.add_reader(log, reader, now);
            }
            0 => {
                channel.unlisted -= 1;
                self.list(member, index, key);
            }
        }
        self.events.push_back(Event::Subscribed { member, ticket, recovery });
    }

    /// Makes a member that is not in the channel's list a reader.
    pub(super) fn add_reader(&mut self, log: u32, reader: Reader, now: u64) {
        let Reader { member, index, cursor, state, .. } = reader;
        let key = self.readers.insert(reader, now);
        self.members.place(member, index, MemberPlace::Behind(key));
        self.logs[log].add_reader(cursor, key, state);
    }

    /// Ends a subscription, or withdraws a pending one, for which `Event::Withdrawn` comes.
    ///
    /// # Errors
    /// `NotSubscribed`.
    pub fn unsubscribe(&mut self, member: Member, channel: &str) -> Result<(), ChannelError> {
        let hash = self.hashing.hash(channel.as_bytes());
        let key = self.channels.find(hash, channel).ok_or(ChannelError::NotSubscribed)?;
        let index = self.membership(member, key).ok_or(ChannelError::NotSubscribed)?;
        let (removed, moved) = self.members.remove(member, index);
        if let Some(moved) = moved {
            self.reindex(moved, index);
        }
        if let Some(PendingJoin { ticket, .. }) = self.end(removed) {
            self.events.push_back(Event::Withdrawn { member, ticket });
        }
        self.update_backpressure();
        Ok(())
    }

    /// Ends all subscriptions of a member that has left. `forgotten` is called with the tickets of the
    /// pending ones, for which no event comes.
    pub fn leave(&mut self, member: Member, mut forgotten: impl FnMut(Ticket)) {
        for &membership in &*self.members.leave(member) {
            if let Some(PendingJoin { ticket, .. }) = self.end(membership) {
                forgotten(ticket);
            }
        }
        self.update_backpressure();
    }

    /// Whether a member is subscribed to a channel. A pending subscription counts.
    pub fn is_subscribed(&self, member: Member, channel: &str) -> bool {
        let hash = self.hashing.hash(channel.as_bytes());
        let known = self.channels.find(hash, channel);
        known.is_some_and(|key| self.membership(member, key).is_some())
    }

    /// The channels of a member's subscriptions, including pending ones, in no order.
    pub fn subscriptions(&self, member: Member) -> impl Iterator<Item = &str> {
        let memberships = self.members.of(member).iter();
        memberships.map(|membership| &*self.channels.name(membership.channel).text)
    }

    /// The subscription of a member to a channel, if it has one.
    pub fn subscription(&self, member: Member, channel: &str) -> Option<Subscription> {
        let key = self.channels.find(self.hashing.hash(channel.as_bytes()), channel)?;
        let index = self.membership(member, key)?;
        let place = self.members.of(member)[index as usize].place();
        Some(Subscription { channel: key, pending: matches!(place, MemberPlace::Joining(_)) })
    }

    /// The index of a membership. Searches the shorter of the channel's list and the member's.
    fn membership(&self, member: Member, key: u32) -> Option<u32> {
        let memberships = self.members.of(member);
        let channel = self.channels.value(key);
        if channel.unlisted == 0 && channel.subscribers.len() < memberships.len() {
            let found = channel.subscribers.iter().find(|subscriber| subscriber.member == member);
            return found.map(|subscriber| subscriber.index);
        }
        let found = memberships.iter().position(|membership| membership.channel == key);
        found.map(|index| index as u32)
    }

    /// Updates the index of a membership in its channel's list, its pending join or its reader.
    fn reindex(&mut self, membership: Membership, index: u32) {
        match membership.place() {
            MemberPlace::Listed(place) => {
                let channel = self.channels.value_mut(membership.channel);
                channel.subscribers[place as usize].index = index;
            }
            MemberPlace::Joining(join) => {
                let pending = self.joins[join as usize].as_mut().expect("its member is here");
                pending.index = index;
            }
            MemberPlace::Behind(reader) => self.readers[reader].index = index,
        }
    }

    /// Removes a membership from its channel, after it was removed from its member. Returns the join if
    /// it was pending.
    fn end(&mut self, membership: Membership) -> Option<PendingJoin> {
        let key = membership.channel;
        let pending = match membership.place() {
            MemberPlace::Listed(gap) => {
                self.unlist(gap, key);
                None
            }
            MemberPlace::Joining(join) => {
                self.channels.value_mut(key).unlisted -= 1;
                let pending = self.joins[join as usize].take();
                self.release(key, pending.as_ref().expect("its member was here").reader);
                pending
            }
            MemberPlace::Behind(reader) => {
                self.channels.value_mut(key).unlisted -= 1;
                self.remove_reader(reader);
                None
            }
        };
        self.left(key);
        pending
    }

    /// Reports that a member has left a channel, and forgets the channel after the last one.
    fn left(&mut self, key: u32) {
        let channel = self.channels.value(key);
        if channel.members() > 0 {
            self.tidy_log(channel.log);
            self.report(key);
            return;
        }
        let (name, channel) = self.channels.remove(key);
        self.logs.forget(channel.log);
        self.send_count(channel.owner, name, 0);
    }

    /// Removes a reader from its channel's log.
    fn remove_reader(&mut self, key: u32) {
        let (reader, waited) = self.readers.remove(key);
        if waited {
            self.events.push_back(Event::Readable { member: reader.member });
        }
        let log = self.channels.value(reader.channel).log;
        if reader.state != ReaderState::Ended {
            self.logs[log].remove_reader(reader.cursor, key);
        }
        if reader.held {
            self.release(reader.channel, reader.id);
        }
    }

    /// Tells the owner of a channel that it need not keep history for a reader.
    pub(super) fn release(&mut self, key: u32, reader: u32) {
        let Channel { owner, keeps_history, .. } = *self.channels.value(key);
        if keeps_history {
            let channel = self.channels.name(key).clone();
            match owner == self.shard {
                true => self.release_holder(&channel, (owner, reader)),
                false => self.outboxes[usize::from(owner)]
                    .push(ShardMessage::Release { channel, reader }),
            }
        }
    }

    /// Drops the publications of a log that no reader needs, and the log itself when it is idle.
    pub(super) fn tidy_log(&mut self, log: u32) {
        if log == NONE {
            return;
        }
        self.logs.trim(log);
        self.update_full(log);
        if self.logs[log].is_idle() && !self.logs[log].has_turn {
            self.close_log(log);
        }
    }

    /// Reports the number of subscribers to the owner of a channel if it has changed by more than an
    /// eighth, unless too many messages wait for the owner.
    pub(super) fn report(&mut self, key: u32) {
        let channel = self.channels.value(key);
        let members = channel.members();
        let wrong = members.abs_diff(channel.reported) > channel.reported / 8;
        let owner = channel.owner;
        if wrong && !self.is_overloaded(owner) {
            self.channels.value_mut(key).reported = members;
            self.send_count(owner, self.channels.name(key).clone(), members);
        }
    }

    fn send_count(&mut self, owner: Shard, channel: ChannelName, subscribers: u32) {
        if owner == self.shard {
            self.set_subscribers(&channel, owner, subscribers);
        } else {
            let message = ShardMessage::SubscriberCount { channel, subscribers };
            self.outboxes[usize::from(owner)].push(message);
        }
    }
}
