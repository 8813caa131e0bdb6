//! The channels of one shard: their state, and the messages and events that change it.

use std::collections::VecDeque;

use slab::Slab;

use super::backplane::{Backplane, Local};
use super::channel::Channel;
use super::event::Event;
use super::history::Retention;
use super::limits::{ChannelLimits, Stats};
use super::listing::{ChannelInfo, Cursor};
use super::logs::Logs;
use super::members::Members;
use super::message::ShardMessage;
use super::name::ChannelName;
use super::name::{self, ByName, Hashing};
use super::owner::{Owner, ShardInterest};
use super::pending::{Appending, Fetching, PendingJoin};
use super::readers::Readers;
use super::subscribers::Encoded;
use crate::memory::Trim;
use crate::names::Shard;

/// The channels of one shard.
///
/// It has methods of four kinds:
///
/// - Commands of members ([`subscribe`](Self::subscribe), [`publish`](Self::publish) and so on) are
///   refused at once with an error, or executed at once or later. The caller takes their outcomes with
///   [`event`](Self::event) after each command and each message, so that a member learns of its
///   subscription before it gets the first publication.
/// - Messages go to other shards ([`messages`](Self::messages)) and come from them
///   ([`receive`](Self::receive)).
/// - [`deliver`](Self::deliver), called once a turn, and [`pull`](Self::pull) hand publications to
///   subscribers.
/// - [`expire`](Self::expire) drops history that has expired.
///
/// `E` is the caller's encoding of a publication, a frame for instance. It is made once and kept for as
/// long as a subscriber on this shard has yet to get the publication.
///
/// Times are milliseconds of a clock that all shards share and that never goes back.
pub struct Channels<E = ()> {
    pub(super) shard: Shard,
    pub(super) limits: ChannelLimits,
    pub(super) hashing: Hashing,
    pub(super) channels: ByName<Channel>,
    pub(super) members: Members,
    /// The joins that owners have not answered; `None` if the member has withdrawn its join. A join
    /// keeps its key until the answer arrives, so no answer is taken for the answer to another join.
    pub(super) joins: Slab<Option<PendingJoin>>,
    pub(super) logs: Logs<E>,
    /// The readers that are behind.
    pub(super) readers: Readers,
    /// Places of the subscribers that fell behind in the current fan-out; empty between calls.
    pub(super) fell_behind: Vec<u32>,
    pub(super) owner: Owner,
    /// Publications that the broker has yet to append.
    pub(super) appending: Slab<Appending>,
    /// Requests for publications that the broker has yet to answer.
    pub(super) fetches: Slab<Fetching>,
    /// Messages by receiving shard; the list for this shard stays empty.
    pub(super) outboxes: Box<[Vec<ShardMessage>]>,
    /// By shard: whether the shard has said that it is behind, so that owners refuse publications that
    /// it would get. For this shard: what it has told the others.
    pub(super) behind: Box<[bool]>,
    /// The deliveries that wait on this shard have reached their bound.
    pub(super) deliveries_are_full: bool,
    /// The logs of this shard have reached their bound.
    pub(super) logs_are_full: bool,
    /// The time of the next review of full logs.
    pub(super) next_review: u64,
    pub(super) events: VecDeque<Event>,
}

impl<E: Encoded> Channels<E> {
    /// The channels of `shard`, one of `shards`. All shards get the same `seed`, which clients must not
    /// be able to predict, and the same `rules`: the retention of a channel by its name, `None` for a
    /// channel without history.
    ///
    /// # Panics
    /// If a bound in `limits` is 0 that must not be.
    pub fn new(
        shard: Shard,
        shards: u16,
        seed: u64,
        rules: impl Fn(&str) -> Option<Retention> + Send + 'static,
        limits: ChannelLimits,
    ) -> Self {
        assert!(shard < shards);
        limits.check();
        let hashing = Hashing::new(seed);
        let epoch = hashing.hash(&shard.to_le_bytes());
        let owner = Owner::new(Box::new(rules), epoch, limits.slow_grace_ms, Box::new(Local));
        Channels {
            shard,
            limits,
            hashing,
            channels: ByName::new(),
            members: Members::new(limits.members_expected),
            joins: Slab::new(),
            logs: Logs::new(limits.log_bytes_max),
            readers: Readers::new(limits.slow_grace_ms),
            fell_behind: Vec::new(),
            owner,
            appending: Slab::new(),
            fetches: Slab::new(),
            outboxes: (0..shards).map(|_| Vec::new()).collect(),
            behind: vec![false; usize::from(shards)].into(),
            deliveries_are_full: false,
            logs_are_full: false,
            next_review: 0,
            events: VecDeque::new(),
        }
    }

    /// Replaces the backplane, which is [`Local`] otherwise. Call it before any other method.
    #[must_use]
    pub fn with_backplane(mut self, backplane: Box<dyn Backplane + Send>) -> Self {
        self.owner.backplane = backplane;
        self
    }

    /// The shard that owns a channel.
    pub fn owner(&self, channel: &str) -> Shard {
        self.owner_of(self.hashing.hash(channel.as_bytes()))
    }

    pub(super) fn owner_of(&self, hash: u32) -> Shard {
        name::owner(hash, self.outboxes.len() as u16)
    }

    /// The name of a channel, shared if it is known here.
    pub(super) fn name(&self, hash: u32, channel: &str) -> ChannelName {
        match self.owner.find(hash, channel) {
            Some(key) => self.owner.name(key).clone(),
            None => self.subscribed_name(hash, channel),
        }
    }

