//! Channels: subscribers, the order of publications, and history. (The interface; the implementation
//! follows.)

mod backplane;
mod event;
mod history;
mod limits;
mod message;
mod name;
mod publication;
mod subscribers;

use std::marker::PhantomData;
use std::sync::Arc;

use crate::{Member, Shard, Ticket};

pub use backplane::{Append, AppendId, Backplane, Interest, Local};
pub use event::{Event, HistoryPage, Recovery, Refused};
pub use history::Retention;
pub use limits::{Limits, Stats};
pub use message::ShardMessage;
pub use name::ChannelName;
pub use publication::{
    Direction, Form, HistoryQuery, Origin, Payload, Position, Publication, Publisher, Start,
};
pub use subscribers::{Encoded, Overrun, Pulled, Subscribers, Taken};

/// A channel, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Those who are subscribed anywhere or have asked to be, within an eighth.
    pub subscribers: u64,
    /// Of the newest publication, if the channel keeps history.
    pub position: Option<Position>,
    /// Publications in its history.
    pub kept: u64,
    /// Bytes of the history, by the formula of `Stats::history_bytes`.
    pub history_bytes: u64,
}

/// The place at which a listing of channels goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u32);

/// The channels of one shard. Times are milliseconds of any clock that all shards share and that
/// does not go back.
pub struct Channels<E = ()>(PhantomData<E>);

impl<E: Encoded> Channels<E> {
    /// The part of `shard` in channels that are shared by `shards`.
    pub fn new(
        _shard: Shard,
        _shards: u16,
        _seed: u64,
        _rules: impl Fn(&str) -> Option<Retention> + Send + 'static,
        _limits: Limits,
    ) -> Self {
        unimplemented!()
    }

    /// Replaces [`Local`]. To be called before anything else.
    pub fn with_backplane(self, _backplane: Box<dyn Backplane + Send>) -> Self {
        unimplemented!()
    }

    /// The shard that owns a channel.
    pub fn owner(&self, _channel: &str) -> Shard {
        unimplemented!()
    }

    /// Subscribes a member; `Event::Subscribed` says when. It may be behind then: pull it.
    ///
    /// # Errors
    /// `AlreadySubscribed`, `TooMany` and `Overloaded`.
    pub fn subscribe(
        &mut self,
        _member: Member,
        _channel: &str,
        _start: Start,
        _ticket: Ticket,
        _now: u64,
    ) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Ends a subscription, or withdraws one that is pending (`Event::Withdrawn`).
    ///
    /// # Errors
    /// `NotSubscribed`.
    pub fn unsubscribe(&mut self, _member: Member, _channel: &str) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Ends all subscriptions of a member; `forgotten` gets the tickets for which no event comes.
    pub fn leave(&mut self, _member: Member, _forgotten: impl FnMut(Ticket)) {
        unimplemented!()
    }

    /// The channels a member is subscribed to or has asked for, in no order.
    pub fn subscriptions(&self, _member: Member) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// Publishes. `Event::Published` says what became of it, see [`Publisher::ticket`].
    ///
    /// # Errors
    /// `Overloaded`; no event comes then.
    pub fn publish(
        &mut self,
        _channel: &str,
        _payload: Payload,
        _publisher: Publisher,
        _now: u64,
    ) -> Result<(), Refused> {
        unimplemented!()
    }

    /// The outcome of a publication for which the backplane answered [`Append::Later`].
    pub fn appended(&mut self, _id: AppendId, _outcome: Result<(), Refused>, _now: u64) {
        unimplemented!()
    }

    /// Asks about history; `Event::History` answers.
    ///
    /// # Errors
    /// `NoHistory` and `Overloaded`.
    pub fn history(
        &mut self,
        _channel: &str,
        _query: HistoryQuery,
        _ticket: Ticket,
        _now: u64,
    ) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Takes a message from another shard.
    pub fn receive(&mut self, _from: Shard, _message: ShardMessage, _now: u64) {
        unimplemented!()
    }

    /// The messages gathered for a shard, oldest first.
    pub fn messages(&mut self, _to: Shard) -> &mut Vec<ShardMessage> {
        unimplemented!()
    }

    /// Takes the oldest event.
    pub fn event(&mut self) -> Option<Event> {
        unimplemented!()
    }

    /// Makes at most `budget` deliveries. Returns whether something is left.
    pub fn deliver(&mut self, _budget: usize, _now: u64, _to: &mut impl Subscribers<E>) -> bool {
        unimplemented!()
    }

    /// The member's connection has taken everything that was queued: offers it what it has yet to
    /// get.
    pub fn pull(&mut self, _member: Member, _now: u64, _to: &mut impl Subscribers<E>) -> Pulled {
        unimplemented!()
    }

    /// Whether the member is behind in some channel. O(1).
    pub fn is_behind(&self, _member: Member) -> bool {
        unimplemented!()
    }

    /// Whether no member is behind. O(1), and cheaper than `is_behind`.
    pub fn nobody_behind(&self) -> bool {
        unimplemented!()
    }

    /// Drops history that is past its time, a bounded slice of it, and looks again at full logs.
    pub fn expire(&mut self, _now: u64) {
        unimplemented!()
    }

    /// When [`expire`](Self::expire) has something to do, or somewhat earlier.
    pub fn next_expiry(&self) -> Option<u64> {
        unimplemented!()
    }

    /// What is here.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// A channel that this shard owns, if anybody is subscribed or something is kept.
    pub fn channel(&self, _channel: &str) -> Option<ChannelInfo> {
        unimplemented!()
    }

    /// At most `limit` of the channels that this shard owns, and where to go on.
    pub fn channels(&self, _from: Cursor, _limit: usize) -> (Vec<ChannelInfo>, Option<Cursor>) {
        unimplemented!()
    }
}

/// The shard, of `shards` that have the same `seed`, that owns a channel.
pub fn owner(channel: &str, shards: u16, seed: u64) -> Shard {
    let hash = name::Hashing::new(seed).hash(channel.as_bytes());
    name::owner(hash, shards)
}
