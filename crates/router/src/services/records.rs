//! The records of members, offers and requests on a shard.

use std::sync::Arc;

use super::directory::Readiness;
use super::entries::{Key, List};
use super::event::RequestError;
use super::message::Requester;
use crate::names::{Member, Ticket};

/// The entries of one member, and its state.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemberEntries {
    pub(super) offers: List,
    pub(super) waiting: List,
    pub(super) serving: List,
    /// Number of requests for its offers that it has not seen.
    pub(super) unseen: u32,
    /// Bytes of payload that are parked for it.
    pub(super) parked_bytes: usize,
    /// Whether its connection was congested at the last event for it.
    pub(super) congested: bool,
    /// The readiness of its offers, which changes with hysteresis.
    pub(super) readiness: Readiness,
}

pub(super) struct Offer {
    pub(super) member: Member,
    pub(super) service: Arc<str>,
    /// As last reported to the owner.
    pub(super) readiness: Readiness,
}

pub(super) struct Waiting<P> {
    pub(super) member: Member,
    pub(super) ticket: Ticket,
    pub(super) service: Arc<str>,
    /// The outcome, once it is known.
    pub(super) answer: Option<Result<P, RequestError>>,
    /// The bytes that it is counted with while it is parked for its member's connection.
    pub(super) parked: Option<usize>,
}

pub(super) struct Serving<P> {
    pub(super) member: Member,
    pub(super) requester: Requester,
    pub(super) service: Arc<str>,
    pub(super) deadline_ms: u64,
    /// The payload, until the member has seen the request.
    pub(super) payload: Option<P>,
    /// The bytes that it is counted with while it is parked for its member's connection.
    pub(super) parked: Option<usize>,
}

pub(super) enum Ready {
    Answer(Key),
    Request(Key),
}

/// The size of a payload.
pub trait ByteLen {
    /// Bytes of payload.
    fn byte_len(&self) -> usize;
}

impl ByteLen for &str {
    fn byte_len(&self) -> usize {
        self.len()
    }
}

impl ByteLen for crate::channels::Payload {
    fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}
