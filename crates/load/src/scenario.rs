//! From the command line to virtual clients: what each shard is started with, and which clients a
//! scenario consists of.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use murre_core::host::Plan;

use crate::bell::Bells;
use crate::churn::{self, Churn};
use crate::cli::{Cli, Scenario};
use crate::crew::{self, Berth, Starting};
use crate::fanout::{self, Fanout};
use crate::fleet::{Event, Fleet, Routes, Share};
use crate::http_keepalive::{self, HttpKeepalive};
use crate::plan::part;
use crate::pubsub::{self, PubSub};
use crate::request_reply::RequestReply;
use crate::ws::{Talk, WsClient};
use crate::ws_echo::{self, WsEcho};
use crate::ws_idle::WsIdle;
use crate::ws_upper::WsUpper;

/// What the shards of a run share.
pub(crate) struct Shared {
    pub(crate) bells: Arc<Bells>,
    /// Of the scenarios in which shards wait for each other.
    pub(crate) fanout: Option<Arc<fanout::Board>>,
    pub(crate) churn: Option<Arc<churn::Board>>,
}

impl Shared {
    pub(crate) fn new(cli: &Cli, plan: &Plan) -> Shared {
        let shards = shards(cli, plan);
        let bells = Bells::new(shards);
        let (mut fanout, mut churn) = (None, None);
        match cli.scenario {
            Scenario::Fanout => {
                let settings = fanout_settings(cli, plan.shards);
                fanout = Some(Arc::new(fanout::Board::new(&settings, Arc::clone(&bells))));
            }
            Scenario::Churn => {
                churn = Some(Arc::new(churn::Board::new(&churn_settings(cli, shards))));
            }
            _ => {}
        }
        Shared { bells, fanout, churn }
    }
}

fn fanout_settings(cli: &Cli, shards: usize) -> fanout::Settings {
    fanout::Settings {
        subscribers: cli.conns,
        publishers: cli.publishers,
        beside: cli.beside,
        topics: cli.topics,
        payload_bytes: cli.payload,
        pipeline: cli.pipeline,
        rate: cli.rate,
        every: cli.every,
        timeout: cli.timeout,
        seed: cli.seed,
        shards: shards as u32,
    }
}

fn churn_settings(cli: &Cli, shards: usize) -> churn::Settings {
    churn::Settings {
        subscribers: cli.conns,
        topics: cli.topics,
        kept: cli.kept(),
        rate: cli.rate.unwrap_or(1000.0),
        idle: cli.idle,
        timeout: cli.timeout,
        seed: cli.seed,
        shards: shards as u32,
    }
}

/// How many shards a run has: those that hold what it asks for, and one for those beside them.
pub(crate) fn shards(cli: &Cli, plan: &Plan) -> usize {
    plan.shards + usize::from(cli.scenario == Scenario::Fanout && cli.beside > 0)
}

/// What each shard is started with.
pub(crate) fn berths(cli: &Cli, plan: &Plan, epoch: Instant, events: &Sender<Event>) -> Vec<Berth> {
    let routes = Routes { targets: cli.target.addresses().to_vec(), sources: cli.source.clone() };
    let shards = shards(cli, plan);
    let conns = |shard| match cli.scenario {
        Scenario::Fanout => fanout_settings(cli, plan.shards).conns(shard as u32),
        _ => part(cli.conns_all() as u32, shard, shards),
    };
    let berth = |shard| Berth {
        plan: plan.clone(),
        cpu: cli.cpus.as_ref().map(|cpus| cpus.0[shard % cpus.0.len()]),
        share: Share {
            conns: conns(shard),
            active: part(cli.conns, shard, shards),
            shard: shard as u64,
            shards: shards as u64,
            routes: routes.clone(),
            connect_rate: cli.connect_rate / shards as f64,
            errors_max: cli.max_errors,
        },
        epoch,
        send_bytes_max: SEND_BYTES_MAX.max(2 * cli.payload * cli.pipeline),
        tick: match cli.scenario {
            Scenario::RequestReply | Scenario::Churn => Duration::from_millis(10),
            _ => Duration::from_millis(100),
        },
        events: events.clone(),
    };
    (0..shards).map(berth).collect()
}

/// Starts one shard's thread with the scenario's clients.
pub(crate) fn start(cli: &Cli, shared: &Shared, berth: Berth) -> Starting {
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
        Scenario::Pubsub => {
            let settings = pubsub::Settings {
                conns: berth.share.conns,
                shard: berth.share.shard as u32,
                shards: berth.share.shards as u32,
                payload_bytes: cli.payload,
                rate: cli.rate,
                timeout,
            };
            start_ws(cli, berth, seed, move || PubSub::new(settings))
        }
        Scenario::RequestReply => {
            let idle = cli.idle;
            start_ws(cli, berth, seed, move || RequestReply::new(idle, timeout, seed))
        }
        Scenario::Fanout => {
            let shard = berth.share.shard as u32;
            let settings = fanout::Settings { seed, ..fanout_settings(cli, berth.plan.shards) };
            let board = shared.fanout.clone().expect("made for this scenario");
            start_ws(cli, berth, seed, move || Fanout::new(settings, board, shard))
        }
        Scenario::Churn => {
            let (shard, shards) = (berth.share.shard as u32, berth.share.shards as usize);
            let settings = churn_settings(cli, shards);
            let board = shared.churn.clone().expect("made for this scenario");
            start_ws(cli, berth, seed, move || Churn::new(settings, board, shard))
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
    let message_bytes_max = MESSAGE_BYTES_MAX.max(cli.payload.saturating_add(ENVELOPE_BYTES_MAX));
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
        Scenario::Pubsub => Fleet::<WsClient<PubSub>>::MEMBER_BYTES,
        Scenario::RequestReply => Fleet::<WsClient<RequestReply>>::MEMBER_BYTES,
        Scenario::Fanout => Fleet::<WsClient<Fanout>>::MEMBER_BYTES,
        Scenario::Churn => Fleet::<WsClient<Churn>>::MEMBER_BYTES,
    }
}

/// Queued for one connection at most, if messages are not larger.
const SEND_BYTES_MAX: u32 = 1 << 20;

/// The longest message taken, if ours are not longer.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// What a message of ours may come back in.
const ENVELOPE_BYTES_MAX: u32 = 4096;
