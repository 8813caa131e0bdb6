//! The life of the process: start every thread, wait for a signal, drain, end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use murre_codec::http::RequestLimits;
use murre_core::host::{self, Plan, Wanted};
use murre_core::ring::KernelRing;
use murre_core::server::threads;
use murre_core::{
    Addresses, CloseReason, Listener, Placement, ServeLimits, ServeMail, Server, ServerConfig,
    ShardConfig, Signals,
};

use murre_session_log::SessionLog;

use crate::admin::{self, Admin, Api, ApiKey, Choice, Facts, Others, ShardCounters};
use crate::backend::{Backend, Deliver, Worker};
use crate::backplane::nats::{Nats, Post, Runner};
use crate::backplane::presence::{self, OtherNodes};
use crate::config::{self, Config, Listen, Mount};
use crate::control::memory::{WATCH_INTERVAL, Watch};
use crate::control::{self, SAMPLE_INTERVAL, Sampler, Task, TokenKeys};
use crate::failure::Failure;
use crate::files::{Files, FilesError};
use crate::hub::rules::{Access, Namespaces};
use crate::hub::{HubConfig, HubCounters, HubMail};
use crate::listeners::Listeners;
use crate::routes::{App, AppMail, AppMailbox};
use crate::transports::phoenix::supabase_rest::API_PATH;

/// Serves until a signal, and then drains.
///
/// # Errors
/// Why it could not start or go on.
pub(crate) fn serve(config: &Config) -> Result<(), Failure> {
    let signals = Signals::block().map_err(Failure::Thread)?;
    let parts = signals.end_at_once_during(|| prepare(config)).map_err(Failure::Thread)??;
    let Parts { plan, placement, files, listeners, token_keys, hub, backend, nats, nodes, api_key } =
        parts;
    let (webhooks, session_log) = (hub.webhooks.clone(), hub.session_log.clone());
    let (other_nodes, seed) = (hub.nodes.clone(), hub.seed);
    let Listeners { data, admin: admin_listener } = listeners;
    let admin = admin_listener.local_addr().map_err(Failure::Thread)?;
    let listen = data.iter().map(Listen::of).collect::<io::Result<_>>();
    let listen = listen.map_err(Failure::Thread)?;

    let watch = Arc::new(Watch::new(config));
    let server_config = server_config(config, &plan, placement.clone(), data, &watch);
    let (mut server, counters) = start(config, server_config, signals, &hub, &files)?;
    let boxes = join(&server);
    let asked = config;
    let config = &asked.in_force(&plan, listen, Listen::Address(admin));
    let api = Api::new(api_key, Arc::clone(&hub), Arc::clone(&boxes));
    let facts = facts(config, &plan, &placement, admin);
    announce(config, &facts, &files, &watch);
    warn_of_few_places(asked, &plan);
    warn_of_short_gap(asked);
    warn_of_hidden_files(config, &files);
    token_keys.warn_of_key_ids();
    announce_publishers(&hub.namespaces, token_keys.has_sources(), config.api_key_file.is_some());
    let sampler = sampler(counters.clone());
    let shown = (Arc::clone(&watch), Arc::clone(&sampler));
    let calls = hub.backend.as_ref().map(|backend| Arc::clone(backend.counts()));
    let others = Others {
        calls,
        webhooks: webhooks.clone(),
        session_log: session_log.clone(),
        nats: hub.nats.clone(),
        nodes: hub.nodes.clone(),
    };
    let admin = Admin::new(facts, counters.clone(), api, shown.0, shown.1, others);
    let admin = Arc::new(admin);
    let keys = token_keys.has_sources().then(|| token_keys.reload());
    let reloads: Vec<_> =
        keys.into_iter().chain(webhooks.iter().map(|hooks| hooks.reload())).collect();
    if !reloads.is_empty() {
        server.on_hang_up(move || reloads.iter().for_each(|reload| reload.notify_one()));
    }
    if let Some(worker) = backend {
        start_backend(&server, worker, Arc::clone(&boxes)).map_err(Failure::Thread)?;
    }
    if let (Some(nats), Some(runner)) = (&hub.nats, nats) {
        start_nats(&server, nats, runner, &boxes).map_err(Failure::Thread)?;
    }
    if let Some(runner) = nodes {
        start_nodes(&server, runner, seed, &boxes).map_err(Failure::Thread)?;
    }
    let mut tasks = vec![
        Task::new("keys of tokens", token_keys.run(boxes)),
        Task::new("admin port", Arc::clone(&admin).serve(admin_listener)),
        Task::every("rate sampler", SAMPLE_INTERVAL, move |now| sampler.sample(now)),
        Task::every("memory watch", WATCH_INTERVAL, move |now| {
            watch.check(now, refused(&counters))
        }),
        Task::trim_heap(),
    ];
    if let Some(webhooks) = &webhooks {
        webhooks.warn_of_missing_keys();
        tasks.push(Task::new("webhooks", Arc::clone(webhooks).run()));
    }
    start_control(&server, plan.io, tasks).map_err(Failure::Thread)?;
    if let Some(log) = &session_log {
        start_session_log(&server, Arc::clone(log)).map_err(Failure::Thread)?;
    }

    let signal = server.wait().map_err(Failure::Server)?;
    tracing::info!(
        signal,
        after = ?config.drain_delay.0,
        over = ?config.drain_timeout.0,
        connections = server.connections(),
        "draining: readiness checks get 503; then no new connections, WebSockets are closed with 1012"
    );
    admin.drain();
    let drain_ends =
        config.drain_delay.0.saturating_add(config.drain_timeout.0).saturating_add(DRAIN_GRACE);
    let drain_ends = Instant::now().checked_add(drain_ends);
    let drained = server.drain();
    if let Some(nodes) = other_nodes {
        nodes.end(GOODBYE);
    }
    if let Some(log) = &session_log {
        log.begin_end(SESSION_LOG_SPAN);
    }
    if let (Ok(()), Some(webhooks), Some(drain_ends)) = (&drained, webhooks, drain_ends) {
        webhooks.finish(drain_ends);
    }
    if session_log.is_some_and(|log| !log.wait(SESSION_LOG_GRACE)) {
        tracing::error!("the session log was not written to its end in time");
    }
    drained.map_err(Failure::Server)?;
    tracing::info!(connections_cut_off = server.connections(), "ended");
    Ok(())
}

