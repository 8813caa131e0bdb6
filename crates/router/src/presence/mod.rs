//! Presence: who is in a channel, and who wants to know.
//!
//! ```text
//!   member's shard             owner of the channel                watchers' shards
//!  ────────────────           ──────────────────────              ──────────────────
//!   join, leave ── Join, Leave ▶ members, grace ◀── Watch ─────── watch
//!                                the state now ──── State ──────▶ deliver
//!                                window, counts ─── News ───────▶ deliver
//!                                                ◀── Taken ───────
//!   read ──────── Read ────────▶ a page ─────────── Page ───────▶ Event (of the reader's shard)
//! ```
//!
//! A member is one connection of a user in a channel, with metadata. The shard that owns the channel
//! holds it, and nobody else. A member whose connection is lost stays a member for the channel's grace;
//! if its user comes back in that time, the new connection takes its place at once.
//!
//! A watcher of a *small* channel gets all members once, then the changes of each window of 100 ms. A
//! member that came and went within one window is left out. The owner tells a shard the next changes
//! after it has handed out the last ones, so that what waits is bounded. A channel with more than
//! `push_max` members, or watchers of members, is *large* until it has less than half of that: its
//! watchers get counts, at most one in an interval. A watcher whose connection was congested is not told
//! what it has missed; it gets the state of the channel when it can take it.
//!
//! In a cluster each node holds its own members, and other nodes' changes and counts come in as
//! [`RemoteEvent`]s.

mod backplane;
mod member;
mod members;
mod message;
mod news;
mod owner;
mod remote;
mod rules;
mod shard;
mod table;
mod watched;
mod window;

pub use backplane::{LocalPresence, MemberObserver, PresenceBackplane, RemoteEvent};
pub use member::{
    Changes, Count, Departure, HERE, Meta, News, Node, PresencePage, PresenceQuery, PresentMember,
    UserName, Watch,
};
pub use message::{PresenceMessage, Watchers};
pub use rules::{PresenceRules, Stats, WINDOW_MS};
pub use shard::{Presence, PresenceEvent};
pub use watched::Watching;
