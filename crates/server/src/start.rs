//! The life of the process: start every thread, wait for a signal, drain, end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use murre_codec::http::Limits as HttpLimits;
use murre_core::host::{self, Io, Plan, Wanted};
use murre_core::ring::KernelRing;
use murre_core::{Addresses, CloseReason, Listener, ServeLimits, ServeMail, ShardConfig};

use crate::admin::{self, Admin, Api, Choice, Facts, ShardCounters};
use crate::config::{self, Config};
use crate::control::memory::{WATCH_INTERVAL, Watch};
use crate::control::{self, SAMPLE_INTERVAL, Sampler, Task};
use crate::failure::Failure;
use crate::files::{Files, FilesError};
use crate::hub::HubConfig;
use crate::routes::{AppMail, AppMailbox};
use crate::shards::{self, Blueprint, Running};
use crate::signals;
use crate::threads::{self, Ended};

/// What the main thread waits for.
enum Event {
    Signal(&'static str),
    ShardEnded(usize, Ended),
    ControlEnded(Ended),
}

/// Serves until a signal, and then drains.
///
/// # Errors
/// Why it could not start or go on.
pub(crate) fn serve(config: &Config) -> Result<(), Failure> {
    signals::block().map_err(Failure::Thread)?;
    let plan = host::plan(&wanted(config)).map_err(Failure::Host)?;
    let files = Arc::new(files(config).map_err(Failure::Files)?);
    let cannot_listen = |flag, address| move |error| Failure::Listen { flag, address, error };
    let listener =
        Listener::bind(config.listen).map_err(cannot_listen("--listen", config.listen))?;
    // A peer that has been sent something acknowledges it in this time, or answers a ping.
    listener
        .give_up_after(config.limits.ping_interval.0.saturating_add(config.limits.pong_timeout.0))
        .map_err(cannot_listen("--listen", config.listen))?;
    let admin_listener =
        TcpListener::bind(config.admin).map_err(cannot_listen("--admin", config.admin))?;
    let listen = listener.address().map_err(cannot_listen("--listen", config.listen))?;
    let admin = admin_listener.local_addr().map_err(cannot_listen("--admin", config.admin))?;

    let (sender, events) = mpsc::channel();
    signals::watch(sender.clone(), |signal| Event::Signal(signal.as_str()))
        .map_err(Failure::Thread)?;
    let cores = cores(plan.shards)?;
    let hub =
        Arc::new(HubConfig::new(config, &cores, plan.conns_per_shard).map_err(Failure::Channels)?);
    let watch = Arc::new(Watch::new(config));
    let blueprint =
        blueprint(config, &plan, listener, Arc::clone(&hub), Arc::clone(&files), &watch);
    let running = start_shards(&blueprint, &cores, &sender)?;
    let boxes = join(&running);
    let config = &config.in_force(&plan, listen, admin);
    let api = Api::new(config, hub, boxes).map_err(Failure::Channels)?;
    let facts = facts(config, &plan, cores);
    announce(config, &facts, &files, &watch);
    let counters: Vec<_> = running.iter().map(|shard| shard.counters.clone()).collect();
    let sampler = sampler(counters.clone());
    let shown = (Arc::clone(&watch), Arc::clone(&sampler));
    let admin = Arc::new(Admin::new(facts, counters.clone(), api, shown.0, shown.1));
    let tasks = vec![
        Task::new("admin port", Arc::clone(&admin).serve(admin_listener)),
        Task::every("rate sampler", SAMPLE_INTERVAL, move |now| sampler.sample(now)),
        Task::every("memory watch", WATCH_INTERVAL, move |now| {
            watch.check(now, refused(&counters))
        }),
        Task::trim_heap(),
    ];
    start_control(plan.io, tasks, sender).map_err(Failure::Thread)?;

    let signal = wait_for_signal(&events)?;
    let over = config.drain_timeout.0;
    tracing::info!(
        signal,
        over = ?over,
        connections = admin.connections(),
        "draining: no new connections, WebSockets are closed with 1012"
    );
    admin.drain();
    drain(&events, &running, over)?;
    tracing::info!(connections_cut_off = admin.connections(), "ended");
    Ok(())
}

fn wanted(config: &Config) -> Wanted {
    Wanted {
        conns_max: config.limits.max_conns,
        shards: config.shards.map(usize::from),
        descriptors: config.descriptors,
        io: config.io,
    }
}

fn files(config: &Config) -> Result<Files, FilesError> {
    let bytes_max = u64::from(config.limits.files_bytes_max);
    config
        .files
        .as_ref()
        .map_or_else(|| Ok(Files::default()), |folder| Files::read(folder, bytes_max))
}

/// Gives each shard the mailboxes of all.
fn join(running: &[Running]) -> Arc<[AppMailbox]> {
    let boxes: Arc<[_]> = running.iter().map(|shard| Arc::clone(&shard.mailbox)).collect();
    for mailbox in &*boxes {
        let joined = mailbox.post(ServeMail::App(AppMail::Join(Arc::clone(&boxes))));
        assert!(joined.is_ok(), "nothing has been posted to it before");
    }
    boxes
}

/// The core of each shard: all cores in turn.
fn cores(shards: usize) -> Result<Vec<usize>, Failure> {
    let cores = shards::cores().map_err(Failure::Thread)?;
    Ok(cores.into_iter().cycle().take(shards).collect())
}

/// The parts that every shard is made from.
fn blueprint(
    config: &Config,
    plan: &Plan,
    listener: Listener,
    hub: Arc<HubConfig>,
    files: Arc<Files>,
    watch: &Watch,
) -> Blueprint {
    let accepts_per_second = f64::from(config.limits.accepts_per_second(plan.cores));
    Blueprint {
        plan: plan.clone(),
        listener,
        limits: ServeLimits {
            http: HttpLimits {
                head_bytes_max: config.limits.max_head_bytes,
                body_bytes_max: config.limits.max_body_bytes,
                ..HttpLimits::default()
            },
            proxies: config.proxies(),
            origins: config.allow_origin.clone(),
            message_bytes_max: config.limits.max_message_bytes,
            fragments_max: config.limits.max_fragments,
            pings_per_second_max: config.limits.max_pings_per_second,
            handshake: config.limits.handshake_timeout.0,
            bytes_per_second_min: config.limits.min_bytes_per_second,
            http_idle: config.limits.http_idle_timeout.0,
            ping_interval: config.limits.ping_interval.0,
            slow_timeout: config.limits.slow_timeout.0,
            pong_timeout: config.limits.pong_timeout.0,
        },
        shard: ShardConfig {
            conns_max: plan.conns_per_shard,
            send_bytes_max: config.limits.max_send_bytes,
            retry_after: config.retry_after,
            accept_interval: Duration::from_secs_f64(plan.shards as f64 / accepts_per_second),
            gate: watch.gate(),
            addresses: Arc::new(Addresses::new(config.limits.of_addresses())),
            ..ShardConfig::default()
        },
        bench: config.bench,
        hub,
        files,
    }
}

fn start_shards(
    blueprint: &Blueprint,
    cores: &[usize],
    events: &Sender<Event>,
) -> Result<Vec<Running>, Failure> {
    let start = |(index, &core): (usize, &usize)| {
        let events = events.clone();
        let ended = move |how| {
            // The receiver is gone only when the process is ending anyway.
            let _ = events.send(Event::ShardEnded(index, how));
        };
        shards::start(index, core, blueprint.clone(), ended)
            .map_err(|error| Failure::Shard { index, error })
    };
    cores.iter().enumerate().map(start).collect()
}

fn start_control(io: Io, tasks: Vec<Task>, events: Sender<Event>) -> io::Result<()> {
    threads::start(
        "control".into(),
        CONTROL_STACK_BYTES,
        move || control::run(io, tasks),
        move |how| {
            // The receiver is gone only when the process is ending anyway.
            let _ = events.send(Event::ControlEnded(how));
        },
    )
}

/// Samples the totals of all shards.
fn sampler(shards: Vec<ShardCounters>) -> Arc<Sampler> {
    Arc::new(Sampler::new(move || admin::totals(&shards)))
}

/// Connections that were refused for want of memory.
fn refused(shards: &[ShardCounters]) -> u64 {
    shards.iter().map(|shard| shard.closed(CloseReason::Overloaded)).sum()
}

fn facts(config: &Config, plan: &Plan, cores: Vec<usize>) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        listen: config.listen,
        admin: config.admin,
        io: Choice { kind: plan.io.name(), reason: plan.io_reason.clone() },
        descriptors: Choice {
            kind: plan.descriptors.name(),
            reason: plan.descriptors_reason.clone(),
        },
        ring_bytes: KernelRing::bytes_per_connection(plan.io),
        cores,
        limits: config.by_name().1,
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
    if !facts.admin.ip().is_loopback() {
        tracing::warn!(
            admin = %facts.admin,
            "the admin port is not on loopback: other machines can read /stats and /metrics"
        );
    }
    for variable in config::unknown_variables() {
        tracing::warn!(variable, "this variable is no setting; see `murre serve --help` for all");
    }
}