/// The parts of the server that are there before its threads.
struct Parts {
    plan: Plan,
    placement: Placement,
    files: Arc<Files>,
    listeners: Listeners,
    token_keys: TokenKeys,
    hub: Arc<HubConfig>,
    /// Makes the calls of the backend, if there are any.
    backend: Option<Worker>,
    /// Runs the connection to NATS, if there is one.
    nats: Option<Runner>,
    /// Runs the exchange of presence with other nodes, if there are some.
    nodes: Option<presence::Runner>,
    api_key: Option<ApiKey>,
}

/// Reads all files, resolves all names and opens all listeners, which may take any time.
fn prepare(config: &Config) -> Result<Parts, Failure> {
    let plan = host::plan(&wanted(config)).map_err(Failure::Host)?;
    let files = Arc::new(files(config).map_err(Failure::Files)?);
    let listeners = Listeners::open(config)?;
    for listener in &listeners.data {
        // A peer that has been sent something acknowledges it in this time, or answers a ping.
        let limits = &config.limits;
        let span = limits.ping_interval.0.saturating_add(limits.pong_timeout.0);
        listener.give_up_after(span).map_err(Failure::Thread)?;
    }
    let placement = Placement::new(config.pin, plan.shards).map_err(Failure::Thread)?;
    let token_keys = TokenKeys::read(config.key_files(), config.key_set_url());
    let token_keys = token_keys.map_err(Failure::Channels)?;
    let hub = HubConfig::new(
        config,
        (plan.shards, placement.shards_of_thread(plan.io)),
        plan.conns_per_shard,
    );
    let backend = config.backend().map_err(Failure::Channels)?.map(Backend::new);
    let (backend, worker) = backend.unzip();
    let nats = config.cluster().map(Nats::new).transpose().map_err(Failure::Channels)?;
    let (nats, runner) = nats.unzip();
    let (nodes, nodes_runner) = nats.as_ref().map(OtherNodes::new).unzip();
    let api_key = config.api_key_file.as_deref().map(ApiKey::read).transpose();
    let api_key = api_key.map_err(Failure::Channels)?;
    let hub = hub.map_err(Failure::Channels)?;
    let hub = Arc::new(HubConfig {
        backend: backend.map(Arc::new),
        nats,
        nodes,
        keys: token_keys.in_force(),
        keys_wanted: token_keys.wanted(),
        webhooks: config.webhooks().map_err(Failure::Channels)?.map(Arc::new),
        // After all else that can fail: it begins a run of the log.
        session_log: session_log(config)?.map(Arc::new),
        ..hub
    });
    Ok(Parts {
        plan,
        placement,
        files,
        listeners,
        token_keys,
        hub,
        backend: worker,
        nats: runner,
        nodes: nodes_runner,
        api_key,
    })
}

