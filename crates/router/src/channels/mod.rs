//! Channels: subscribers, the order of publications, and history.
//!
//! ```text
//!   subscriber's shard                    owner of the channel               publisher's shard
//!  ────────────────────                  ──────────────────────             ───────────────────
//!   subscribe ── Join ──────────────────▶ the shard is interested
//!   Event ◀───── Joined ───────────────── from this position on
//!                                         refuses, or numbers  ◀── Publish ─── publish
//!   log ◀─────── Publication ──────────── and keeps, and tells ─── Published ▶ Event
//!   deliver, pull                         interested shards
//! ```
//!
//! Every channel has an owner, chosen by the hash of its name. The owner alone numbers publications
//! and keeps history. Messages from one shard to another keep their order and are not lost. So every
//! publication that the owner numbers after it has sent `Joined` arrives after `Joined`: a recovery has
//! neither gaps nor duplicates, and all subscribers get a channel in the owner's order. A shard forgets
//! a channel with its last member and tells the owner; a later subscriber joins anew.
//!
//! A subscriber has either *caught up*, and [`Channels::deliver`] hands it each publication, or it is
//! *behind*, because its connection was congested or because it recovers. A subscriber that is behind
//! is a *reader* with a cursor, and [`Channels::pull`] hands it the publications from there on: from
//! the channel's log on this shard, or, where the cursor is older than the log, from the owner's
//! history, a slice at a time. A reader whose cursor reaches the end of the log has caught up.
//!
//! Logs are bounded in bytes. Beyond the bound the oldest publications are dropped, unless a reader
//! that is not slow has yet to take them: then the owner refuses publications to the channel until the
//! reader has. A reader is slow when it has kept the server waiting for `Limits::slow_grace_ms` in all.
//! The caller decides how a reader whose next publication was dropped goes on
//! ([`Subscribers::overrun`]).

mod backplane;
mod event;
mod limits;
mod message;
mod publication;
mod subscribers;

mod fanout;
mod list;
mod log;
mod logs;
mod members;
mod name;
mod readers;
mod slices;

mod channel;
mod history;
mod holds;
mod listing;
mod owner;

mod catch_up;
mod publish;
mod subscribe;

use std::collections::VecDeque;

use slab::Slab;

use crate::memory::Trim;
use crate::{Member, Shard, Ticket};
use channel::Channel;
use logs::Logs;
use members::Members;
use name::{ByName, Hashing};
use owner::{Owner, ShardInterest};
use publish::Appending;
use readers::Readers;
use subscribe::PendingJoin;

pub use backplane::{Append, AppendId, Backplane, Interest, Local};
pub use event::{ChannelError, Event, HistoryPage, Recovery};
pub use history::Retention;
pub use limits::{Limits, Stats};
pub use listing::{ChannelInfo, Cursor};
pub use message::ShardMessage;
pub use name::ChannelName;
pub use publication::{
    Direction, Form, HistoryQuery, Origin, Payload, Position, Publication, Publisher, Start,
};
pub use subscribers::{Encoded, Overrun, Pulled, Subscribers, Taken};

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
    shard: Shard,
    limits: Limits,
    hashing: Hashing,
    channels: ByName<Channel>,
    members: Members,
    /// The joins that owners have not answered; `None` if the member has withdrawn its join. A join
    /// keeps its key until the answer arrives, so no answer is taken for the answer to another join.
    joins: Slab<Option<PendingJoin>>,
    logs: Logs<E>,
    /// The readers that are behind.
    readers: Readers,
    /// Places of the subscribers that fell behind in the current fan-out; empty between calls.
    fell_behind: Vec<u32>,
    owner: Owner,
    /// Publications that the backplane has yet to append.
    appending: Slab<Appending>,
    /// Messages by receiving shard; the list for this shard stays empty.
    outboxes: Box<[Vec<ShardMessage>]>,
    /// By shard: whether the shard has said that it is behind, so that owners refuse publications that
    /// it would get. For this shard: what it has told the others.
    behind: Box<[bool]>,
    /// The deliveries that wait on this shard have reached their bound.
    deliveries_are_full: bool,
    /// The logs of this shard have reached their bound.
    logs_are_full: bool,
    /// The time of the next review of full logs.
    next_review: u64,
    events: VecDeque<Event>,
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
        limits: Limits,
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

    fn owner_of(&self, hash: u32) -> Shard {
        name::owner(hash, self.outboxes.len() as u16)
    }

    /// The name of a channel, shared if it is known here.
    fn name(&self, hash: u32, channel: &str) -> ChannelName {
        match self.owner.find(hash, channel) {
            Some(key) => self.owner.name(key).clone(),
            None => self.subscribed_name(hash, channel),
        }
    }

    /// The name of a channel, shared if members of this shard are subscribed to it.
    fn subscribed_name(&self, hash: u32, channel: &str) -> ChannelName {
        match self.channels.find(hash, channel) {
            Some(key) => self.channels.name(key).clone(),
            None => ChannelName { hash, text: channel.into() },
        }
    }

    /// Whether the messages that wait for an owner have reached their bound.
    fn is_overloaded(&self, owner: Shard) -> bool {
        self.outboxes[usize::from(owner)].len() >= self.limits.messages_max
    }

    /// Handles a message from another shard. The messages of one shard must come in their order.
    pub fn receive(&mut self, from: Shard, message: ShardMessage, now: u64) {
        match message {
            ShardMessage::Join { channel, key, subscribers, join, reader, start } => {
                let interest = ShardInterest { shard: from, is_behind: false, key, subscribers };
                let (recovery, missed) = self.owner.join(channel, interest, start, reader, now);
                self.send(from, ShardMessage::Joined { join, recovery, missed }, now);
            }
            ShardMessage::SubscriberCount { channel, subscribers } => {
                self.owner.set_subscribers(&channel, from, subscribers);
            }
            ShardMessage::Publish { channel, payload, publisher } => {
                let ChannelName { hash, text } = &channel;
                let outcome = self.accept(from, *hash, text, payload, publisher, now);
                if let Some(outcome) = outcome {
                    self.report_outcome(from, publisher, channel.text, outcome);
                }
            }
            ShardMessage::Read { channel, query, ticket } => {
                let page = self.owner.read(&channel, query, now);
                self.send(from, ShardMessage::History { ticket, page }, now);
            }
            ShardMessage::Slice { channel, member, reader, from: offset, hold } => {
                let bounds = (offset, self.limits.slice_bytes);
                let (first, publications) =
                    self.owner.slice(&channel, (from, reader), bounds, hold, now);
                let message = ShardMessage::SliceRead { member, reader, first, publications };
                self.send(from, message, now);
            }
            ShardMessage::Release { channel, reader } => {
                self.owner.release_by_name(&channel, (from, reader));
            }
            ShardMessage::ChannelBehind { channel, behind } => {
                self.owner.set_behind(&channel, from, behind);
            }
            ShardMessage::Joined { join, recovery, missed } => {
                self.joined(join, recovery, missed, now);
            }
            ShardMessage::Publication { key, publication } => self.log(key, publication, now),
            ShardMessage::Published { ticket, origin, channel, outcome } => {
                self.events.push_back(Event::Published { ticket, origin, channel, outcome });
            }
            ShardMessage::History { ticket, page } => {
                self.events.push_back(Event::History { ticket, page });
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
    fn send(&mut self, to: Shard, message: ShardMessage, now: u64) {
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

    /// Drops expired history (a bounded number of publications a call), ends expired holds, and reviews
    /// full logs. There may be deliveries to [make](Self::deliver) afterwards.
    pub fn expire(&mut self, now: u64) {
        self.owner.expire(now);
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
