//! `phoenix`: the load of the Phoenix run of 2020. Each connection joins one topic, and sends a
//! heartbeat at intervals, which must be answered. With users each is a member of its topic's channel: at
//! the end the server must count as many members as there are connections.

mod clients;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use murre_record::{PhoenixFacts, PresenceCount, Scenario as Kind};
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::users::UserArgs;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::phoenix::clients::{Phoenix, topic};
use crate::scenarios::scenario::{Profile, Scenario, Setup};

/// The scenario's arguments.
#[derive(clap::Args, Serialize)]
pub(crate) struct Args {
    /// Time from one heartbeat of a connection to the next
    #[arg(long, default_value = "30s", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    /// Topics that the connections are spread over: room:0, room:1, ...
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = args::number(u32::MAX))]
    topics: u32,

    #[command(flatten)]
    #[serde(flatten)]
    users: UserArgs,

    /// Messages about members that the clients of all workers got: `presence_state`, `presence_diff` and
    /// `presence_count`.
    #[arg(skip)]
    #[serde(skip)]
    presence_messages: Arc<AtomicU64>,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            path: "/socket/websocket?vsn=2.0.0",
            ..Profile::new(Kind::Phoenix, Fleet::<WsClient<Phoenix>>::MEMBER_BYTES)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        if self.topics > common.conns {
            return Err("--topics without connections: give as many --conns".to_owned());
        }
        self.users.check()
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let Args { every, topics, ref presence_messages, .. } = *self;
        let (signer, told) = (self.users.signer().ok().flatten(), Arc::clone(presence_messages));
        setup.start_ws(config, move |setup| Phoenix::new(setup, topics, every, signer, told))
    }

    fn verify(&self, connections: u64) -> anyhow::Result<()> {
        let topics: Vec<String> = (0..self.topics).map(topic).collect();
        // An anonymous connection is no member.
        let expected = if self.users.are_there() { connections } else { 0 };
        self.users.verify_members(&topics, PresenceCount { clients: expected, users: expected })
    }

    fn phoenix_facts(&self) -> Option<PhoenixFacts> {
        Some(PhoenixFacts {
            topics: self.topics.into(),
            users: self.users.are_there(),
            members: self.users.members(),
            presence_messages: self.presence_messages.load(Ordering::Relaxed),
        })
    }
}
