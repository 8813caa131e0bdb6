//! One run from its first check to its record. What happens in the hold phase of scenarios that have
//! several acts is in a file each.
//!
//! ```text
//!   check, plan ─▶ connect ─▶ hold ─▶ finish ─▶ quiet ─▶ leave ─▶ record
//!        │            │         │    (answers that   (memory)  (close frames)
//!        └ error: 1   └─────────┴──── are owed) ──▶ interrupted, or failed: leave at once
//! ```

pub(crate) mod act;
pub(crate) mod columns;
pub(crate) mod plan;
mod progress;
mod storm;
mod visits;

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use murre_core::host::{self, Io, Plan, Wanted};
use murre_core::ring::KernelRing;
use murre_record::{
    AbuseFacts, Article, ClientFacts, CountedFrom, FanoutFacts, Outcome, PhaseFacts, ProcessMemory,
    Row, Series, SoakFacts, StormFacts,
};
use nix::sys::signal::{SigSet, Signal};

use self::act::Act;
use self::columns::Columns;
use self::plan::{Ports, check_sources, check_targets};
use self::progress::Progress;
use crate::cli::{Cli, Scenario};
use crate::engine::crew::{self, Crew, Totals};
use crate::engine::fleet::{Event, Order};
use crate::engine::score::{self, Fault, Times};
use crate::measure::attribution::Ends;
use crate::measure::machine::{self, machine};
use crate::measure::mark::Mark;
use crate::measure::memory;
use crate::measure::reading::{self, Reading, process_memory};
use crate::scenarios::{self, Shared};

/// A record as it is written: with the whole command line.
pub(crate) type Record = murre_record::Record<Cli>;

/// Runs the scenario. An error is one that prevents the run; what goes wrong in it is in the
/// record.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Record> {
    let (sender, events) = mpsc::channel();
    catch_signals(sender.clone())?;
    let plan = prepare(&cli)?;
    if let Some(cpus) = &cli.cpus {
        crew::pin(&cpus.0).with_context(|| format!("cannot pin to the cores {:?}", cpus.0))?;
    }
    if let Some(path) = &cli.csv {
        // Before the run: one without its columns is for nothing.
        fs::write(path, "").with_context(|| format!("cannot write to {}", path.display()))?;
    }
    let epoch = Instant::now();
    let berths = scenarios::berths(&cli, &plan, epoch, &sender);
    let shared = Shared::new(&cli, &plan);
    let start = |berth| scenarios::start(&cli, &shared, berth);
    let crew = Crew::new(berths, events, &shared.bells, start)?;
    let before = match cli.server_pid {
        Some(pid) => {
            // What a run before this one has closed is freed a little later.
            thread::sleep(QUIET);
            Some(Reading::take(pid).context("measuring the server")?)
        }
        None => None,
    };
    let started = SystemTime::now();
    Ok(Run::new(cli, plan, crew, shared, started, before).go())
}

/// Everything that can be known to be wrong before the first connection.
fn prepare(cli: &Cli) -> anyhow::Result<Plan> {
    let targets = cli.target.addresses();
    let (conns, sources) = (cli.conns_all(), cli.source.len() as u64);
    let problem = Ports::read().check(conns, targets.len() as u64, sources);
    problem.and_then(|()| check_sources(&cli.source, targets)).map_err(anyhow::Error::msg)?;
    if let Some(pid) = cli.server_pid {
        process_memory(&pid.to_string())
            .with_context(|| format!("--server-pid {pid} cannot be measured"))?;
    }
    let plan = host::plan(&Wanted {
        conns_max: Some(conns as u32 + cli.visitors()),
        shards: match cli.visitors() {
            0 => cli.shards,
            // One is enough at their pace.
            _ => Some(1),
        },
        descriptors: cli.descriptors.wanted(),
        io: cli.io.wanted(),
    })?;
    check_targets(targets).map_err(anyhow::Error::msg)?;
    Ok(plan)
}

/// SIGINT and SIGTERM end the run with a record; a second one ends it without.
fn catch_signals(events: Sender<Event>) -> anyhow::Result<()> {
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
            let _ = events.send(Event::Interrupted);
        }
    });
    Ok(())
}