    /// The name of a channel, shared if members of this shard are subscribed to it.
    pub(super) fn subscribed_name(&self, hash: u32, channel: &str) -> ChannelName {
        match self.channels.find(hash, channel) {
            Some(key) => self.channels.name(key).clone(),
            None => ChannelName { hash, text: channel.into() },
        }
    }

    /// Whether the messages that wait for an owner have reached their bound.
    pub(super) fn is_overloaded(&self, owner: Shard) -> bool {
        self.outboxes[usize::from(owner)].len() >= self.limits.messages_max
    }

    /// Handles a message from another shard. The messages of one shard must come in their order.
    pub fn receive(&mut self, from: Shard, message: ShardMessage, now: u64) {
        match message {
            ShardMessage::Join { channel, key, subscribers, join, reader, start } => {
                let interest = ShardInterest { shard: from, is_behind: false, key, subscribers };
                self.join(&channel, interest, (join, reader), start, now);
            }
            ShardMessage::SubscriberCount { channel, subscribers } => {
                self.set_subscribers(&channel, from, subscribers);
            }
            ShardMessage::Publish { channel, payload, publisher } => {
                let ChannelName { hash, text } = &channel;
                let outcome = self.accept(from, *hash, text, payload, publisher, now);
                if let Some(outcome) = outcome {
                    self.report_outcome(from, publisher, channel.text, outcome);
                }
            }
            ShardMessage::Read { channel, query, ticket } => {
                self.read_history(channel, query, (from, ticket), now);
            }
            ShardMessage::Slice { channel, member, reader, from: offset, hold } => {
                let bounds = (offset, self.limits.slice_bytes);
                let (first, publications) =
                    self.owner.slice(&channel, (from, reader), bounds, hold, now);
                let message = ShardMessage::SliceRead { member, reader, first, publications };
                self.send(from, message, now);
            }
            ShardMessage::Release { channel, reader } => {
                self.release_holder(&channel, (from, reader));
            }
            ShardMessage::ChannelBehind { channel, behind } => {
                self.owner.set_behind(&channel, from, behind);
            }
            ShardMessage::Joined { join, outcome } => self.joined(join, outcome, now),
            ShardMessage::Publication { key, index, publication } => {
                self.log(key, index, publication, now);
            }
            ShardMessage::Published { ticket, origin, channel, outcome } => {
                self.events.push_back(Event::Published { ticket, origin, channel, outcome });
            }
            ShardMessage::History { ticket, page } => {
                self.events.push_back(match page {
                    Ok(page) => Event::History { ticket, page },
                    Err(error) => Event::Refused { member: None, ticket, error },
                });
            }
            ShardMessage::SliceRead { member, reader, first, publications } => {
                if self.readers.answered(member, reader, (first, publications), now) {
                    self.events.push_back(Event::Readable { member });
                }
            }
            ShardMessage::Behind(behind) => self.behind[usize::from(from)] = behind,
        }
    }

    /// Queues a message for another shard, or handles it at once if it is for this one.
    pub(super) fn send(&mut self, to: Shard, message: ShardMessage, now: u64) {
        match to == self.shard {
            true => self.receive(to, message, now),
            false => self.outboxes[usize::from(to)].push(message),
        }
    }

    /// The messages queued for a shard, oldest first. The caller removes all of them, or the first ones,
    /// when it hands them over.
    pub fn messages(&mut self, to: Shard) -> &mut Vec<ShardMessage> {
        &mut self.outboxes[usize::from(to)]
    }

    /// Removes and returns the oldest event.
    #[must_use]
    pub fn event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.events.trim();
        Some(event)
    }

    /// Drops expired history (a bounded number of publications a call), ends expired holds, asks the broker
    /// again for what is missing, and reviews full logs. There may be deliveries to [make](Self::deliver) afterwards.
    pub fn expire(&mut self, now: u64) {
        self.owner.expire(now);
        self.retry_gaps(now);
        self.review(now);
    }

    /// The time, in milliseconds, at which [`expire`](Self::expire) next has work, or somewhat earlier.
    pub fn next_expiry(&self) -> Option<u64> {
        let review = self.has_full_logs().then_some(self.next_review);
        self.owner.next_expiry().into_iter().chain(review).min()
    }

    /// Counts of this shard.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            channels: self.channels.len() as u64,
            subscriptions: self.members.memberships(),
            pending: self.joins.len() as u64,
            messages_waiting: self.outboxes.iter().map(|messages| messages.len() as u64).sum(),
            deliveries_waiting: self.logs.waiting(),
            events_waiting: self.events.len() as u64,
            members_behind: self.readers.members() as u64,
            readers_behind: self.readers.len() as u64,
            log_publications: self.logs.publications(),
            log_bytes: self.logs.bytes(),
            appends_waiting: self.appending.len() as u64,
            fetches_waiting: self.fetches.len() as u64,
            ..Stats::default()
        };
        self.owner.count_into(&mut stats);
        stats
    }

    /// Describes a channel that this shard owns; `None` if it has neither subscribers nor history.
    pub fn channel(&self, channel: &str) -> Option<ChannelInfo> {
        let key = self.owner.find(self.hashing.hash(channel.as_bytes()), channel)?;
        self.owner.info(key)
    }

    /// At most `limit` of the channels that this shard owns, and the cursor of the next page if there is
    /// one. A page may have fewer channels, even none, because a call visits a bounded number of slots.
    pub fn channels(&self, from: Cursor, limit: usize) -> (Vec<ChannelInfo>, Option<Cursor>) {
        self.owner.list(from, limit)
    }
}

/// The shard that owns a channel, of `shards` shards that have this `seed`.
pub fn owner(channel: &str, shards: u16, seed: u64) -> Shard {
    let hash = name::Hashing::new(seed).hash(channel.as_bytes());
    name::owner(hash, shards)
}
