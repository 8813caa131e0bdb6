//! What shards say to each other about services.

use std::sync::Arc;

use super::Failure;
use super::entries::Key;
use crate::Shard;

/// What one shard tells another. Notes must arrive, in the order in which they were written.
#[derive(Debug)]
pub struct ServiceNote<P>(pub(super) Note<P>);

#[derive(Debug)]
pub(super) enum Note<P> {
    /// To the owner: the sender has this offer.
    Serve { offer: Key, service: Arc<str> },
    /// To the owner: the offer in this slot has ended.
    Unserve { offer: u32 },
    /// To the owner: the offer in this slot takes no requests for now.
    Rest { offer: u32 },
    /// To the owner: it takes requests again.
    Wake { offer: u32 },
    /// To the owner: somebody is to answer this.
    Ask(Ask<P>),
    /// From the owner: this offer's member is to answer this.
    Give { offer: Key, ask: Ask<P> },
    /// To the requester's shard.
    Answer { waiting: Key, answer: Result<P, Failure> },
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Ask<P> {
    /// The requester's shard.
    pub(super) from: Shard,
    /// The request's name there.
    pub(super) waiting: Key,
    pub(super) service: Arc<str>,
    pub(super) deadline_ms: u64,
    pub(super) payload: P,
}