/// Waits for the first signal and gives its name.
fn wait_for_signal(events: &Receiver<Event>) -> Result<&'static str, Failure> {
    match events.recv().expect("the watcher of signals holds a sender") {
        Event::Signal(name) => Ok(name),
        Event::ShardEnded(index, how) => Err(Failure::ShardEnded { index, why: why(how) }),
        Event::ControlEnded(how) => Err(Failure::ControlEnded { why: why(how) }),
    }
}

/// Tells every shard to drain, and waits for their ends until a deadline.
fn drain(events: &Receiver<Event>, running: &[Running], over: Duration) -> Result<(), Failure> {
    let over_all = over.saturating_add(DRAIN_GRACE);
    let deadline = Instant::now().checked_add(over_all).expect("an hour at most");
    let mut untold: Vec<_> = running.iter().collect();
    let mut left = running.len();
    while left > 0 {
        // A full mailbox: that shard is told when there is room.
        untold.retain(|shard| shard.mailbox.post(ServeMail::Drain(over)).is_err());
        let rest = deadline.saturating_duration_since(Instant::now());
        let wait = if untold.is_empty() { rest } else { rest.min(TELL_AGAIN) };
        match events.recv_timeout(wait) {
            Ok(Event::ShardEnded(_, Ok(()))) => left = left.saturating_sub(1),
            Ok(Event::ShardEnded(index, Err(why))) => {
                return Err(Failure::ShardEnded { index, why });
            }
            Ok(Event::Signal(_)) => return Err(Failure::Interrupted),
            Ok(Event::ControlEnded(how)) => return Err(Failure::ControlEnded { why: why(how) }),
            Err(_) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                tracing::warn!(shards = left, "not drained in time, ending anyway");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The reason of an end that nobody asked for.
fn why(ended: Ended) -> String {
    ended.err().unwrap_or_else(|| "nobody asked it to".into())
}

/// After the drain's own time, for the last connections to take what is queued for them.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Until a shard whose mailbox was full is told again.
const TELL_AGAIN: Duration = Duration::from_millis(10);
/// More than HTTP and JSON need.
const CONTROL_STACK_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The process ends with an error when the control plane does, as when a shard does.
    #[test]
    fn the_end_of_a_thread_is_a_failure() {
        let panicked = || Err("it panicked: a bug".to_owned());
        for (event, said) in [
            (Event::ControlEnded(panicked()), "the control plane ended: it panicked: a bug;"),
            (Event::ControlEnded(Ok(())), "the control plane ended: nobody asked it to;"),
            (Event::ShardEnded(3, panicked()), "shard 3 ended: it panicked: a bug;"),
        ] {
            let (sender, events) = mpsc::channel();
            sender.send(event).expect("the test waits");
            let failure = wait_for_signal(&events).expect_err("it is no signal");
            assert!(failure.to_string().starts_with(said), "{failure}");
        }
    }
}