/// A run under way.
struct Run {
    cli: Cli,
    plan: Plan,
    crew: Crew,
    shared: Shared,
    progress: Progress,
    /// Of the scenarios of the article, while they hold.
    columns: Option<Columns>,
    rows: Vec<Row>,
    started: SystemTime,
    /// The first connect.
    start: Instant,
    /// When the next second is over.
    next_sample: Instant,
    series: Series,
    /// What the acts so far began with.
    acts: Vec<(Act, Mark)>,
    storms: Option<StormFacts>,
    soaked: Option<SoakFacts>,
    answered_before: u64,
    /// What the server held before the first connection.
    before: Option<Reading>,
    /// What we held then.
    own_before: Option<ProcessMemory>,
    reasons: Vec<String>,
    interrupted: bool,
}

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// As it should.
    Done,
    /// The rest of the run makes no sense: interrupted, or failed for a reason that is noted.
    Early,
}

impl Run {
    fn new(
        cli: Cli,
        plan: Plan,
        crew: Crew,
        shared: Shared,
        started: SystemTime,
        before: Option<Reading>,
    ) -> Run {
        let start = Instant::now();
        Run {
            progress: Progress::new(cli.conns_all(), cli.duration),
            columns: None,
            rows: Vec::new(),
            cli,
            plan,
            crew,
            shared,
            started,
            start,
            next_sample: start + SECOND,
            series: Series::default(),
            acts: Vec::new(),
            storms: None,
            soaked: None,
            answered_before: 0,
            before,
            own_before: process_memory("self").ok(),
            reasons: Vec::new(),
            interrupted: false,
        }
    }

    fn go(mut self) -> Record {
        let begun = Mark::now(&self.crew, self.cli.server_pid);
        let connected = self.connect();
        let full = Mark::now(&self.crew, self.cli.server_pid);
        let mut held = None;
        let mut memory = (None, None);
        if connected == Ended::Done {
            if self.cli.is_of_article() {
                self.columns = Some(Columns::new(self.cli.conns_all(), full.at, full.totals));
            }
            let ended = self.hold_in_acts(full.at);
            let end = Mark::now(&self.crew, self.cli.server_pid);
            if let Some(columns) = self.columns.take() {
                self.rows = columns.finish(end.at, &end.totals);
                let csv = self.cli.csv.as_ref();
                let written = csv.map_or(Ok(()), |path| fs::write(path, columns::csv(&self.rows)));
                self.reasons.extend(written.err().map(|error| format!("the columns: {error}")));
            }
            held = Some((full, end));
            if ended == Ended::Done && self.finish() == Ended::Done {
                memory = self.measure();
            }
        }
        self.show(Duration::ZERO, true);
        self.progress.finish();
        self.leave(begun, full, held, memory)
    }

    // ---- phases ----

    /// Until all connections are up.
    fn connect(&mut self) -> Ended {
        self.crew.tell(Order::Start);
        let conns = self.cli.conns_all();
        let mut most = 0;
        let mut stalled_at = Instant::now() + self.patience();
        loop {
            match self.next(stalled_at, Duration::ZERO) {
                Some(Event::Interrupted) => return self.interrupt(),
                Some(Event::Died(error)) => return self.fail(format!("a shard ended: {error}")),
                Some(Event::Failing | Event::Full | Event::Finished) | None => {}
            }
            let totals = self.crew.totals();
            if totals.faults_all() > self.cli.max_errors {
                return self.fail(format!("{} of {conns} connections reached", totals.ready));
            }
            if totals.ready == conns {
                return Ended::Done;
            }
            if totals.ready > most {
                most = totals.ready;
                stalled_at = Instant::now() + self.patience();
            } else if Instant::now() >= stalled_at {
                return self.fail(format!(
                    "{} of {conns} connections reached, then none for {:?}",
                    totals.ready,
                    self.patience()
                ));
            }
        }
    }

    /// How long to wait for one more connection.
    fn patience(&self) -> Duration {
        let pause = if self.cli.connect_rate > 0.0 { 2.0 / self.cli.connect_rate } else { 0.0 };
        // A SYN that is dropped is sent again after 1, 3 and 7 seconds.
        self.cli.timeout.max(Duration::from_secs(10)) + Duration::from_secs_f64(pause.min(1e6))
    }

    fn hold_in_acts(&mut self, begun: Instant) -> Ended {
        self.crew.tell(Order::Begin);
        self.show(Duration::ZERO, true);
        match self.cli.scenario {
            Scenario::Storm => self.storms(),
            Scenario::Abuse => self.abuse(),
            Scenario::Soak => self.soak(),
            _ => self.hold(begun),
        }
    }

