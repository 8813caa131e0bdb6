//! A run under way: its phases, and the events that end them.

use std::collections::BTreeMap;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use murre_record::{Arrival, NodeEnd, ProcessFacts, Series, SoakFacts, StormFacts};

use crate::cli::Job;
use crate::engine::orders::{Phase, WorkerEvent, WorkerOrder};
use crate::engine::score::Fault;
use crate::engine::score::Totals;
use crate::engine::workers::Workers;
use crate::measure::reading::process_memory;
use crate::measure::snapshot::Snapshot;
use crate::run::columns::Columns;
use crate::run::progress::Progress;

/// A run under way.
pub(super) struct Run {
    pub(super) job: Job,
    pub(super) workers: Workers,
    pub(super) progress: Progress,
    /// Of the comparison of 2012, while its scenarios hold.
    pub(super) columns: Option<Columns>,
    /// The first connect.
    start: Instant,
    /// When the next second is over.
    next_sample: Instant,
    pub(super) series: Series,
    /// The parts of the hold phase so far, with the counts at their beginning.
    pub(super) phases: Vec<(Phase, Snapshot)>,
    pub(super) storms: Option<StormFacts>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) soaked: Option<SoakFacts>,
    /// The nodes that have ended.
    pub(super) ended: Vec<NodeEnd>,
    pub(super) processes: BTreeMap<String, ProcessFacts>,
    answered_before: u64,
    pub(super) reasons: Vec<String>,
    pub(super) interrupted: bool,
}

/// The rest of the run makes no sense: it was interrupted, or failed for a reason that is noted.
pub(super) struct Early;

