//! `backend`: WebSockets that come in one moment, about each of which the server asks an application that
//! takes its time, while other connections ping the server. All are there at first; then, several times, they
//! are reset, and come back at once.
//!
//! The application runs here. It names each user after the connection, and a client has its session when it
//! has what belongs to this user alone, so an answer that reached another connection would be found. The
//! connections beside have a thread of their own, as in `storm`.

mod application;
mod clients;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::ensure;
use murre_record::{ApplicationFacts, Scenario as Kind};
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::share::part;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::backend::application::Counts;
use crate::scenarios::backend::clients::Arriving;
use crate::scenarios::scenario::{
    Apart, FINE_TICK, HoldPlan, Profile, Scenario, Setup, check_fine,
};
use crate::scenarios::ws_idle::WsIdle;

/// The scenario's arguments.
#[derive(clap::Args, Serialize)]
pub(crate) struct Args {
    /// Where the application listens: the server needs --backend-connect http://ADDR:PORT/connect and
    /// --namespace own,subscribe=token,user-limited=true
    #[arg(long, value_name = "ADDR:PORT")]
    application: SocketAddr,

    /// Time in which the application answers a call
    #[arg(long, default_value = "20ms", value_parser = args::duration)]
    #[serde(serialize_with = "args::seconds")]
    answer_time: Duration,

    /// How often all connections come at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = args::number(1000))]
    arrivals: u32,

    /// Connections beside them, on a thread of their own, that ping the server
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = args::number(u32::MAX))]
    beside: u32,

    /// Time from one ping of a connection beside to the next
    #[arg(long, default_value = "100ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    #[arg(skip)]
    #[serde(skip)]
    counts: OnceLock<Arc<Counts>>,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        let bytes_per_connection = Fleet::<WsClient<Arriving>>::MEMBER_BYTES;
        Profile {
            apart: Apart::First(1),
            tick: FINE_TICK,
            ..Profile::new(Kind::Backend, bytes_per_connection)
        }
    }

    fn prepare(&self) -> anyhow::Result<()> {
        let counts = application::start(self.application, self.answer_time)?;
        assert!(self.counts.set(counts).is_ok(), "a run is prepared once");
        Ok(())
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_fine(self.every.max(common.timeout).as_secs_f64())
    }

    fn conns_all(&self, common: &Common) -> u64 {
        u64::from(common.conns) + u64::from(self.beside)
    }

    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        match worker {
            BESIDE => self.beside,
            _ => part(common.conns, worker - 1, workers - 1),
        }
    }

    fn hold_plan(&self, _: &Common) -> HoldPlan {
        HoldPlan::Arrivals { beside: u64::from(self.beside), times: self.arrivals }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let every = self.every;
        if setup.client(&config).worker as usize == BESIDE {
            return setup.start_ws(config, move |c| WsIdle::new(1.0, every, c.own_seed()));
        }
        setup.start_ws(config, |_| Arriving)
    }

    fn verify(&self, connections: u64) -> anyhow::Result<()> {
        let calls = self.application_facts().map_or(0, |facts| facts.calls);
        let arrived = connections - u64::from(self.beside);
        let sessions = connections + arrived * u64::from(self.arrivals);
        ensure!(calls >= sessions, "the server has asked about {calls} of {sessions} connections");
        Ok(())
    }

    fn application_facts(&self) -> Option<ApplicationFacts> {
        let counts = self.counts.get()?;
        Some(ApplicationFacts {
            answer_seconds: self.answer_time.as_secs_f64(),
            calls: counts.calls.load(Ordering::Relaxed),
            in_flight_max: counts.in_flight_max.load(Ordering::Relaxed),
        })
    }
}

/// The worker of the connections beside.
const BESIDE: usize = 0;
