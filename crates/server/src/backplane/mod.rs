//! The interface below the owners of channels to a broker that orders and keeps publications beyond this
//! process. The broker is told which channels have subscribers in this process.
//!
//! The owner of a channel passes each publication to its backplane. [`Local`] leaves the order to the owner;
//! a broker answers through the shard's mail. A backplane is a folder here and an arm of [`start`].

#[expect(dead_code, reason = "channels do not use the link yet")]
pub(crate) mod nats;

use murre_router::channels::{Backplane, Local};

/// The backplane of one shard's channels.
pub(crate) fn start() -> Box<dyn Backplane + Send> {
    Box::new(Local)
}
