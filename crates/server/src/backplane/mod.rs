//! The interface below the owners of channels to a broker that orders and keeps publications beyond this
//! process. The broker is told which channels have subscribers in this process.
//!
//! The owner of a channel passes each publication to its backplane. [`Local`] leaves the order to the owner;
//! a broker answers through the shard's mail. A backplane is a folder here and an arm of [`start`].

pub(crate) mod nats;
pub(crate) mod presence;

use std::sync::Arc;

use murre_router::Shard;
use murre_router::channels::{Backplane, Local};

use self::nats::OverNats;
use crate::hub::HubConfig;

/// The backplane of the channels that a shard owns.
pub(crate) fn start(config: &HubConfig, shard: Shard) -> Box<dyn Backplane + Send> {
    match &config.nats {
        Some(nats) => Box::new(OverNats::new(Arc::clone(nats), shard)),
        None => Box::new(Local),
    }
}

/// Messages of other nodes, of any bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, bytes)) => presence::oracle::check(bytes),
        Some((_, bytes)) => nats::oracle::check(bytes),
        None => {}
    }
}