fn wanted(config: &Config) -> Wanted {
    Wanted {
        max_conns: config.limits.max_conns,
        shards: config.shards.map(usize::from),
        descriptors: config.descriptors,
        io: config.io,
    }
}

fn files(config: &Config) -> Result<Files, FilesError> {
    let bytes_max = u64::from(config.limits.max_files_bytes);
    let fallback = config.files_fallback.as_deref();
    config
        .files
        .as_ref()
        .map_or_else(|| Ok(Files::default()), |folder| Files::read(folder, bytes_max, fallback))
}

/// Opens the session log, if there is one.
fn session_log(config: &Config) -> Result<Option<SessionLog>, Failure> {
    let opened = config.session_log().map(SessionLog::open).transpose();
    opened.map_err(|error| Failure::Channels(error.to_string()))
}

/// Gives each shard the mailboxes of all.
fn join(server: &Server<AppMail>) -> Arc<[AppMailbox]> {
    let boxes: Arc<[_]> = server.shards().iter().map(|shard| Arc::clone(&shard.mailbox)).collect();
    for mailbox in &*boxes {
        let joined = mailbox.post(ServeMail::App(AppMail::Join(Arc::clone(&boxes))));
        assert!(joined.is_ok(), "nothing has been posted to it before");
    }
    boxes
}

/// The shards and what they share.
fn server_config(
    config: &Config,
    plan: &Plan,
    placement: Placement,
    listeners: Vec<Listener>,
    watch: &Watch,
) -> ServerConfig {
    let accepts_per_second = f64::from(config.limits.accepts_per_second(plan.cores));
    ServerConfig {
        plan: plan.clone(),
        placement,
        listeners,
        limits: ServeLimits {
            http: RequestLimits {
                max_head_bytes: config.limits.max_head_bytes,
                max_target_bytes: config.limits.max_target_bytes,
                max_body_bytes: config.limits.max_body_bytes,
                max_header_fields: config.limits.max_header_fields,
            },
            proxies: config.proxies(),
            origins: config.allow_origin.clone(),
            max_message_bytes: config.limits.max_message_bytes,
            max_fragments: config.limits.max_fragments,
            max_pings_per_second: config.limits.max_pings_per_second,
            handshake_timeout: config.limits.handshake_timeout.0,
            min_bytes_per_second: config.limits.min_bytes_per_second,
            http_idle_timeout: config.limits.http_idle_timeout.0,
            ping_interval: config.limits.ping_interval.0,
            slow_timeout: config.limits.slow_timeout.0,
            pong_timeout: config.limits.pong_timeout.0,
        },
        shard: ShardConfig {
            max_send_bytes: config.limits.max_send_bytes,
            retry_after: config.retry_after,
            accept_interval: Duration::from_secs_f64(plan.shards as f64 / accepts_per_second),
            gate: watch.gate(),
            addresses: Arc::new(Addresses::new(config.limits.of_addresses())),
            ..ShardConfig::default()
        },
        drain_delay: config.drain_delay.0,
        drain_timeout: config.drain_timeout.0,
    }
}

