//! One run from its first check to its record.
//!
//! ```text
//!   plan ─▶ connect ─▶ hold ─▶ finish ─▶ quiet ─▶ leave ─▶ record
//!     │        │         │    (outstanding  (memory)  (close frames)
//!     └ error  └─────────┴────  answers) ──▶ interrupted, or failed: leave at once
//! ```

pub(crate) mod columns;
pub(crate) mod nodes;
mod phases;
mod plan;
mod progress;
mod record;
mod storm;
mod visits;

use std::fs;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use murre_core::host::{Io, Plan};
use murre_record::{Memory, ProcessMemory};
use nix::sys::signal::{SigSet, Signal};

use self::columns::Columns;
use self::phases::{Early, QUIET, Run};
use self::record::{Record, Results};
use crate::cli::Job;
use crate::engine::orders::{WorkerEvent, WorkerOrder};
use crate::engine::share::{Routes, Share};
use crate::engine::wakeups::Wakeups;
use crate::engine::workers::{self, WorkerConfig, Workers};
use crate::measure::attribution::Ends;
use crate::measure::machine;
use crate::measure::memory;
use crate::measure::reading::{self, Reading, process_memory};
use crate::scenarios::scenario::{HoldPlan, Setup};

/// Runs the scenario. An error is one that prevents the run; failures during the run are in the record.
pub(crate) fn run(job: Job) -> anyhow::Result<Record> {
    let (sender, events) = mpsc::channel();
    catch_signals(sender.clone())?;
    let plan = plan::prepare(&job)?;
    if let Some(cpus) = &job.common.cpus {
        workers::pin(&cpus.0).with_context(|| format!("cannot pin to the cores {:?}", cpus.0))?;
    }
    if let Some(Some(path)) = &job.profile.columns {
        // Before the run, so that no run ends without its columns.
        fs::write(path, "").with_context(|| format!("cannot write to {}", path.display()))?;
    }
    job.scenario.prepare()?;
    let workers = plan.shards + job.profile.apart.count();
    let wakeups = Wakeups::new(workers);
    let setup = Setup {
        common: &job.common,
        path: job.path(),
        workers,
        wakeups: &wakeups,
        in_flight_bytes: job.profile.in_flight_bytes,
    };
    let configs = worker_configs(&job, &plan, workers, &sender);
    let start = |config| job.scenario.start(&setup, config);
    let workers = Workers::new(configs, (sender, events), &wakeups, start)?;
    let server = match job.common.server() {
        Some(pid) => {
            // The connections of an earlier run are freed a little later.
            thread::sleep(QUIET);
            Some(Reading::take(pid).context("measuring the server")?)
        }
        None => None,
    };
    let before = Before { server, own: process_memory("self").ok() };
    Ok(go(Run::new(job, workers), plan, &before))
}

/// SIGINT and SIGTERM end the run with a record; a second one ends it without.
fn catch_signals(events: Sender<WorkerEvent>) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Before the first thread, which inherits it.
    signals.thread_block()?;
    thread::spawn(move || {
        let mut caught = 0;
        while signals.wait().is_ok() {
            caught += 1;
            if caught > 1 {
                std::process::exit(1);
            }
            // The run may be over already.
            let _ = events.send(WorkerEvent::Interrupted);
        }
    });
    Ok(())
}

/// What each worker is started with.
fn worker_configs(
    job: &Job,
    plan: &Plan,
    workers: usize,
    events: &Sender<WorkerEvent>,
) -> Vec<WorkerConfig> {
    let common = &job.common;
    let epoch = Instant::now();
    let routes = Routes {
        targets: common.target.addresses().to_vec(),
        nodes: common.target.nodes().to_vec(),
        sources: common.source.clone(),
    };
    let cores = common.cpus.as_ref().map_or(plan.cores, |cpus| cpus.0.len()).max(1);
    // Rings that share a wait are rings of io_uring.
    let threads = if plan.io == Io::Epoll { workers } else { cores };
    let config = |worker| {
        let apart = job.profile.apart.has(worker, workers);
        let conns = job.scenario.conns(common, worker, workers);
        WorkerConfig {
            plan: plan.clone(),
            cpu: common.cpus.as_ref().map(|cpus| cpus.0[worker % cpus.0.len()]),
            thread: if apart { workers + worker } else { worker % threads },
            share: Share {
                conns,
                shard: worker as u64,
                shards: workers as u64,
                routes: routes.clone(),
                connect_rate: common.connect_rate * f64::from(conns)
                    / job.conns_all().max(1) as f64,
                errors_max: common.max_errors,
            },
            epoch,
            max_send_bytes: SEND_BYTES_MAX.max(2 * job.profile.in_flight_bytes),
            tick: job.profile.tick,
            apart,
            events: events.clone(),
        }
    };
    (0..workers).map(config).collect()
}

