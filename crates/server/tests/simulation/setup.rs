//! What a run is made with: the settings of the server, and how its network behaves.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use murre_core::ring::sim::{Faults, Keep, SimConfig};
use murre_core::{Serve, ServeLimits, Shard, ShardConfig};

use super::choices::Choices;
use super::world::{AppShard, Node};
use super::{backend, model};
use crate::backend::{Backend, BackendConfig, CallKind, SimulatedWorker};
use crate::config::{Cli, Command, Config, Mount};
use crate::files::Files;
use crate::hub::HubConfig;
use crate::hub::auth::Keys;
use crate::hub::rules::{Namespace, Namespaces};
use crate::routes::App;
use crate::webhooks::{Filter, Settings, Webhook, Webhooks};

/// The settings of a run.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) shards: usize,
    /// Connections of a shard at most. Few, so that a slot is soon used again.
    pub(super) max_conns: u32,
    pub(super) mails_max: usize,
    pub(super) bad_day: bool,
    pub(super) congested_bytes: u32,
    pub(super) socket_bytes: usize,
    pub(super) log_bytes_max: u64,
    pub(super) logs_bytes_max: u64,
    /// How long a reader may let the server wait before it is slow.
    pub(super) slow_grace: Duration,
    pub(super) slice_bytes: u32,
    pub(super) history_size: u32,
    pub(super) history_ttl: Duration,
    pub(super) history_bytes_max: u64,
    pub(super) deliveries_per_turn: usize,
    pub(super) commands_per_second: u32,
    pub(super) backend: BackendUse,
}

/// What an application decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendUse {
    Nothing,
    Commands,
    /// Commands, and sessions without a token.
    All,
}

/// What signs the tokens of the run.
pub(super) const SECRET: &[u8] = b"thirty-two bytes or more of secret";

impl Setup {
    pub(super) fn draw(choices: &mut Choices) -> Self {
        let seed = (0..4).fold(0, |seed, _| seed << 8 | u64::from(choices.number(256)));
        let mut pick = |values: &[u64]| values[choices.index(values.len())];
        Setup {
            seed,
            shards: pick(&[1, 2, 3, 4]) as usize,
            max_conns: pick(&[64, 6, 6]) as u32,
            mails_max: pick(&[4096, 1, 1, 2]) as usize,
            bad_day: pick(&[0, 1]) == 1,
            congested_bytes: pick(&[64 << 10, 300, 1024]) as u32,
            socket_bytes: pick(&[1 << 16, 100, 1000]) as usize,
            log_bytes_max: pick(&[8 << 20, 300, 2000]),
            logs_bytes_max: pick(&[64 << 20, 700, 4000]),
            slow_grace: Duration::from_millis(pick(&[1000, 100])),
            slice_bytes: pick(&[64 << 10, 100, 1000]) as u32,
            history_size: pick(&[20, 3, 7]) as u32,
            history_ttl: Duration::from_millis(pick(&[300_000, 500])),
            history_bytes_max: pick(&[1 << 30, 3000]),
            deliveries_per_turn: pick(&[64, 2, 5]) as usize,
            commands_per_second: pick(&[1_000_000, 1_000_000, 1_000_000, 5]) as u32,
            backend: match pick(&[0, 1, 2]) {
                0 => BackendUse::Nothing,
                1 => BackendUse::Commands,
                _ => BackendUse::All,
            },
        }
    }

    /// A shard for each of the run's, all of one server, and the other end of its calls.
    pub(super) fn nodes(&self) -> (Vec<Node>, Option<SimulatedWorker>) {
        let mut hub = self.hub_config();
        let (backend, worker) = self.calls().unzip();
        hub.backend = backend.map(Arc::new);
        let nets: Vec<_> = (0..self.shards).map(|shard| self.ring(shard)).collect();
        hub.began = nets.iter().map(|ring| ring.net().now()).max().expect("there is one");
        let began = hub.began;
        let hub = Arc::new(hub);
        let nodes = nets.into_iter().enumerate().map(|(index, ring)| {
            let net = ring.net();
            net.suspend(began - net.now());
            let app = App::new(
                Arc::clone(&hub),
                index as murre_router::Shard,
                false,
                Default::default(),
                Arc::new([Mount("/socket".to_owned())]),
                Arc::new([]),
                Arc::<Files>::default(),
            );
            let config = ShardConfig {
                max_conns: self.max_conns,
                congested_bytes: self.congested_bytes,
                tick: TICK,
                mails_max: self.mails_max,
                ..ShardConfig::default()
            };
            let shard: AppShard =
                Shard::new(ring, Serve::new(app, ServeLimits::default()), &config);
            Node { net, mailbox: shard.mailbox(), shard: Some(shard) }
        });
        (nodes.collect(), worker)
    }

    fn calls(&self) -> Option<(Backend, SimulatedWorker)> {
        let url = || Some("http://127.0.0.1/".parse().expect("a URL"));
        let mut urls = [(); 5].map(|()| url());
        match self.backend {
            BackendUse::Nothing => return None,
            BackendUse::Commands => urls[CallKind::Connect as usize] = None,
            BackendUse::All => {}
        }
        let headers = Arc::new([]);
        let (timeout, data_bytes_max) = (backend::TIMEOUT, 64 << 10);
        Some(Backend::simulated(BackendConfig { urls, timeout, headers, data_bytes_max }))
    }

