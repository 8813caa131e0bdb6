//! The mail of a shard's hub.

use murre_router::Shard;
use murre_router::channels::{Payload, ShardMessage};
use murre_router::services::ServiceMessage;

use super::control::Control;

/// From other shards, and from the control plane.
pub(crate) enum HubMail {
    /// Messages that the router of one shard gathered for this one in a turn.
    Messages { from: Shard, channels: Vec<ShardMessage>, services: Vec<ServiceMessage<Payload>> },
    /// This shard's turn to deliver on its core.
    DeliveryToken,
    /// The control plane asks.
    Control(Control),
}
