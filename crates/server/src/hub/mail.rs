//! What a shard's hub finds in its mailbox.

use murre_router::Shard;
use murre_router::channels::{Payload, ShardMessage};
use murre_router::services::ServiceMessage;

use super::control::Control;

/// From other shards, and from the control plane.
pub(crate) enum HubMail {
    /// What the router of one shard has gathered for this one in a turn.
    Messages { from: Shard, channels: Vec<ShardMessage>, services: Vec<ServiceMessage<Payload>> },
    /// This shard's turn to deliver on its core.
    DeliveryToken,
    /// The control plane asks.
    Control(Control),
}