    /// An act that lasts for `span`, and until it is `done`. How long it took until it was; `None` if
    /// the run is over.
    fn act(
        &mut self,
        act: Act,
        span: Duration,
        done: impl Fn(&Totals) -> bool,
    ) -> Option<Duration> {
        let mark = Mark::now(&self.crew, self.cli.server_pid);
        self.acts.push((act, mark));
        self.crew.tell(Order::Act(act));
        self.progress.say(act.name());
        let mut done_after = None;
        let (mut ready, mut moved) = (mark.totals.ready, mark.at);
        loop {
            let totals = self.crew.totals();
            if totals.faults_all() > self.cli.max_errors {
                // The end says which. Who is lost for good would be waited for.
                return None;
            }
            let after = mark.at.elapsed();
            if done_after.is_none() && done(&totals) {
                done_after = Some(after);
            }
            if done_after.is_some() && after >= span {
                return done_after;
            }
            if totals.ready != ready {
                (ready, moved) = (totals.ready, Instant::now());
            } else if done_after.is_none() && moved.elapsed() > STALLED {
                let all = self.cli.conns_all();
                let name = act.name();
                self.fail(format!("{name}: {ready} of {all} connections, then no change"));
                return None;
            }
            match self.next(Instant::now() + POLL, self.acts[0].1.at.elapsed()) {
                Some(Event::Interrupted) => self.interrupt(),
                Some(Event::Died(error)) => self.fail(format!("a shard ended: {error}")),
                Some(Event::Failing | Event::Full | Event::Finished) | None => continue,
            };
            return None;
        }
    }

    fn server_pss(&self) -> Option<u64> {
        let pid = self.cli.server_pid?;
        process_memory(&pid.to_string()).ok().map(|memory| memory.pss_bytes)
    }

    fn hold(&mut self, begun: Instant) -> Ended {
        let end = begun + self.cli.duration;
        while Instant::now() < end {
            match self.next(end, begun.elapsed()) {
                Some(Event::Interrupted) => return self.interrupt(),
                Some(Event::Died(error)) => return self.fail(format!("a shard ended: {error}")),
                Some(Event::Failing | Event::Full | Event::Finished) | None => {}
            }
            if self.crew.totals().ready == 0 {
                return self.fail("no connection is left".to_owned());
            }
        }
        Ended::Done
    }

    /// Nothing new is asked; waits for what is owed.
    fn finish(&mut self) -> Ended {
        self.crew.tell(Order::Finish);
        let end = Instant::now() + self.cli.timeout + SECOND;
        let mut finished = 0;
        loop {
            match self.next(Instant::now() + POLL, Duration::ZERO) {
                Some(Event::Finished) => finished += 1,
                Some(Event::Interrupted) => return self.interrupt(),
                Some(Event::Died(error)) => return self.fail(format!("a shard ended: {error}")),
                Some(Event::Failing | Event::Full) | None => {}
            }
            let owed = self.crew.totals().owed;
            if finished == self.crew.shards() && owed == 0 {
                return Ended::Done;
            }
            if Instant::now() >= end {
                return self.fail(format!("{owed} answers never came"));
            }
        }
    }

    /// Memory on both ends, once nothing is under way.
    fn measure(&mut self) -> (Option<f64>, Option<murre_record::Memory>) {
        let conns = self.crew.totals().ready;
        let own = self.own_before.zip(process_memory("self").ok()).map(|(before, full)| {
            (full.pss_bytes as f64 - before.pss_bytes as f64) / conns.max(1) as f64
        });
        let (Some(pid), Some(before)) = (self.cli.server_pid, &self.before) else {
            return (own, None);
        };
        thread::sleep(QUIET);
        let full = match Reading::take(pid) {
            Ok(full) => full,
            Err(error) => {
                self.reasons.push(format!("the server cannot be measured any more: {error}"));
                return (own, None);
            }
        };
        let ends = Ends {
            client: Some(self.plan.descriptors),
            client_in_epoll: self.plan.io == Io::Epoll,
            server: self.cli.server_descriptors.wanted().unwrap_or_else(|| full.server_kind(conns)),
        };
        (own, Some(memory::between(before, &full, conns, ends)))
    }

