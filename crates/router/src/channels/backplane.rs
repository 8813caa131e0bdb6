//! The interface below the owner of a channel to a broker that orders publications beyond this process.
//!
//! ```text
//!   owner of a channel                 broker
//!  ────────────────────               ────────
//!   append ─────────────────────────▶ orders and keeps, tells every process with interest
//!   appended ◀──────────────────────── the publisher's answer
//!   arrived ◀───────────────────────── the publication
//!   interest ───────────────────────▶ subscribes this process
//!   opened ◀────────────────────────── the subscription is in force, with the newest offset
//!   fetch ──────────────────────────▶ reads what it keeps
//!   fetched ◀───────────────────────── the publications
//! ```
//!
//! The arrows to the right are methods of [`Backplane`], those to the left methods of
//! [`Channels`](super::Channels) of the same shard, which the caller calls later.

use super::publication::{Origin, Payload, Position};

/// The number of a publication that the broker has yet to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppendId(pub u32);

/// The number of a request for publications that the broker has yet to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(pub u32);

/// The answer of a backplane to a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// The owner numbers and keeps the publication itself, at once.
    Number,
    /// The broker orders it. [`Channels::appended`](super::Channels::appended) follows, and the publication
    /// itself comes by [`Channels::arrived`](super::Channels::arrived), as on every process.
    Later,
    /// The broker cannot take it now: `Overloaded`. The id is free again.
    Refuse,
}

/// The interest of this process in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The first shard has subscribed.
    First,
    /// The last shard has left.
    Last,
}

/// A publication on its way to the broker.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The published bytes.
    pub payload: &'a Payload,
    /// The session that does not get it.
    pub except: Option<Origin>,
    /// Whether the channel keeps history.
    pub keeps_history: bool,
}

/// A request for publications that the broker keeps.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// The channel, which keeps history.
    pub channel: &'a str,
    /// All publications with greater offsets, oldest first. It may have come from a client: any number.
    pub after: u64,
    /// And with offsets up to this one; `None` for all that there are.
    pub up_to: Option<u64>,
    /// The cause of the request.
    pub reason: FetchReason,
}

/// The cause of a request for publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchReason {
    /// The owner has passed on everything up to `after`, and may have missed later publications. The answer may
    /// be a first part.
    Gap {
        /// The broker has taken those in the last so many milliseconds, or since its connection was last known
        /// to be in order, whichever is longer.
        missed_ms: u64,
    },
    /// A subscriber has seen everything up to `after`, at any time in the past.
    Recovery,
    /// A page of history.
    History,
}

/// The newest publication of a channel at the broker, read after the subscription was in force and after the
/// last loss that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The epoch of the broker's offsets. It differs from that of all earlier offsets which the broker has
    /// lost.
    pub epoch: u32,
    /// The offset of the newest publication that the broker keeps. If it keeps none: an offset that is not
    /// less than that of any publication before, and less than that of the next one.
    pub newest: u64,
    /// Whether the broker keeps a message with this offset.
    pub is_kept: bool,
}

/// A publication from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The published bytes.
    pub payload: Payload,
    /// The session of this process that does not get it.
    pub except: Option<Origin>,
    /// Its place, if the broker keeps it.
    pub place: Option<Place>,
}

/// The place of a publication among those of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its position. Offsets of a channel go up.
    pub position: Position,
    /// The offset of the channel's publication before it; 0 if the broker keeps none.
    pub previous: u64,
}

/// The answer to a request for publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The epoch of the broker's offsets.
    pub epoch: u32,
    /// All publications in the range that the broker keeps, oldest first, with all that had arrived when
    /// they were asked for. With `has_more` the first of them, at least one.
    pub publications: Vec<FetchedPublication>,
    /// The offset of the last message among these, also if it is no publication; `after` if there is none.
    pub reached: u64,
    /// Whether there may be more: the answer is the first part of a gap, and the owner asks for the next one.
    pub has_more: bool,
    /// Whether it is certain that the broker has dropped no publication after `after`: it still keeps the
    /// one at `after`, for instance.
    pub is_complete: bool,
}

/// A publication that the broker keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPublication {
    /// Its offset.
    pub offset: u64,
    /// Milliseconds since it was published.
    pub age_ms: u64,
    /// The published bytes.
    pub payload: Payload,
}

/// A broker, or none. The owner of a channel calls it; it never waits.
pub trait Backplane {
    /// Whether a broker orders publications. If not, `append` always answers [`Append::Number`], and `fetch`
    /// is not called.
    fn orders(&self) -> bool;

    /// Publishes.
    fn append(&mut self, id: AppendId, publication: Outgoing<'_>) -> Append;

    /// Reports the interest of this process in a channel.
    ///
    /// With the first subscriber of a channel with history
    /// [`Channels::opened`](super::Channels::opened) or [`Channels::unopened`](super::Channels::unopened)
    /// follows. After the last one the subscription stays in force for longer than mail to this shard takes, so
    /// that nothing of an interest that has ended comes after the next one has begun.
    fn interest(&mut self, channel: &str, interest: Interest, keeps_history: bool);

    /// Asks for publications. [`Channels::fetched`](super::Channels::fetched) always follows with this id.
    fn fetch(&mut self, id: FetchId, fetch: Fetch<'_>);
}

/// No broker: the owners of channels number publications themselves.
pub struct Local;

impl Backplane for Local {
    fn orders(&self) -> bool {
        false
    }

    fn append(&mut self, _: AppendId, _: Outgoing<'_>) -> Append {
        Append::Number
    }

    fn interest(&mut self, _: &str, _: Interest, _: bool) {}

    fn fetch(&mut self, _: FetchId, _: Fetch<'_>) {}
}
