//! One publisher: which channel its next publication is for, and when.

use std::time::{Duration, Instant};

use murre_core::ConnId;

use crate::scenarios::fanout::settings::Args;

/// A connection that publishes.
#[derive(Clone, Copy)]
pub(super) struct Publisher {
    /// Among all publishers of the run.
    pub(super) number: u32,
    pub(super) id: Option<ConnId>,
    /// Publications so far.
    pub(super) published: u64,
}

impl Publisher {
    pub(super) fn new(number: u32) -> Publisher {
        Publisher { number, id: None, published: 0 }
    }

    /// The channel of its next publication: its channels take turns.
    pub(super) fn channel(&self, args: &Args) -> u32 {
        let own = (args.channels - self.number).div_ceil(args.publishers);
        self.number + (self.published % u64::from(own)) as u32 * args.publishers
    }

    /// With a rate: when its next publication is due.
    pub(super) fn due(&self, args: &Args, begun: Instant, rate: f64) -> Instant {
        let k = self.published * u64::from(args.publishers) + u64::from(self.number);
        begun + Duration::from_secs_f64(k as f64 / rate)
    }
}