    /// Closes everything and makes the record.
    fn leave(
        mut self,
        begun: Mark,
        full: Mark,
        held: Option<(Mark, Mark)>,
        (own_bytes, memory): (Option<f64>, Option<murre_record::Memory>),
    ) -> Record {
        let last = held.as_ref().map_or(&full, |(_, end)| end);
        let totals = self.crew.totals();
        self.judge(&totals);
        let outcome = match (self.interrupted, self.reasons.is_empty()) {
            (true, _) => Outcome::Interrupted,
            (false, true) => Outcome::Passed,
            (false, false) => Outcome::Failed,
        };
        let bytes_per_connection = scenarios::bytes_per_connection(self.cli.scenario)
            + KernelRing::bytes_per_connection(self.plan.io);
        let load_average = machine::load_average();
        let server_bytes = self.server_pss();
        let Run { cli, plan, crew, shared, rows, started, series, acts, reasons, .. } = self;
        let times = crew.leave(GOODBYE_EACH * u32::try_from(totals.ready).unwrap_or(u32::MAX));
        wait_for_sockets();
        let counted_from = match (cli.scenario, cli.rate) {
            (Scenario::WsEcho | Scenario::Fanout, None) => CountedFrom::SentInClosedLoop,
            (Scenario::Pubsub, _) => CountedFrom::SentByServer,
            (Scenario::Churn, _) => CountedFrom::Sent,
            (Scenario::Quotes, _) => CountedFrom::FirstHeard,
            _ => CountedFrom::Due,
        };
        let acts = act_facts(&acts, last, &times, counted_from);
        let abuse = (cli.scenario == Scenario::Abuse).then(|| {
            let [quiet_us, abused_us] = [Act::Quiet, Act::Visit].map(|of| {
                let mut all = score::empty_histogram();
                let named = acts.iter().zip(&times.acts).filter(|(act, _)| act.phase == of.name());
                named.for_each(|(_, one)| all.add(one).expect("histograms with the same bounds"));
                score::latency(&all, counted_from)
            });
            AbuseFacts { quiet_us, abused_us }
        });
        let article = rows.last().map(|last| {
            let (ten_highest_ms, ten_lowest_ms) = columns::extremes(&times.latency);
            Article {
                average_response_ms: last.average_response_ms,
                average_bytes: last.average_bytes,
                ten_highest_ms,
                ten_lowest_ms,
                load_average,
                server_bytes,
                rows: rows.clone(),
            }
        });
        let fanout = shared.fanout.map(|board| FanoutFacts {
            publications: board.over(),
            last_delivery_us: score::latency(&times.over, counted_from),
            beside_us: (cli.beside > 0).then(|| score::latency(&times.beside, CountedFrom::Due)),
        });
        Record {
            tool: env!("CARGO_PKG_NAME").to_owned(),
            label: cli.label.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: machine::commit(),
            started: machine::utc(started),
            command: Some(machine::command()),
            scenario: cli.scenario.recorded(),
            outcome,
            reasons,
            machine: machine(),
            client: ClientFacts {
                shards: scenarios::shards(&cli, &plan) as u64,
                io: plan.io.name().to_owned(),
                io_reason: plan.io_reason,
                descriptors: plan.descriptors.name().to_owned(),
                descriptors_reason: plan.descriptors_reason,
                bytes_per_connection: bytes_per_connection as u64,
                pss_bytes_per_connection: own_bytes,
                cpu_seconds: (last.client_cpu - begun.client_cpu).as_secs_f64(),
            },
            connect: begun.connect_until(&full),
            hold: held.map(|(full, end)| full.hold_until(&end)),
            errors: Fault::ALL.iter().map(|&f| (f.name().to_owned(), totals.faults(f))).collect(),
            wrong: totals.faults(Fault::Wrong),
            lost: totals.faults(Fault::Lost),
            answered: totals.answered,
            latency_us: score::latency(&times.latency, counted_from),
            memory,
            article,
            fanout,
            churn: shared.churn.map(|board| board.facts()),
            phases: acts,
            storm: self.storms,
            abuse,
            soak: self.soaked,
            visits: shared.visits.map(|(_, board)| board.facts()).unwrap_or_default(),
            series,
            parameters: cli,
        }
    }

    // ---- while a phase runs ----