impl Run {
    pub(super) fn new(job: Job, workers: Workers) -> Run {
        let start = Instant::now();
        Run {
            progress: Progress::new(job.conns_all(), job.common.duration),
            columns: None,
            job,
            workers,
            start,
            next_sample: start + SECOND,
            series: Series::default(),
            phases: Vec::new(),
            storms: None,
            arrivals: Vec::new(),
            soaked: None,
            ended: Vec::new(),
            processes: BTreeMap::new(),
            answered_before: 0,
            reasons: Vec::new(),
            interrupted: false,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::now(&self.workers, &self.job.common.server_pid)
    }

    /// The server's PSS, once it has been left alone.
    pub(super) fn rested_pss(&self) -> Option<u64> {
        self.job.common.server()?;
        thread::sleep(QUIET);
        self.server_pss()
    }

    pub(super) fn server_pss(&self) -> Option<u64> {
        let pid = self.job.common.server()?;
        process_memory(&pid.to_string()).ok().map(|memory| memory.pss_bytes)
    }

    // ---- phases ----

    /// Until all connections are up.
    pub(super) fn connect(&mut self) -> Result<(), Early> {
        self.workers.tell(WorkerOrder::Start);
        let conns = self.job.conns_all();
        let mut most = 0;
        let mut stalled_at = Instant::now() + self.patience();
        loop {
            self.next(stalled_at, Duration::ZERO)?;
            let totals = self.workers.totals();
            if totals.faults_all() > self.job.common.max_errors {
                return self.fail(format!("{} of {conns} connections reached", totals.ready));
            }
            if totals.ready == conns {
                return Ok(());
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
        let pause = if self.job.common.connect_rate > 0.0 {
            2.0 / self.job.common.connect_rate
        } else {
            0.0
        };
        // A SYN that is dropped is sent again after 1, 3 and 7 seconds.
        self.job.common.timeout.max(Duration::from_secs(10))
            + Duration::from_secs_f64(pause.min(1e6))
    }

    /// A part of the hold phase that lasts for `span`, and until it is `done`. Returns how long it took
    /// until then.
    pub(super) fn phase(
        &mut self,
        phase: Phase,
        span: Duration,
        done: impl Fn(&Totals) -> bool,
    ) -> Result<Duration, Early> {
        let begin = self.snapshot();
        self.phases.push((phase, begin.clone()));
        self.workers.tell(WorkerOrder::Phase(phase));
        self.progress.print(phase.name());
        let mut done_after = None;
        let (mut ready, mut moved) = (begin.totals.ready, begin.at);
        loop {
            let totals = self.workers.totals();
            if totals.faults_all() > self.job.common.max_errors {
                // `judge` names the faults. Waiting for lost connections would not end.
                return Err(Early);
            }
            let after = begin.at.elapsed();
            if done_after.is_none() && done(&totals) {
                done_after = Some(after);
            }
            if let Some(done_after) = done_after.filter(|_| after >= span) {
                return Ok(done_after);
            }
            if totals.ready != ready {
                (ready, moved) = (totals.ready, Instant::now());
            } else if done_after.is_none() && moved.elapsed() > STALLED {
                let (name, all) = (phase.name(), self.job.conns_all());
                return self.fail(format!("{name}: {ready} of {all} connections, then no change"));
            }
            self.next(Instant::now() + POLL, self.phases[0].1.at.elapsed())?;
        }
    }

    /// One part, for the whole duration, or until the scenario is over.
    pub(super) fn hold(&mut self, begun: Instant) -> Result<(), Early> {
        let end = begun + self.job.common.duration;
        while Instant::now() < end && !self.job.scenario.is_over() {
            self.next(end, begun.elapsed())?;
            if self.workers.totals().ready == 0 && !self.job.profile.returns {
                return self.fail("no connection is left".to_owned());
            }
        }
        Ok(())
    }

    /// Sends no new requests, and waits for the outstanding answers.
    pub(super) fn finish(&mut self) -> Result<(), Early> {
        self.workers.tell(WorkerOrder::Finish);
        let end = Instant::now() + self.job.common.timeout + SECOND;
        let mut finished = 0;
        loop {
            let event = self.next(Instant::now() + POLL, Duration::ZERO)?;
            finished += usize::from(matches!(event, Some(WorkerEvent::Finished)));
            let owed = self.workers.totals().owed;
            if finished == self.workers.count() && owed == 0 {
                return Ok(());
            }
            if Instant::now() >= end {
                return self.fail(format!("{owed} answers never came"));
            }
        }
    }

    /// Compares the server's state with the clients'.
    pub(super) fn verify(&mut self) {
        let connections = self.workers.totals().ready;
        let differs = self.job.scenario.verify(connections).err();
        self.reasons.extend(differs.map(|error| format!("{error:#}")));
    }

    // ---- while a phase runs ----

    /// Waits for the next event, but not beyond `until`; takes a sample whenever a second is over. An event that
    /// ends the run is an error.
    pub(super) fn next(
        &mut self,
        until: Instant,
        held: Duration,
    ) -> Result<Option<WorkerEvent>, Early> {
        let stop = until.min(self.next_sample);
        let event = match self
            .workers
            .events
            .recv_timeout(stop.saturating_duration_since(Instant::now()))
        {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // The signal thread and the shards hold senders for as long as they live.
            Err(RecvTimeoutError::Disconnected) => unreachable!("the signal thread never ends"),
        };
        while self.next_sample <= Instant::now() {
            self.next_sample += SECOND;
            let totals = self.workers.totals();
            self.series.connections.push(totals.ready);
            self.series.requests.push(totals.answered - self.answered_before);
            self.answered_before = totals.answered;
            self.show(held, false);
            if let Some(columns) = &mut self.columns
                && let Some(line) = columns.sample(Instant::now(), &totals)
            {
                self.progress.print(&line);
            }
        }
        match event {
            Some(WorkerEvent::Interrupted) => {
                self.interrupted = true;
                self.fail("interrupted by a signal".to_owned())
            }
            Some(WorkerEvent::Died(error)) => self.fail(format!("a worker ended: {error}")),
            event => Ok(event),
        }
    }

    pub(super) fn show(&mut self, held: Duration, now: bool) {
        let totals = self.workers.totals();
        self.progress.show(&totals, self.start.elapsed(), held, now);
    }

    /// Notes why the run ends early.
    pub(super) fn fail<T>(&mut self, reason: String) -> Result<T, Early> {
        self.reasons.push(reason);
        Err(Early)
    }

    /// Our own checks.
    pub(super) fn judge(&mut self, totals: &Totals) {
        let wrong = totals.faults(Fault::Wrong);
        if wrong > 0 {
            self.reasons.push(format!("{wrong} wrong answers"));
        }
        if totals.faults_all() - wrong > self.job.common.max_errors {
            let kinds = Fault::ALL.iter().filter(|&&fault| totals.faults(fault) > 0);
            let kinds: Vec<_> =
                kinds.map(|&f| format!("{} {}", totals.faults(f), f.name())).collect();
            self.reasons.push(format!(
                "more connections failed than --max-errors {}: {}",
                self.job.common.max_errors,
                kinds.join(", ")
            ));
        }
        // Where the server begins, silence is not success.
        if self.job.profile.must_receive && self.reasons.is_empty() && totals.answered == 0 {
            self.reasons.push("no message came".to_owned());
        }
        if totals.faults_all() > 0 {
            let first = self.workers.first_fault().unwrap_or_default();
            self.reasons.extend((!self.reasons.is_empty()).then(|| format!("first: {first}")));
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// How often to look whether all outstanding answers have come.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// A part in which nothing changes for so long will not end: a SYN that is dropped is sent again
/// after 1, 3, 7, 15, 31 and 63 s.
const STALLED: Duration = Duration::from_secs(70);

/// How long the server is left alone before its memory is read.
pub(super) const QUIET: Duration = Duration::from_secs(1);
