//! From the command line to virtual clients: what each shard is started with, and which clients a
//! scenario consists of.

use std::sync::mpsc::Sender;
use std::time::Instant;

use murre_core::host::Plan;

use crate::cli::{Cli, Scenario};
use crate::crew::{self, Berth, Starting};
use crate::fleet::{Event, Fleet, Routes, Share};
use crate::http_keepalive::{self, HttpKeepalive};
use crate::plan::part;
use crate::ws::{Talk, WsClient};
use crate::ws_echo::{self, WsEcho};
use crate::ws_idle::WsIdle;
use crate::ws_upper::WsUpper;

/// What each shard is started with.
pub(crate) fn berths(cli: &Cli, plan: &Plan, epoch: Instant, events: &Sender<Event>) -> Vec<Berth> {
    let routes = Routes { targets: cli.target.addresses().to_vec(), sources: cli.source.clone() };
    let shards = plan.shards;
    let berth = |shard| Berth {
        plan: plan.clone(),
        cpu: cli.cpus.as_ref().map(|cpus| cpus.0[shard % cpus.0.len()]),
        share: Share {
            conns: part(cli.conns_all() as u32, shard, shards),
            active: part(cli.conns, shard, shards),
            shard: shard as u64,
            shards: shards as u64,
            routes: routes.clone(),
            connect_rate: cli.connect_rate / shards as f64,
            errors_max: cli.max_errors,
        },
        epoch,
        send_bytes_max: SEND_BYTES_MAX.max(2 * cli.payload * cli.pipeline),
        events: events.clone(),
    };
    (0..shards).map(berth).collect()
}

/// Starts one shard's thread with the scenario's clients.
pub(crate) fn start(cli: &Cli, berth: Berth) -> Starting {
    let Cli { timeout, every, sample, .. } = *cli;
    // Shards number their connections alike: what is random must differ all the same.
    let seed = cli.seed.wrapping_add(berth.share.shard << 48);
    match cli.scenario {
        Scenario::HttpKeepalive => {
            let settings = http_keepalive::Settings {
                host: host_header(cli),
                path: cli.path().to_owned(),
                idle: cli.idle,
                timeout,
                seed,
            };
            crew::start(berth, move || HttpKeepalive::new(settings))
        }
        Scenario::WsUpper => start_ws(cli, berth, seed, move || WsUpper::new(every, timeout, seed)),
        Scenario::WsIdle => {
            start_ws(cli, berth, seed, move || WsIdle::new(sample, every, timeout, seed))
        }
        Scenario::WsEcho => {
            let active = berth.share.active;
            let settings = ws_echo::Settings {
                active,
                payload_bytes: cli.payload,
                pipeline: cli.pipeline,
                rate: cli.rate.map(|rate| rate * f64::from(active) / f64::from(cli.conns)),
                timeout,
            };
            start_ws(cli, berth, seed, move || WsEcho::new(settings))
        }
    }
}

fn start_ws<T: Talk>(
    cli: &Cli,
    berth: Berth,
    seed: u64,
    talk: impl FnOnce() -> T + Send + 'static,
) -> Starting {
    let (host, path, timeout) = (host_header(cli), cli.path().to_owned(), cli.timeout);
    let message_bytes_max = MESSAGE_BYTES_MAX.max(cli.payload);
    crew::start(berth, move || WsClient::new(talk(), host, path, timeout, seed, message_bytes_max))
}

/// The first target stands for all: they are one server.
fn host_header(cli: &Cli) -> String {
    cli.target.addresses()[0].to_string()
}

/// User memory per virtual client, by the size of its structures.
pub(crate) fn bytes_per_connection(scenario: Scenario) -> usize {
    match scenario {
        Scenario::HttpKeepalive => Fleet::<HttpKeepalive>::MEMBER_BYTES,
        Scenario::WsUpper => Fleet::<WsClient<WsUpper>>::MEMBER_BYTES,
        Scenario::WsIdle => Fleet::<WsClient<WsIdle>>::MEMBER_BYTES,
        Scenario::WsEcho => Fleet::<WsClient<WsEcho>>::MEMBER_BYTES,
    }
}

/// Queued for one connection at most, if messages are not larger.
const SEND_BYTES_MAX: u32 = 1 << 20;

/// The longest message taken, if ours are not longer.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;
