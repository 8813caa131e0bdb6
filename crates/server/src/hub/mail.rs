//! The mail of a shard's hub.

use std::time::Instant;

use murre_router::Shard;
use murre_router::channels::{Payload, ShardMessage};
use murre_router::presence::PresenceMessage;
use murre_router::services::ServiceMessage;

use super::auth::Keys;
use super::control::Control;
use crate::backend::{Answer, CallId};
use crate::backplane::nats::FromNats;
use crate::backplane::presence::ToShard;

/// Mail from other shards and from the control plane.
pub(crate) enum HubMail {
    /// Messages that the router of one shard has queued for this one.
    Messages {
        from: Shard,
        channels: Vec<ShardMessage>,
        services: Vec<ServiceMessage<Payload>>,
        presence: Vec<PresenceMessage>,
    },
    /// The answer of a call of the backend.
    Answer(CallId, Answer),
    /// News of NATS for channels that this shard owns. NATS has taken the publications among them since this time.
    FromNats(Instant, Vec<FromNats>),
    /// What other nodes say of members in channels that this shard owns.
    FromNodes(Vec<ToShard>),
    /// The keys of tokens from now on, read again from their files.
    Keys(Keys),
    /// A request of the control plane.
    Control(Control),
}