/// Memory before the first connection.
struct Before {
    /// Of the server, if its process is known.
    server: Option<Reading>,
    own: Option<ProcessMemory>,
}

fn go(mut run: Run, plan: Plan, before: &Before) -> Record {
    let started = SystemTime::now();
    let begun = run.snapshot();
    let connected = run.connect();
    let full = run.snapshot();
    let (mut held, mut rows, mut own_bytes, mut memory) = (None, Vec::new(), None, None);
    if connected.is_ok() {
        if run.job.profile.columns.is_some() {
            run.columns = Some(Columns::new(run.job.conns_all(), full.at, full.totals));
        }
        let ended = hold(&mut run, full.at);
        let end = run.snapshot();
        if let Some(columns) = run.columns.take() {
            rows = columns.finish(end.at, &end.totals);
            let csv = run.job.profile.columns.iter().flatten();
            let written = csv.map(|path| fs::write(path, columns::csv(&rows)));
            let errors = written.filter_map(Result::err);
            run.reasons.extend(errors.map(|error| format!("the columns: {error}")));
        }
        held = Some(end);
        if ended.and_then(|()| run.finish()).is_ok() {
            run.verify();
            (own_bytes, memory) = measure(&mut run, &plan, before);
        }
    }
    run.show(Duration::ZERO, true);
    run.progress.finish();
    let totals = run.workers.totals();
    run.judge(&totals);
    let results = Results {
        plan,
        started,
        begun,
        full,
        held,
        workers: run.workers.count(),
        real_time: run.workers.real_time(),
        totals,
        rows,
        load_average: machine::load_average(),
        server_bytes: run.server_pss(),
        own_bytes,
        memory,
    };
    let over = CLOSE_EACH * u32::try_from(totals.ready).unwrap_or(u32::MAX);
    let times = run.workers.leave(over);
    wait_for_sockets();
    results.record(run, &times)
}

fn hold(run: &mut Run, begun: Instant) -> Result<(), Early> {
    run.workers.tell(WorkerOrder::Begin);
    run.show(Duration::ZERO, true);
    match run.job.scenario.hold_plan(&run.job.common) {
        HoldPlan::Steady => run.hold(begun),
        HoldPlan::Storm { stayed, jitter } => run.storms(stayed, jitter),
        HoldPlan::Arrivals { beside, times } => run.arrivals(beside, times),
        HoldPlan::Abuse => run.abuse(),
        HoldPlan::Nodes(plan) => run.nodes(&plan),
        HoldPlan::Soak { admin } => run.soak(admin),
    }
}

/// Memory per connection on both ends, once nothing is in flight.
fn measure(run: &mut Run, plan: &Plan, before: &Before) -> (Option<f64>, Option<Memory>) {
    let conns = run.workers.totals().ready;
    let own = before.own.zip(process_memory("self").ok()).map(|(before, full)| {
        (full.pss_bytes as f64 - before.pss_bytes as f64) / conns.max(1) as f64
    });
    let (Some(pid), Some(server)) = (run.job.common.server(), &before.server) else {
        return (own, None);
    };
    thread::sleep(QUIET);
    let full = match Reading::take(pid) {
        Ok(full) => full,
        Err(error) => {
            run.reasons.push(format!("the server cannot be measured any more: {error}"));
            return (own, None);
        }
    };
    let ends = Ends {
        client: Some(plan.descriptors),
        client_in_epoll: plan.io == Io::Epoll,
        server: run
            .job
            .common
            .server_descriptors
            .wanted()
            .unwrap_or_else(|| full.server_kind(conns)),
    };
    (own, Some(memory::between(server, &full, conns, ends)))
}

/// The kernel takes a closed ring apart in its own time, and the sockets with it. Waits until they
/// get no fewer, so that a run that follows begins on a quiet machine.
fn wait_for_sockets() {
    let mut before = reading::sockets_in_use();
    for _ in 0..SETTLE_STEPS_MAX {
        if before < SETTLE_SOCKETS_MIN {
            return;
        }
        thread::sleep(SETTLE_STEP);
        let now = reading::sockets_in_use();
        if now >= before {
            return;
        }
        before = now;
    }
}

/// Bytes queued for one connection at most, if messages are not larger.
const SEND_BYTES_MAX: u32 = 1 << 20;

/// How long to wait for the kernel to free sockets.
const SETTLE_SOCKETS_MIN: u64 = 1000;
const SETTLE_STEP: Duration = Duration::from_millis(200);
const SETTLE_STEPS_MAX: u32 = 50;

/// Time for each connection's close on both ends: the pace of leaving.
const CLOSE_EACH: Duration = Duration::from_micros(20);