    /// Waits for the next event, but not beyond `until`; takes a sample whenever a second is over.
    fn next(&mut self, until: Instant, held: Duration) -> Option<Event> {
        let stop = until.min(self.next_sample);
        let event =
            match self.crew.events.recv_timeout(stop.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                // The signal thread and the shards hold senders for as long as they live.
                Err(RecvTimeoutError::Disconnected) => unreachable!("the signal thread never ends"),
            };
        while self.next_sample <= Instant::now() {
            self.next_sample += SECOND;
            let totals = self.crew.totals();
            self.series.connections.push(totals.ready);
            self.series.requests.push(totals.answered - self.answered_before);
            self.answered_before = totals.answered;
            self.show(held, false);
            if let Some(columns) = &mut self.columns
                && let Some(line) = columns.sample(Instant::now(), &totals)
            {
                self.progress.say(&line);
            }
        }
        event
    }

    fn show(&mut self, held: Duration, now: bool) {
        let totals = self.crew.totals();
        let standing = progress::Standing {
            elapsed: self.start.elapsed(),
            held,
            concurrency: totals.ready,
            requests: totals.answered,
            bytes_in: totals.bytes_in,
            faults: totals.faults_all(),
        };
        self.progress.show(&standing, now);
    }

    fn interrupt(&mut self) -> Ended {
        self.interrupted = true;
        self.fail("interrupted by a signal".to_owned())
    }

    fn fail(&mut self, reason: String) -> Ended {
        self.reasons.push(reason);
        Ended::Early
    }

    /// Our own checks.
    fn judge(&mut self, totals: &Totals) {
        let wrong = totals.faults(Fault::Wrong);
        if wrong > 0 {
            self.reasons.push(format!("{wrong} wrong answers"));
        }
        if totals.faults_all() - wrong > self.cli.max_errors {
            let kinds = Fault::ALL.iter().filter(|&&fault| totals.faults(fault) > 0);
            let kinds: Vec<_> =
                kinds.map(|&f| format!("{} {}", totals.faults(f), f.name())).collect();
            self.reasons.push(format!(
                "more connections failed than --max-errors {}: {}",
                self.cli.max_errors,
                kinds.join(", ")
            ));
        }
        // Where the other end begins, silence is no success.
        let unasked = matches!(
            self.cli.scenario,
            Scenario::Pubsub
                | Scenario::Quotes
                | Scenario::RequestReply
                | Scenario::Fanout
                | Scenario::Churn
        );
        if unasked && self.reasons.is_empty() && totals.answered == 0 {
            self.reasons.push("no message came".to_owned());
        }
        if totals.faults_all() > 0 {
            let first = self.crew.first_fault().unwrap_or_default();
            self.reasons.extend((!self.reasons.is_empty()).then(|| format!("first: {first}")));
        }
    }
}

/// Each act from its own mark to the next one's, the last one's to `end`.
fn act_facts(
    acts: &[(Act, Mark)],
    end: &Mark,
    times: &Times,
    counted_from: CountedFrom,
) -> Vec<PhaseFacts> {
    let ends = acts.iter().skip(1).map(|(_, mark)| mark).chain([end]);
    let facts = |(((act, begun), end), latency): ((&(Act, Mark), &Mark), _)| {
        let span = begun.hold_until(end);
        PhaseFacts {
            phase: act.name().to_owned(),
            seconds: span.seconds,
            client_cpu_seconds: span.client_cpu_seconds,
            server_cpu_seconds: span.server_cpu_seconds,
            latency_us: score::latency(latency, counted_from),
        }
    };
    acts.iter().zip(ends).zip(&times.acts).map(facts).collect()
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

const SECOND: Duration = Duration::from_secs(1);

/// How often to look whether everything owed has come.
const POLL: Duration = Duration::from_millis(20);

/// An act in which nothing changes for so long will not end: a SYN that is dropped is sent again
/// after 1, 3, 7, 15, 31 and 63 s.
const STALLED: Duration = Duration::from_secs(70);

/// How long the server is left alone before its memory is read.
const QUIET: Duration = Duration::from_secs(1);

/// What waiting for sockets is worth.
const SETTLE_SOCKETS_MIN: u64 = 1000;
const SETTLE_STEP: Duration = Duration::from_millis(200);
const SETTLE_STEPS_MAX: u32 = 50;

/// How long a goodbye takes both ends: the pace of leaving.
const GOODBYE_EACH: Duration = Duration::from_micros(20);