    fn ring(&self, shard: usize) -> murre_core::ring::sim::SimRing {
        let faults = if self.bad_day { Faults::hidden() } else { Faults::none() };
        murre_core::ring::sim::SimRing::new(&SimConfig {
            seed: self.seed.wrapping_mul(31).wrapping_add(shard as u64),
            faults,
            buffers: 4,
            buffer_bytes: 1024,
            socket_bytes: self.socket_bytes,
            keep: Keep::Nothing,
            ..SimConfig::default()
        })
        .expect("a waker")
    }

    fn hub_config(&self) -> HubConfig {
        let mut config = defaults().clone();
        config.limits.max_history_bytes = self.history_bytes_max;
        config.limits.max_log_bytes = self.log_bytes_max;
        config.limits.max_logs_bytes = self.logs_bytes_max * self.shards as u64;
        config.limits.max_commands_per_second = self.commands_per_second;
        config.limits.slow_grace.0 = self.slow_grace;
        let mut hub =
            HubConfig::new(&config, (self.shards, 1), 64).expect("the settings are right");
        hub.namespaces = self.namespaces();
        hub.keys = Keys::of_secret(SECRET);
        hub.channels.slice_bytes = self.slice_bytes;
        hub.deliveries_per_turn = self.deliveries_per_turn;
        hub.backplane = model::recorder;
        hub.seed = self.seed;
        hub.began = Instant::now();
        hub.webhooks = webhooks().map(Arc::new);
        hub
    }

    /// Each `slow` rule without history and with it; one where a token is needed.
    fn namespaces(&self) -> Namespaces {
        let (size, ttl) = (self.history_size, self.history_ttl.as_secs_f64());
        let history = format!("history-size={size},history-ttl={ttl}");
        let open = "publish=anyone,serve=anyone";
        let asks = "subscribe=backend,publish=backend,request=backend";
        // Grace is over before the run is calm. Both follow from the seed.
        let (grace, push_max) =
            ([0, 2][self.seed as usize % 2], [200, 2][self.seed as usize / 2 % 2]);
        let members =
            format!("presence=members,presence-push-max={push_max},presence-grace={grace}");
        let counts = format!("presence=count,presence-interval=0.2,presence-grace={grace}");
        let texts = [
            format!("d,{open},slow=disconnect,{members}"),
            format!("o,{open},slow=drop_oldest,{counts}"),
            format!("l,{open},slow=latest_only"),
            format!("hd,{open},slow=disconnect,{history},{members}"),
            format!("ho,{open},slow=drop_oldest,{history}"),
            format!("hl,{open},slow=latest_only,{history}"),
            format!("t,subscribe=authenticated,{history}"),
            format!("ask,{asks},slow=drop_oldest"),
            format!("hask,{asks},slow=latest_only,{history}"),
            format!("call,{open},slow=latest_only,phoenix-push=backend"),
        ];
        let namespaces: Vec<Namespace> =
            texts.iter().map(|text| text.parse().expect("a namespace")).collect();
        Namespaces::new(&namespaces).expect("names differ")
    }
}

/// A webhook that takes all events, which the run takes out of its queue.
fn webhooks() -> Option<Webhooks> {
    let url = "http://127.0.0.1/".parse().expect("a URL");
    let webhook = Webhook { url, filter: Filter::default() };
    let settings = Settings {
        key_files: Vec::new(),
        batch: 100,
        delay: Duration::ZERO,
        timeout: Duration::ZERO,
        retry: Duration::ZERO,
        bytes_max: 1 << 20,
    };
    Webhooks::new(&[webhook], settings).expect("no files")
}

/// The unit of timers.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// The defaults of the command line, which takes long to read.
fn defaults() -> &'static Config {
    static DEFAULTS: OnceLock<Config> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let cli = Cli::read(vec!["murre".into(), "serve".into()]);
        let Command::Serve(config) = cli.expect("the defaults are valid").command else {
            panic!("the command is `serve`")
        };
        *config
    })
}

/// The channels of the run. A digit behind the namespace.
pub(super) const CHANNELS: [&str; 16] = [
    "hd:1", "d:1", "ho:1", "o:1", "hl:1", "l:1", "hd:2", "d:2", "ho:2", "o:2", "t:1", "hd:3",
    "ask:1", "hask:1", "call:1", "ask:2",
];

pub(super) fn keeps_history(channel: &str) -> bool {
    channel.starts_with('h') || channel.starts_with('t')
}

/// Whether the members of the channel are known.
pub(super) fn has_presence(channel: &str) -> bool {
    ["d:", "o:", "hd:"].iter().any(|namespace| channel.starts_with(namespace))
}

/// Whether it can also be asked who they are.
pub(super) fn lists_members(channel: &str) -> bool {
    has_presence(channel) && !channel.starts_with('o')
}

pub(super) fn needs_token(channel: &str) -> bool {
    channel.starts_with('t')
}

/// Whether the application decides about subscriptions, publications and requests.
pub(super) fn asks(channel: &str) -> bool {
    channel.starts_with("ask:") || channel.starts_with("hask:")
}

/// Whether pushes of Phoenix clients are requests to the application.
pub(super) fn is_called(channel: &str) -> bool {
    channel.starts_with("call:")
}

/// Whether slow readers of the channel are disconnected; if not they are told what was left out.
pub(super) fn disconnects(channel: &str) -> bool {
    channel.contains('d') || channel.starts_with('t')
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
