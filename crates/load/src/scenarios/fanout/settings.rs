//! The scenario's arguments, and which connection does what.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use crate::cli::args;
use crate::engine::wakeups::Wakeups;
use crate::scenarios::fanout::shared::Shared;
use crate::scenarios::scenario::{ClientSetup, PAYLOAD_MAX};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Bytes of the JSON that is published
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = args::number(PAYLOAD_MAX))]
    pub(super) payload: u32,

    /// Publications in flight of one publisher
    #[arg(long, value_name = "DEPTH", default_value_t = 1, value_parser = args::number(4096))]
    pub(super) pipeline: u32,

    /// Publications per second of all publishers together, on a fixed schedule (open loop) [default: as
    /// fast as they are delivered]
    #[arg(long, value_name = "N/s", value_parser = args::rate)]
    pub(super) rate: Option<f64>,

    /// Time from one ping of a connection beside to the next
    #[arg(long, default_value = "100ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    pub(super) every: Duration,

    /// Channels that the subscribers are spread over
    #[arg(long, alias = "topics", value_name = "N", default_value_t = 1)]
    #[arg(value_parser = args::number(u32::MAX))]
    pub(super) channels: u32,

    /// Channels with history, in the namespace `kept`
    #[arg(long)]
    pub(super) kept: bool,

    /// Connections that publish; each has channels of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = args::number(u32::MAX))]
    pub(super) publishers: u32,

    /// Connections beside them, on a thread of their own, that ping the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) beside: u32,

    #[arg(skip)]
    #[serde(skip)]
    pub(super) shared: OnceLock<Arc<Shared>>,
}

/// The arguments, and what the worker knows of the run.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) args: Args,
    pub(super) setup: ClientSetup,
}

impl Settings {
    /// The workers of publishers and subscribers. One more has the connections beside them, if there are
    /// any, so that their answers do not wait until a client has read its deliveries.
    pub(super) fn workers(&self) -> u32 {
        self.setup.workers - u32::from(self.args.beside > 0)
    }

    /// The role of a worker's connection `place`.
    pub(super) fn role(&self, shard: u32, place: u32) -> Role {
        if shard == self.workers() {
            return Role::Beside;
        }
        let i = place * self.workers() + shard;
        if i < self.args.publishers {
            Role::Publisher(i)
        } else {
            Role::Subscriber { channel: (i - self.args.publishers) % self.args.channels }
        }
    }

    /// The state that all workers share.
    pub(super) fn shared(&self, wakeups: Arc<Wakeups>) -> Shared {
        Shared::new(self.args.channels, self.args.publishers, self.depth(), wakeups)
    }

    /// Publications of one channel that may be in flight.
    fn depth(&self) -> u32 {
        match self.args.rate {
            Some(_) => (SCHEDULED_UNDER_WAY_MAX / self.args.channels).clamp(1, 1024),
            // A publisher takes its channels in turns.
            None => self.args.pipeline.div_ceil(self.args.channels / self.args.publishers),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    Publisher(u32),
    #[default]
    Beside,
    Subscriber {
        channel: u32,
    },
}

/// Publications on a schedule that may be in flight in all.
const SCHEDULED_UNDER_WAY_MAX: u32 = 1 << 18;
