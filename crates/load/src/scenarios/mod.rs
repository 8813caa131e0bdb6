//! From the command line to virtual clients: what each shard is started with, and which clients a
//! scenario consists of.

pub(crate) mod abuse;
pub(crate) mod churn;
pub(crate) mod fanout;
pub(crate) mod http_keepalive;
pub(crate) mod pubsub;
pub(crate) mod quotes;
pub(crate) mod request_reply;
pub(crate) mod soak;
pub(crate) mod storm;
pub(crate) mod ws_echo;
pub(crate) mod ws_idle;
pub(crate) mod ws_upper;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use murre_core::host::Plan;

use self::churn::Churn;
use self::fanout::Fanout;
use self::http_keepalive::HttpKeepalive;
use self::pubsub::PubSub;
use self::quotes::Quotes;
use self::request_reply::RequestReply;
use self::storm::Storm;
use self::ws_echo::WsEcho;
use self::ws_idle::WsIdle;
use self::ws_upper::WsUpper;
use crate::cli::args::Span;
use crate::cli::{Cli, Scenario};
use crate::client::visit::Visit;
use crate::client::visitors::{self, Visitors};
use crate::client::ws::{Talk, WsClient};
use crate::engine::bell::Bells;
use crate::engine::crew::{self, Berth, Starting};
use crate::engine::fleet::{Event, Fleet, Routes, Share};
use crate::run::plan::part;

/// What the shards of a run share.
pub(crate) struct Shared {
    pub(crate) bells: Arc<Bells>,
    /// Of the scenarios in which shards wait for each other.
    pub(crate) fanout: Option<Arc<fanout::Board>>,
    pub(crate) churn: Option<Arc<churn::Board>>,
    /// Of those in which visitors come.
    pub(crate) visits: Option<(Arc<Vec<Visit>>, Arc<visitors::Board>)>,
}

