//! What a shard's hub finds in its mailbox.

use std::sync::Arc;

use murre_router::Shard;
use murre_router::channels::{Payload, ShardMessage};
use murre_router::services::ServiceMessage;

use super::control::Control;
use super::links::HubMailbox;

/// From other shards, from the control plane, from the thread that started it.
pub(crate) enum HubMail {
    /// All shards have started: their mailboxes, in order.
    Join(Arc<[HubMailbox]>),
    /// What the router of one shard has gathered for this one in a turn.
    Messages {
        from: Shard,
        channels: Vec<ShardMessage>,
        services: Vec<ServiceMessage<Payload>>,
    },
    /// This shard's turn to deliver on its core.
    DeliveryToken,
    /// The control plane asks.
    Control(Control),
}
