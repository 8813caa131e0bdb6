//! `recover`: subscribers of channels with history on several nodes, while connections publish numbers at a
//! rate. A client whose connection ends connects to another node and recovers from its position. Nodes may be
//! drained and killed meanwhile, and what connects them may fail.
//!
//! The oracle: each subscriber receives the publications of its channel in the order of their offsets, each
//! once, and as many between any two as there are. Those that there are were answered `published`, or another
//! subscriber has received them. A refused publication is given up, and the next one has a number of its own, so that
//! one that was stored all the same is no repeat. A part of the channel that the server says
//! is lost (`recovered: false`, or `dropped`) is counted and is no fault.
//!
//! Channels without history are held to the same while nothing ends; what is missing there is counted.

mod clients;
mod log;
mod outages;
mod publisher;
mod shared;
mod subscriber;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::ensure;
use murre_record::{CountedFrom, RecoverFacts, Scenario as Kind};
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::times::{Times, latency};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::recover::clients::Recover;
use crate::scenarios::recover::shared::Shared;
use crate::scenarios::scenario::{Profile, Scenario, Setup, check_rate};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Channels that the subscribers are spread over
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = args::number(u32::MAX))]
    channels: u32,

    /// Connections that publish; each has channels of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = args::number(u32::MAX))]
    publishers: u32,

    /// Publications per second of all publishers together
    #[arg(long, value_name = "N/s", default_value = "100", value_parser = args::rate)]
    rate: f64,

    /// Channels without history; otherwise they are in the namespace `kept`
    #[arg(long)]
    plain: bool,

    /// Ends when this file is there; --duration is the longest
    #[arg(long, value_name = "FILE")]
    until: Option<PathBuf>,

    #[arg(skip)]
    #[serde(skip)]
    shared: OnceLock<Arc<Shared>>,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            counted_from: CountedFrom::Sent,
            must_receive: true,
            returns: true,
            ..Profile::new(Kind::Recover, Fleet::<WsClient<Recover>>::MEMBER_BYTES)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))?;
        let most = common.conns / common.target.nodes().len() as u32;
        if self.channels > most {
            return Err(format!("--channels without subscribers on all nodes: {most} at most"));
        }
        if self.publishers > self.channels {
            return Err("--publishers without channels: give as many --channels".to_owned());
        }
        Ok(())
    }

    fn conns_all(&self, common: &Common) -> u64 {
        u64::from(common.conns) + u64::from(self.publishers)
    }

    fn is_over(&self) -> bool {
        self.until.as_ref().is_some_and(|file| file.exists())
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let shared = || Arc::new(Shared::new(self.channels, setup.workers as u64));
        let shared = Arc::clone(self.shared.get_or_init(shared));
        let (args, nodes) = (self.clone(), setup.common.target.nodes().len() as u32);
        let conns = config.share.conns;
        setup.start_ws(config, move |setup| Recover::new(args, setup, nodes, conns, shared))
    }

    fn verify(&self, _: u64) -> anyhow::Result<()> {
        let Some(shared) = self.shared.get() else { return Ok(()) };
        let verdict = shared.judge();
        let first = verdict.first.as_deref().unwrap_or_default();
        ensure!(verdict.repeated == 0, "{} publications are stored twice", verdict.repeated);
        ensure!(
            verdict.missing == 0 || self.plain,
            "{} publications were not delivered and not said to be lost, the first {first}",
            verdict.missing
        );
        Ok(())
    }

    fn recover_facts(&self, times: &Times) -> Option<RecoverFacts> {
        let away = latency(&times.over, CountedFrom::Due);
        Some(self.shared.get()?.facts(!self.plain, self.channels, self.publishers, away))
    }
}