impl Shared {
    pub(crate) fn new(cli: &Cli, plan: &Plan) -> Shared {
        let shards = shards(cli, plan);
        let bells = Bells::new(shards);
        let (mut fanout, mut churn, mut visits) = (None, None, None);
        match cli.scenario {
            Scenario::Fanout => {
                let settings = fanout_settings(cli, plan.shards);
                fanout = Some(Arc::new(fanout::Board::new(&settings, Arc::clone(&bells))));
            }
            Scenario::Churn => {
                churn = Some(Arc::new(churn::Board::new(&churn_settings(cli, shards))));
            }
            Scenario::Abuse => visits = Some(abuse::visits()),
            Scenario::Soak => visits = Some(soak::visits()),
            _ => {}
        }
        let visits = visits.map(|visits| {
            let board = visitors::Board::new(&visits);
            (Arc::new(visits), Arc::new(board))
        });
        Shared { bells, fanout, churn, visits }
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

/// How many shards a run has: those that hold what it asks for, and those apart.
pub(crate) fn shards(cli: &Cli, plan: &Plan) -> usize {
    plan.shards + cli.shards_apart()
}

/// What each shard is started with.
pub(crate) fn berths(cli: &Cli, plan: &Plan, epoch: Instant, events: &Sender<Event>) -> Vec<Berth> {
    let routes = Routes { targets: cli.target.addresses().to_vec(), sources: cli.source.clone() };
    let shards = shards(cli, plan);
    let berth = |shard, (conns, active)| Berth {
        plan: plan.clone(),
        cpu: cli.cpus.as_ref().map(|cpus| cpus.0[shard % cpus.0.len()]),
        share: Share {
            conns,
            active,
            shard: shard as u64,
            shards: shards as u64,
            routes: routes.clone(),
            connect_rate: cli.connect_rate * f64::from(conns) / cli.conns_all().max(1) as f64,
            errors_max: cli.max_errors,
        },
        epoch,
        send_bytes_max: SEND_BYTES_MAX.max(2 * cli.payload * cli.pipeline),
        tick: Duration::from_millis(if cli.is_finely_timed() { 10 } else { 100 }),
        events: events.clone(),
    };
    (0..shards).map(|shard| berth(shard, conns(cli, plan, shard))).collect()
}

/// How many connections a shard has, and how many of them are active.
fn conns(cli: &Cli, plan: &Plan, shard: usize) -> (u32, u32) {
    let shards = shards(cli, plan);
    match (cli.scenario, shard) {
        (Scenario::Fanout, _) => {
            let conns = fanout_settings(cli, plan.shards).conns(shard as u32);
            (conns, conns)
        }
        (Scenario::Storm, STAYING) => (cli.staying(), cli.staying()),
        (Scenario::Storm, _) => {
            let conns = part(cli.conns - cli.staying(), shard - 1, shards - 1);
            (conns, conns)
        }
        (Scenario::Abuse, TEXTING) => (cli.conns.div_ceil(2), cli.conns.div_ceil(2)),
        (Scenario::Abuse, ASKING) => (cli.conns / 2, cli.conns / 2),
        (Scenario::Abuse | Scenario::Soak, _) => {
            let visitors = cli.visitors();
            (visitors, visitors)
        }
        _ => (part(cli.conns_all() as u32, shard, shards), part(cli.conns, shard, shards)),
    }
}

/// Starts one shard's thread with the scenario's clients.
pub(crate) fn start(cli: &Cli, shared: &Shared, berth: Berth) -> Starting {
    let Cli { timeout, every, sample, .. } = *cli;
    // Shards number their connections alike: what is random must differ all the same.
    let seed = cli.seed.wrapping_add(berth.share.shard << 48);
    match cli.scenario {
        Scenario::HttpKeepalive => start_http(cli, berth, seed, cli.path(), cli.idle),
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
        Scenario::Quotes => start_ws(cli, berth, seed, move || Quotes::new(timeout)),
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
        Scenario::Storm if berth.share.shard == STAYING as u64 => {
            start_ws(cli, berth, seed, move || WsIdle::new(1.0, every, timeout, seed))
        }
        Scenario::Storm => start_ws(cli, berth, seed, move || Storm::new(timeout, seed)),
        Scenario::Abuse if berth.share.shard == TEXTING as u64 => {
            start_ws(cli, berth, seed, move || WsUpper::new(every, timeout, seed))
        }
        Scenario::Abuse if berth.share.shard == ASKING as u64 => {
            let every = every.as_secs_f64();
            start_http(cli, berth, seed, "/", Span { from: 0.5 * every, to: 1.5 * every })
        }
        Scenario::Abuse | Scenario::Soak => {
            let (visits, board) = shared.visits.clone().expect("made for this scenario");
            let rate = cli.rate.expect("there is a default");
            crew::start(berth, move |kit| Visitors::new(visits, board, rate, timeout, kit))
        }
    }
}

fn start_http(cli: &Cli, berth: Berth, seed: u64, path: &str, idle: Span) -> Starting {
    let (host, path, timeout) = (host_header(cli), path.to_owned(), cli.timeout);
    let settings = http_keepalive::Settings { host, path, idle, timeout, seed };
    crew::start(berth, move |kit| Fleet::new(HttpKeepalive::new(settings), kit))
}

fn start_ws<T: Talk>(
    cli: &Cli,
    berth: Berth,
    seed: u64,
    talk: impl FnOnce() -> T + Send + 'static,
) -> Starting {
    let (host, path, timeout) = (host_header(cli), cli.path().to_owned(), cli.timeout);
    let message_bytes_max = MESSAGE_BYTES_MAX.max(cli.payload.saturating_add(ENVELOPE_BYTES_MAX));
    let client = move || WsClient::new(talk(), host, path, timeout, seed, message_bytes_max);
    crew::start(berth, move |kit| Fleet::new(client(), kit))
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
        Scenario::Quotes => Fleet::<WsClient<Quotes>>::MEMBER_BYTES,
        Scenario::RequestReply => Fleet::<WsClient<RequestReply>>::MEMBER_BYTES,
        Scenario::Fanout => Fleet::<WsClient<Fanout>>::MEMBER_BYTES,
        Scenario::Churn => Fleet::<WsClient<Churn>>::MEMBER_BYTES,
        Scenario::Storm => Fleet::<WsClient<Storm>>::MEMBER_BYTES,
        Scenario::Abuse => Fleet::<WsClient<WsUpper>>::MEMBER_BYTES,
        Scenario::Soak => Visitors::VISITOR_BYTES,
    }
}

/// The shard of those who stay while others are killed.
const STAYING: usize = 0;

/// The shards of those who behave well while others do not: over WebSockets, and over HTTP.
const TEXTING: usize = 0;
const ASKING: usize = 1;

/// Queued for one connection at most, if messages are not larger.
const SEND_BYTES_MAX: u32 = 1 << 20;

/// The longest message taken, if ours are not longer.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// What a message of ours may come back in.
const ENVELOPE_BYTES_MAX: u32 = 4096;
