//! `phoenix`: the load of the Phoenix run of 2020. Each connection joins one topic, and sends a
//! heartbeat at intervals, which must be answered. With users each is a member of its topic's channel: at
//! the end the server must count as many members as there are connections. With several nodes some of them end
//! meanwhile, and their clients return to the others.

mod clients;
mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use murre_record::{NodesFacts, PhoenixFacts, PresenceCount, Scenario as Kind};
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::users::UserArgs;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::phoenix::clients::{Phoenix, topic};
use crate::scenarios::phoenix::nodes::NodeArgs;
use crate::scenarios::scenario::{HoldPlan, Profile, Scenario, Setup};

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

    #[command(flatten)]
    #[serde(flatten)]
    nodes: NodeArgs,

    /// Messages about members that the clients of all workers got: `presence_state`, `presence_diff` and
    /// `presence_count`.
    #[arg(skip)]
    #[serde(skip)]
    presence_messages: Arc<AtomicU64>,
}

impl Args {
    fn channels(&self) -> Vec<String> {
        (0..self.topics).map(topic).collect()
    }
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
        self.nodes.check(common, &self.users)?;
        self.users.check()
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let Args { every, topics, ref presence_messages, .. } = *self;
        let (signer, told) = (self.users.signer().ok().flatten(), Arc::clone(presence_messages));
        let nodes = self.nodes.clone();
        setup.start_ws(config, move |setup| Phoenix::new(setup, topics, every, signer, nodes, told))
    }

    fn hold_plan(&self, _: &Common) -> HoldPlan {
        self.nodes.plan(&self.users).map_or(HoldPlan::Steady, HoldPlan::Nodes)
    }

    fn compare(&self, connections: u64) -> anyhow::Result<()> {
        self.nodes.compare(&self.users, &self.channels(), connections)
    }

    fn verify(&self, connections: u64) -> anyhow::Result<()> {
        // An anonymous connection is no member.
        let expected = match self.users.are_there() {
            true => PresenceCount { clients: connections, users: self.nodes.users(connections) },
            false => PresenceCount::default(),
        };
        self.users.verify_members(&self.channels(), expected)?;
        self.nodes.verify_sessions(&self.users, connections)
    }

    fn nodes_facts(&self, common: &Common) -> Option<NodesFacts> {
        self.nodes.facts(common)
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
