//! What a shard finds in its mailbox.

use std::sync::Arc;

use murre_router::Shard;
use murre_router::services::ServiceNote;
use murre_router::topics::{Note, Payload};

use super::control::Control;
use crate::bench::feed::Rate;
use crate::mesh::ShardMailbox;

/// From other shards, from the control plane, from the thread that started it.
pub(crate) enum Mail {
    /// Every shard is there: their mailboxes, in order.
    Join(Arc<[ShardMailbox<Mail>]>),
    /// What one shard's router has gathered for this one's in a turn.
    Notes { from: Shard, topics: Vec<Note>, services: Vec<ServiceNote<Payload>> },
    /// It has the floor.
    Floor,
    /// The control plane wants something.
    Control(Control),
    /// The feed of `--bench` is to have this rate.
    Feed(Rate),
}
