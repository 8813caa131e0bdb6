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
//! A broker ([`Backplane`]) may order publications beyond this process. The history of the owner is a
//! *window* of what the broker keeps then: it begins with the interest of the process, takes what arrives,
//! and asks the broker for what is missing between two known publications, or before the first one. The
//! rest is the same, because inside the process publications have consecutive indices.
//!
//! Logs are bounded in bytes. Beyond the bound the oldest publications are dropped, unless a reader
//! that is not slow has yet to take them: then the owner refuses publications to the channel until the
//! reader has. A reader is slow when it has kept the server waiting for `ChannelLimits::slow_grace_ms` in all.
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
pub(crate) mod name;
mod readers;
mod slices;

mod channel;
mod history;
mod holds;
mod listing;
mod owner;
mod window;

mod pending;
mod shard;

mod catch_up;
mod filling;
mod joining;
mod publish;
mod subscribe;

pub use backplane::{
    Append, AppendId, Arrived, Backplane, Fetch, FetchId, FetchReason, Fetched, FetchedPublication,
    Head, Interest, Local, Outgoing, Place,
};
pub use event::{Begun, ChannelError, Event, HistoryPage, Recovery};
pub use history::Retention;
pub use limits::{ChannelLimits, Stats};
pub use listing::{ChannelInfo, Cursor};
pub use message::ShardMessage;
pub use name::ChannelName;
pub use publication::{
    Direction, Form, HistoryQuery, Origin, Payload, Position, Publication, Publisher, Start,
};
pub use shard::{Channels, owner};
pub use subscribe::Subscription;
pub use subscribers::{Encoded, Overrun, Pulled, Subscribers, Taken};