/// Starts the shards, and gives the counters of each.
fn start(
    config: &Config,
    server: ServerConfig,
    signals: Signals,
    hub: &Arc<HubConfig>,
    files: &Arc<Files>,
) -> Result<(Server<AppMail>, Vec<ShardCounters>), Failure> {
    let hub_counters: Arc<[OnceLock<Arc<HubCounters>>]> =
        (0..server.plan.shards).map(|_| OnceLock::new()).collect();
    let make = {
        let (hub, files, counters) = (Arc::clone(hub), Arc::clone(files), hub_counters.clone());
        let (bench, origins) = (config.bench, config.allow_origin.clone());
        let phoenix: Arc<[Mount]> = config.phoenix_path.as_slice().into();
        let supabase: Arc<[Mount]> = config.supabase_path.as_slice().into();
        move |index: usize| {
            let (hub, files) = (Arc::clone(&hub), Arc::clone(&files));
            let (shard, origins) = (index as murre_router::Shard, origins.clone());
            let (phoenix, supabase) = (Arc::clone(&phoenix), Arc::clone(&supabase));
            let app = App::new(hub, shard, bench, origins, phoenix, supabase, files);
            let counted = counters[index].set(app.hub().counters());
            assert!(counted.is_ok(), "a shard is made once");
            app
        }
    };
    let server = Server::start(server, Some(signals), make).map_err(Failure::Server)?;
    let counters = server.shards().iter().zip(&*hub_counters).map(|(shard, hub)| ShardCounters {
        transport: Arc::clone(&shard.counters),
        serve: Arc::clone(&shard.serve),
        hub: Arc::clone(hub.get().expect("a shard that is ready has a handler")),
    });
    let counters = counters.collect();
    Ok((server, counters))
}

/// Warns if the limit of open files leaves few places and nobody has chosen how many there are.
fn warn_of_few_places(config: &Config, plan: &Plan) {
    if config.limits.max_conns.is_none() && plan.max_conns() < FEW_PLACES {
        tracing::warn!(
            max_conns = plan.max_conns(),
            reason = plan.descriptors_reason,
            "there is room for few connections: raise the limit of open files (LimitNOFILE= in \
             systemd, 'ulimit -Hn' in a shell), or set --max-conns"
        );
    }
}

/// Warns if a restart of the server ends the sessions of the session log.
fn warn_of_short_gap(config: &Config) {
    let restart = config.drain_delay.0.saturating_add(config.drain_timeout.0);
    if let Some(log) = config.session_log()
        && log.gap <= restart
    {
        tracing::warn!(
            session_gap = ?log.gap,
            drain = ?restart,
            "a restart ends the sessions of the session log: make --session-gap longer than --drain-delay and \
             --drain-timeout together"
        );
    }
}

/// Warns of files that nobody gets, because their paths are those of the server.
fn warn_of_hidden_files(config: &Config, files: &Files) {
    let below = |mounts: &[Mount], ends: &[&str]| -> Vec<String> {
        mounts
            .iter()
            .flat_map(|Mount(path)| ends.iter().map(move |end| format!("{path}{end}")))
            .collect()
    };
    let of_server = ["/healthz", "/ws", "/sse", "/poll"].map(str::to_owned);
    let of_phoenix = below(&config.phoenix_path, &["/websocket", "/longpoll"]);
    let of_supabase = below(&config.supabase_path, &["/websocket", API_PATH]);
    for path in of_server.into_iter().chain(of_phoenix).chain(of_supabase) {
        if files.find(&path).is_some() {
            tracing::warn!(
                path,
                "the file at this path is not served, as the path is the server's: rename it"
            );
        }
    }
}

/// What a limit of 1,024 open files, the least that systems set, leaves beside the server's own.
const FEW_PLACES: u32 = 1024;

