//! The interface below the owners of channels to a broker that orders and keeps publications beyond this
//! process. The broker is told which channels have subscribers in this process.
//!
//! The owner of a channel asks its backplane before it numbers a publication. The backplane answers at
//! once ([`Append::Number`](murre_router::channels::Append::Number)) or later, through the shard's mail
//! ([`Channels::appended`](murre_router::channels::Channels::appended)). A backplane is a file here
//! and an arm of [`start`].

mod local;
#[expect(dead_code, reason = "channels do not use the link yet")]
pub(crate) mod nats;

use murre_router::channels::Backplane;

pub(crate) use local::Local;

/// The backplane of one shard's channels.
pub(crate) fn start() -> Box<dyn Backplane + Send> {
    Box::new(Local)
}
