//! `storm`: connections that are reset in one moment and come back, together or spread over a span,
//! while others stay and ping the server throughout. One is back when the server has answered a ping
//! of it.
//!
//! The connections that stay have a thread of their own, so that the cost of the storm on this end does
//! not delay them.

use std::time::Duration;

use murre_record::Scenario as Kind;
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::Context;
use crate::client::ws::{PING, Piece, WsClient, WsScenario};
use crate::engine::fleet::Fleet;
use crate::engine::score::Fault;
use crate::engine::share::part;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{Apart, HoldPlan, Profile, Scenario, Setup};
use crate::scenarios::ws_idle::{WsIdle, payload};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Time from one ping of a connection that stays to the next
    #[arg(long, default_value = "500ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    /// Part of the connections that stay, and ping the server
    #[arg(long, default_value = "0.01", value_parser = args::fraction)]
    sample: f64,

    /// In the second storm each connection returns at a random moment of this; in the first all return
    /// at once
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    #[serde(serialize_with = "args::seconds")]
    jitter: Duration,
}

impl Args {
    /// Connections that are not killed.
    fn staying(&self, common: &Common) -> u32 {
        ((f64::from(common.conns) * self.sample).round() as u32).max(1)
    }
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            path: "/echo",
            apart: Apart::First(1),
            ..Profile::new(Kind::Storm, Fleet::<WsClient<Storm>>::MEMBER_BYTES)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        if self.staying(common) >= common.conns {
            return Err("--sample leaves no connection to kill".to_owned());
        }
        Ok(())
    }

    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        let staying = self.staying(common);
        match worker {
            STAYING => staying,
            _ => part(common.conns - staying, worker - 1, workers - 1),
        }
    }

    fn hold_plan(&self, common: &Common) -> HoldPlan {
        HoldPlan::Storm { stayed: u64::from(self.staying(common)), jitter: self.jitter }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let every = self.every;
        if setup.client(&config).worker as usize == STAYING {
            return setup.start_ws(config, move |c| WsIdle::new(1.0, every, c.own_seed()));
        }
        setup.start_ws(config, |client| Storm { seed: client.own_seed() })
    }
}

/// The worker of the connections that stay.
const STAYING: usize = 0;

/// One worker's clients that are killed and return.
pub(crate) struct Storm {
    seed: u64,
}

impl WsScenario for Storm {
    type State = ();
    const READY_WHEN_OPEN: bool = false;
    const RECONNECTS: bool = true;

    fn open(&mut self, _: &mut (), ctx: &mut Context<'_>) {
        let payload = payload(self.seed, ctx.id, 0);
        ctx.send(PING, &payload);
        ctx.start_timer(ctx.timeout);
    }

    fn message(&mut self, _: &mut (), _: Piece<'_>, ctx: &mut Context<'_>) {
        ctx.fail(Fault::Garbled, "an unexpected message");
    }

    fn pong(&mut self, _: &mut (), got: &[u8], ctx: &mut Context<'_>) {
        let expected = payload(self.seed, ctx.id, 0);
        if got != expected {
            return ctx.wrong(&expected, got);
        }
        ctx.clear_timer();
        ctx.ready();
    }

    fn expired(&mut self, _: &mut (), ctx: &mut Context<'_>) {
        ctx.timed_out("no pong");
    }
}
