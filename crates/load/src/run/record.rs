//! The record of a run that is over.

use std::time::{Duration, SystemTime};

use murre_core::host::Plan;
use murre_core::ring::KernelRing;
use murre_record::{
    AbuseFacts, Article, BackendFacts, ClientFacts, CountedFrom, Latency, Memory, NodesFacts,
    Outcome, PhaseFacts, Row, Scenario,
};

use crate::engine::orders::Phase;
use crate::engine::score::{Fault, Totals};
use crate::engine::times::{Times, empty_histogram, latency};
use crate::measure::machine::{self, machine};
use crate::measure::snapshot::Snapshot;
use crate::run::columns;
use crate::run::phases::Run;
use crate::scenarios::scenario::Profile;

/// A record as it is written: with the whole command line.
pub(crate) type Record = murre_record::Record<serde_json::Value>;

/// What is known of a run when its connections are about to be closed.
pub(super) struct Results {
    pub(super) plan: Plan,
    pub(super) started: SystemTime,
    /// Before the first connect.
    pub(super) begun: Snapshot,
    /// With all connections, or when the run failed before.
    pub(super) full: Snapshot,
    /// At the end of the hold phase, if there was one.
    pub(super) held: Option<Snapshot>,
    /// Of all workers.
    pub(super) workers: usize,
    pub(super) real_time: Option<bool>,
    pub(super) totals: Totals,
    pub(super) rows: Vec<Row>,
    pub(super) load_average: f64,
    pub(super) server_bytes: Option<u64>,
    /// Growth of our own PSS per connection.
    pub(super) own_bytes: Option<f64>,
    pub(super) memory: Option<Memory>,
}

impl Results {
    /// Makes the record; `times` are those of all workers, which have ended.
    pub(super) fn record(self, run: Run, times: &Times) -> Record {
        let Run { job, phases, series, reasons, .. } = run;
        let Results { plan, begun, full, totals, .. } = self;
        let (last, scenario) = (self.held.as_ref().unwrap_or(&full), &*job.scenario);
        let Profile { kind, counted_from, .. } = job.profile;
        let outcome = match (run.interrupted, reasons.is_empty()) {
            (true, _) => Outcome::Interrupted,
            (false, true) => Outcome::Passed,
            (false, false) => Outcome::Failed,
        };
        let phases = phase_facts(&phases, last, times, counted_from);
        let bytes_per_connection =
            job.profile.bytes_per_connection + KernelRing::bytes_per_connection(plan.io);
        Record {
            tool: env!("CARGO_PKG_NAME").to_owned(),
            label: job.common.label.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: machine::commit(),
            started: machine::utc(self.started),
            command: Some(machine::command()),
            scenario: kind,
            outcome,
            reasons,
            machine: machine(),
            client: ClientFacts {
                shards: self.workers as u64,
                real_time: self.real_time,
                io: plan.io.name().to_owned(),
                io_reason: plan.io_reason,
                descriptors: plan.descriptors.name().to_owned(),
                descriptors_reason: plan.descriptors_reason,
                bytes_per_connection: bytes_per_connection as u64,
                pss_bytes_per_connection: self.own_bytes,
                cpu_seconds: (last.client_cpu - begun.client_cpu).as_secs_f64(),
            },
            connect: begun.connect_until(&full),
            hold: self.held.map(|end| full.hold_until(&end)),
            errors: Fault::ALL.iter().map(|&f| (f.name().to_owned(), totals.faults(f))).collect(),
            wrong: totals.faults(Fault::Wrong),
            lost: totals.faults(Fault::Lost),
            answered: totals.answered,
            latency_us: latency(&times.latency, counted_from),
            memory: self.memory,
            article: article(self.rows, self.load_average, self.server_bytes, times),
            fanout: scenario.fanout_facts(times),
            churn: scenario.churn_facts(),
            phoenix: scenario.phoenix_facts(),
            nodes: scenario.nodes_facts(&job.common).map(|facts| NodesFacts {
                ended: run.ended,
                processes: run.processes,
                ..facts
            }),
            presence: scenario.presence_facts(times),
            recover: scenario.recover_facts(times),
            interest: scenario.interest_facts(&job.common, times),
            backend: scenario.application_facts().map(|application| BackendFacts {
                application,
                arrivals: run.arrivals,
                quiet_us: of_all(Phase::Quiet, &phases, times),
                arriving_us: of_all(Phase::Return { over: Duration::ZERO }, &phases, times),
            }),
            abuse: (kind == Scenario::Abuse).then(|| AbuseFacts {
                quiet_us: of_all(Phase::Quiet, &phases, times),
                abused_us: of_all(Phase::Visit, &phases, times),
            }),
            phases,
            storm: run.storms,
            soak: run.soaked,
            visits: scenario.visit_facts(),
            series,
            parameters: job.parameters,
        }
    }
}

/// What the comparison of 2012 told of a run, if it measured the scenario.
fn article(
    rows: Vec<Row>,
    load_average: f64,
    server_bytes: Option<u64>,
    times: &Times,
) -> Option<Article> {
    let &Row { average_response_ms, average_bytes, .. } = rows.last()?;
    let (ten_highest_ms, ten_lowest_ms) = columns::extremes(&times.latency);
    Some(Article {
        average_response_ms,
        average_bytes,
        ten_highest_ms,
        ten_lowest_ms,
        load_average,
        server_bytes,
        rows,
    })
}

/// Latency in all parts of the hold phase that are `of` a kind.
fn of_all(of: Phase, phases: &[PhaseFacts], times: &Times) -> Latency {
    let mut all = empty_histogram();
    let named = phases.iter().zip(&times.phases).filter(|(facts, _)| facts.phase == of.name());
    named.for_each(|(_, one)| all.add(one).expect("histograms with the same bounds"));
    latency(&all, CountedFrom::Due)
}

/// Each part of the hold phase from its beginning to that of the next, the last one to `end`.
fn phase_facts(
    phases: &[(Phase, Snapshot)],
    end: &Snapshot,
    times: &Times,
    counted_from: CountedFrom,
) -> Vec<PhaseFacts> {
    let ends = phases.iter().skip(1).map(|(_, begin)| begin).chain([end]);
    let facts = |(((phase, begun), end), times): ((&(Phase, Snapshot), &Snapshot), _)| {
        let span = begun.hold_until(end);
        PhaseFacts {
            phase: phase.name().to_owned(),
            seconds: span.seconds,
            client_cpu_seconds: span.client_cpu_seconds,
            server_cpu_seconds: span.server_cpu_seconds,
            latency_us: latency(times, counted_from),
        }
    };
    phases.iter().zip(ends).zip(&times.phases).map(facts).collect()
}