/// Starts the control plane. The server ends when it does.
fn start_control(server: &Server<AppMail>, io: host::Io, tasks: Vec<Task>) -> io::Result<()> {
    let handle = server.handle();
    threads::start(
        "control".into(),
        CONTROL_STACK_BYTES,
        move || control::run(io, tasks),
        move |how| {
            let why = how.err().unwrap_or_else(|| "nobody asked it to".into());
            handle.fail(format!(
                "the control plane ended: {why}; ending, as nothing would watch over memory"
            ));
        },
    )
}

/// Starts the thread that makes the calls of the backend. The server ends when it does.
fn start_backend(
    server: &Server<AppMail>,
    worker: Worker,
    boxes: Arc<[AppMailbox]>,
) -> io::Result<()> {
    let handle = server.handle();
    let deliver: Deliver = Arc::new(move |shard, id, answer| {
        let mail = ServeMail::App(AppMail::Hub(HubMail::Answer(id, answer)));
        boxes[usize::from(shard)].post(mail).map_err(|mail| match mail {
            ServeMail::App(AppMail::Hub(HubMail::Answer(_, answer))) => answer,
            _ => unreachable!("a full mailbox returns the mail that was posted"),
        })
    });
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(worker.run(deliver));
        Ok(())
    };
    threads::start("backend".into(), CONTROL_STACK_BYTES, run, move |how| {
        if let Err(why) = how {
            handle.fail(format!("the thread of backend calls ended: {why}"));
        }
    })
}

/// Starts the thread of the connection to NATS. The server ends when NATS refuses this node.
fn start_nats(
    server: &Server<AppMail>,
    nats: &Nats,
    runner: Runner,
    boxes: &Arc<[AppMailbox]>,
) -> io::Result<()> {
    let handle = server.handle();
    let shards = boxes.len();
    nats.obey_orders(shards, poster(boxes));
    let post = poster(boxes);
    let run = move || runner.run(shards, post).map_err(io::Error::other);
    threads::start("nats".into(), CONTROL_STACK_BYTES, run, move |how| {
        handle.fail(how.err().unwrap_or_else(|| "the thread of NATS ended".into()));
    })
}

/// Starts the thread that exchanges presence with other nodes. The server ends when it does before its time.
fn start_nodes(
    server: &Server<AppMail>,
    runner: presence::Runner,
    seed: u64,
    boxes: &Arc<[AppMailbox]>,
) -> io::Result<()> {
    let handle = server.handle();
    let (shards, post) = (boxes.len() as murre_router::Shard, poster(boxes));
    let run = move || {
        runner.run(shards, seed, post);
        Ok(())
    };
    threads::start("presence".into(), CONTROL_STACK_BYTES, run, move |how| {
        if let Err(why) = how {
            handle.fail(format!("the thread of presence ended: {why}"));
        }
    })
}

/// Posts mail to the hubs of the shards.
fn poster(boxes: &Arc<[AppMailbox]>) -> Post {
    let boxes = Arc::clone(boxes);
    Box::new(move |shard, mail| {
        boxes[shard].post(ServeMail::App(AppMail::Hub(mail))).map_err(|mail| match mail {
            ServeMail::App(AppMail::Hub(mail)) => mail,
            _ => unreachable!("a full mailbox returns the mail that was posted"),
        })
    })
}

/// Starts the thread that writes the session log. The server ends when it does before its time.
fn start_session_log(server: &Server<AppMail>, log: Arc<SessionLog>) -> io::Result<()> {
    let handle = server.handle();
    let run = move || {
        log.run();
        Ok(())
    };
    threads::start("session-log".into(), CONTROL_STACK_BYTES, run, move |how| {
        if let Err(why) = how {
            handle.fail(format!("the thread of the session log ended: {why}"));
        }
    })
}

/// Samples the totals of all shards.
fn sampler(shards: Vec<ShardCounters>) -> Arc<Sampler> {
    Arc::new(Sampler::new(move || admin::totals(&shards)))
}

