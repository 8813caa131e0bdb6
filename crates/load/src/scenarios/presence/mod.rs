//! `presence`: connections of users, spread over channels, join and leave them on a schedule, and others are
//! told. A client that watches members applies each change to the members that it knows, and at the end must
//! know exactly those that are there, each with the metadata of its last join; a client that watches counts
//! must know the right ones. Connections beside them ping the server meanwhile.
//!
//! A join is a subscription, a leave the end of one; about one connection in a hundred is away at a time.

mod clients;
mod known;
mod messages;
mod shared;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::ValueEnum;
use murre_record::{CountedFrom, PresenceCount, PresenceFacts, Scenario as Kind};
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::users::UserArgs;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::share::part;
use crate::engine::times::{Times, latency};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::presence::clients::{Client, Presence};
use crate::scenarios::presence::messages::channel_name;
use crate::scenarios::presence::shared::Shared;
use crate::scenarios::scenario::{Apart, Profile, Scenario, Setup, check_rate};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Joins per second, and as many leaves
    #[arg(long, value_name = "N/s", default_value = "1000", value_parser = args::rate)]
    rate: f64,

    /// Channels that the connections are spread over: room:0, room:1, ...
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = args::number(u32::MAX))]
    channels: u32,

    /// The news of their channel that clients ask for
    #[arg(long, value_enum, default_value_t)]
    watch: Watch,

    /// Part of the connections that are told it
    #[arg(long, default_value = "1", value_parser = args::fraction)]
    watching: f64,

    /// Connections beside them, on a thread of their own, that ping the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    beside: u32,

    /// Time from one ping of a connection beside to the next
    #[arg(long, default_value = "100ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    #[command(flatten)]
    #[serde(flatten)]
    users: UserArgs,

    #[arg(skip)]
    #[serde(skip)]
    shared: OnceLock<Arc<Shared>>,
}

/// The news of a channel that a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Watch {
    #[default]
    Members,
    Counts,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        // Beside what a client knows of the members of its channel: 4 bytes of each.
        let bytes = Fleet::<WsClient<Presence>>::MEMBER_BYTES + size_of::<Client>();
        Profile { apart: Apart::with_beside(self.beside), ..Profile::new(Kind::Presence, bytes) }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))?;
        if self.channels > common.conns {
            return Err("--channels without connections: give as many --conns".to_owned());
        }
        if !self.users.are_there() {
            return Err("members are users: give --token-secret-file".to_owned());
        }
        self.users.check()
    }

    fn conns_all(&self, common: &Common) -> u64 {
        u64::from(common.conns) + u64::from(self.beside)
    }

    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        let joining = workers - usize::from(self.beside > 0);
        if worker == joining { self.beside } else { part(common.conns, worker, joining) }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let args = self.clone();
        let shared = || Arc::new(Shared::new(setup.common.conns, self.channels));
        let shared = Arc::clone(self.shared.get_or_init(shared));
        setup.start_ws(config, move |setup| Presence::new(args, setup, shared))
    }

    fn verify(&self, _: u64) -> anyhow::Result<()> {
        let Some(shared) = self.shared.get() else { return Ok(()) };
        let channels: Vec<String> = (0..self.channels).map(channel_name).collect();
        let there = shared.members_all();
        self.users.verify_members(&channels, PresenceCount { clients: there, users: there })
    }

    fn presence_facts(&self, times: &Times) -> Option<PresenceFacts> {
        let beside = (self.beside > 0).then(|| latency(&times.beside, CountedFrom::Due));
        Some(self.shared.get()?.facts(self.users.members(), beside))
    }
}