/// Connections that were refused for want of memory.
fn refused(shards: &[ShardCounters]) -> u64 {
    shards.iter().map(|shard| shard.closed(CloseReason::Overloaded)).sum()
}

fn facts(config: &Config, plan: &Plan, placement: &Placement, admin: SocketAddr) -> Facts {
    let (settings, limits) = config.by_name();
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        listen: settings["listen"].as_str().expect("a list is one text").into(),
        admin,
        io: Choice { kind: plan.io.name(), reason: plan.io_reason.clone() },
        descriptors: Choice {
            kind: plan.descriptors.name(),
            reason: plan.descriptors_reason.clone(),
        },
        ring_bytes: KernelRing::bytes_per_connection(plan.io),
        cores: (0..plan.shards).map(|shard| placement.core(shard)).collect(),
        limits,
    }
}

/// Logs the start line: every setting in force, and what was found out to choose them.
fn announce(config: &Config, facts: &Facts, files: &Files, watch: &Watch) {
    let (settings, limits) = config.by_name();
    let settings = settings.iter().chain(&limits).map(|(name, value)| format!("{name}={value}"));
    tracing::info!(
        version = facts.version,
        listen = %facts.listen,
        admin = %facts.admin,
        files = files.count(),
        files_bytes = files.bytes(),
        cores = ?facts.cores,
        io = facts.io.kind,
        io_reason = facts.io.reason,
        descriptors = facts.descriptors.kind,
        descriptors_reason = facts.descriptors.reason,
        memory_bounds = %watch,
        settings = %settings.collect::<Vec<_>>().join(" "),
        "serving"
    );
    if !facts.admin.ip().to_canonical().is_loopback() {
        tracing::warn!(
            admin = %facts.admin,
            "the admin port is not on loopback: other machines can read /stats and /metrics"
        );
    }
    watch.warn_of_hopeless_floors();
    for (variable, nearest) in config::unknown_variables() {
        let advice = nearest.map_or(String::new(), |name| format!("did you mean {name}? "));
        tracing::warn!(
            variable,
            "this variable is no setting; {advice}see `murre serve --help` for all"
        );
    }
}

/// Logs who can publish, as nothing else shows that a server without rights and keys takes no
/// publications.
fn announce_publishers(namespaces: &Namespaces, has_keys: bool, has_api: bool) {
    let may = |access| match access {
        // A subscriber is whoever the rule `subscribe` admits, which may be anyone.
        Access::Anyone | Access::Subscriber => true,
        // The application may name users without keys.
        Access::Backend => true,
        Access::Authenticated | Access::Token => has_keys,
        Access::Nobody => false,
    };
    // The rooms of the demo pages are no channels of an application.
    let others = namespaces.publishers().filter(|(name, _)| !config::is_of_demo(name));
    let clients = others.filter(|&(_, access)| may(access));
    let clients: Vec<_> =
        clients.map(|(name, access)| format!("{name}: {}", access.name())).collect();
    if clients.is_empty() && !has_api {
        return tracing::warn!(
            "nobody can publish: no namespace allows it to anyone, no key authenticates users, and the \
             API is off; set --namespace default,publish=anyone, or a key of tokens \
             (--jwt-hmac-secret-file, --jwt-public-key-file, --jwt-key-set-file, --jwt-key-set-url), or --api-key-file"
        );
    }
    let clients = if clients.is_empty() { "none".into() } else { clients.join(", ") };
    tracing::info!(clients, api = has_api, "who can publish");
}

/// After the drain's own time, for the last connections, and for webhooks that take the last events.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// After the drain, for the news to other nodes that this one ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// After the drain, for the last batches of the session log.
const SESSION_LOG_GRACE: Duration = Duration::from_secs(5);
/// After this time it gives up what it could not write, and has the rest of the time for its spool.
const SESSION_LOG_SPAN: Duration = Duration::from_secs(3);

/// More than HTTP and JSON need.
const CONTROL_STACK_BYTES: usize = 1024 * 1024;
