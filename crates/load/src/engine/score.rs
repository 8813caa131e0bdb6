//! Counts of one worker's virtual clients, which the main thread reads at any time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::engine::times::{Times, empty_histogram};

/// A failure of one connection. Each ends the connection and is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// It could not be connected.
    Refused,
    /// The WebSocket upgrade, or the first answer, was wrong.
    Handshake,
    /// An answer did not come in time.
    Timeout,
    /// The server closed it, or it was reset, during the run.
    Lost,
    /// The input is not HTTP or WebSocket, or has the wrong status.
    Garbled,
    /// The answer has the wrong content. Always fails the run.
    Wrong,
}

impl Fault {
    pub(crate) const ALL: [Fault; 6] = {
        use Fault::*;
        [Refused, Handshake, Timeout, Lost, Garbled, Wrong]
    };

    pub(crate) fn name(self) -> &'static str {
        ["refused", "handshake", "timeout", "lost", "garbled", "wrong"][self as usize]
    }
}

/// One shard's counts. Written by its own thread.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections that are up now, handshake and all.
    ready: AtomicU64,
    /// Requests answered and found right.
    answered: AtomicU64,
    /// Answers that are still to come.
    owed: AtomicU64,
    /// Sums over the messages of the hold phase.
    response_us: AtomicU64,
    message_bytes: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len()],
    /// Connections that did not come about and are tried again.
    missed: [AtomicU64; Fault::ALL.len()],
    /// Connections that have ended and whose clients return.
    ended: AtomicU64,
    /// The first fault in words: one is enough to know where to look.
    first_fault: OnceLock<String>,
}

impl Tally {
    pub(crate) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Adds the counts to those of other shards.
    pub(crate) fn add_to(&self, totals: &mut Totals) {
        // Read first, so that every answer is counted where none is owed. One worker may owe an answer that
        // another receives: only the sum is a number of answers.
        totals.owed = totals.owed.wrapping_add(self.owed.load(Ordering::Acquire));
        totals.ready += self.ready();
        totals.answered += self.answered.load(Ordering::Relaxed);
        totals.response_us += self.response_us.load(Ordering::Relaxed);
        totals.message_bytes += self.message_bytes.load(Ordering::Relaxed);
        totals.ended += self.ended.load(Ordering::Relaxed);
        for kind in 0..Fault::ALL.len() {
            totals.faults[kind] += self.faults[kind].load(Ordering::Relaxed);
            totals.missed[kind] += self.missed[kind].load(Ordering::Relaxed);
        }
    }

    /// Faults of any kind.
    pub(crate) fn faults_all(&self) -> u64 {
        self.faults.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn first_fault(&self) -> Option<&str> {
        self.first_fault.get().map(String::as_str)
    }
}

/// All shards' counts together, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ready: u64,
    pub(crate) answered: u64,
    pub(crate) owed: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) response_us: u64,
    pub(crate) message_bytes: u64,
    pub(crate) faults: [u64; Fault::ALL.len()],
    pub(crate) missed: [u64; Fault::ALL.len()],
    pub(crate) ended: u64,
}

impl Totals {
    pub(crate) fn missed_all(&self) -> u64 {
        self.missed.iter().sum()
    }

    pub(crate) fn faults_all(&self) -> u64 {
        self.faults.iter().sum()
    }

    pub(crate) fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }
}

/// Only the owning thread changes a count, so a load and a store do.
fn add(count: &AtomicU64, n: i64) {
    let value = count.load(Ordering::Relaxed).wrapping_add_signed(n);
    count.store(value, Ordering::Release);
}

/// A moment of the run in microseconds, as small as a virtual client can keep it. Wraps after 71
/// minutes, which is longer than any answer is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Micros(pub(crate) u32);

impl Micros {
    /// The time that has passed since `earlier`.
    pub(crate) fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(u64::from(self.0.wrapping_sub(earlier.0)))
    }
}

/// The writing end of a [`Tally`], and the times.
pub(crate) struct Score {
    tally: Arc<Tally>,
    epoch: Instant,
    /// When the hold phase began; times before it are not kept.
    holding: Option<Instant>,
    /// When each phase began.
    phases: Vec<Micros>,
    /// Connections that fail try again, so a failure is not a fault.
    retrying: bool,
    /// The same of connections that end.
    returning: bool,
    times: Times,
}

impl Score {
    pub(crate) fn new(epoch: Instant) -> Score {
        Score {
            tally: Arc::default(),
            epoch,
            holding: None,
            phases: Vec::new(),
            retrying: false,
            returning: false,
            times: Times::none(),
        }
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    pub(crate) fn micros(&self, at: Instant) -> Micros {
        Micros(at.saturating_duration_since(self.epoch).as_micros() as u32)
    }

    /// The hold phase begins. Where clients are `returning`, the end of a connection is no fault from now on.
    pub(crate) fn hold(&mut self, now: Instant, returning: bool) {
        self.holding = Some(now);
        self.returning = returning;
    }

    /// Another phase begins. Requests that are due from now on count in it; in one in which connections are
    /// `retrying`, one that does not come about is no fault.
    pub(crate) fn phase(&mut self, now: Instant, retrying: bool) {
        self.phases.push(self.micros(now));
        self.times.phases.push(empty_histogram());
        self.retrying = retrying;
    }

    pub(crate) fn ready(&self) {
        add(&self.tally.ready, 1);
    }

    pub(crate) fn no_longer_ready(&self) {
        add(&self.tally.ready, -1);
    }

    /// `n` more answers are outstanding.
    pub(crate) fn owe(&self, n: u32) {
        add(&self.tally.owed, i64::from(n));
    }

    /// `n` answers will not come: their connection is closed.
    pub(crate) fn forget(&self, n: u32) {
        add(&self.tally.owed, -i64::from(n));
    }

    /// An answer came and is right. `due` is when it was to be asked for, `now` is now.
    pub(crate) fn answered(&mut self, due: Micros, now: Instant) {
        add(&self.tally.answered, 1);
        // Last of both, so that the run counts every answer when it sees that none is owed.
        add(&self.tally.owed, -1);
        if let Some(micros) = self.lasted(due, now) {
            add(&self.tally.response_us, micros as i64);
            self.times.latency.saturating_record(micros);
            // The newest phase that is older than the time.
            let (now, time) = (self.micros(now), Duration::from_micros(micros));
            let phase = self.phases.iter().rposition(|&began| now.since(began) >= time);
            if let Some(phase) = phase {
                self.times.phases[phase].saturating_record(micros);
            }
        }
    }

    /// A publication arrived and is right, `after` it was sent.
    pub(crate) fn arrived(&mut self, after: Duration, bytes: usize) {
        add(&self.tally.answered, 1);
        if self.holding.is_some() {
            let micros = after.as_micros() as u64;
            add(&self.tally.response_us, micros as i64);
            self.times.latency.saturating_record(micros);
            self.count_bytes(bytes);
        }
    }

    /// The same for one whose delay says nothing about the server's speed.
    pub(crate) fn arrived_late(&mut self) {
        add(&self.tally.answered, 1);
    }

    /// Counts the bytes of a message.
    pub(crate) fn count_bytes(&self, bytes: usize) {
        if self.holding.is_some() {
            add(&self.tally.message_bytes, bytes as i64);
        }
    }

    /// The last subscriber has a publication.
    pub(crate) fn over(&mut self, due: Micros, now: Instant) {
        if let Some(micros) = self.lasted(due, now) {
            self.times.over.saturating_record(micros);
        }
    }

    /// A connection beside the others was answered.
    pub(crate) fn answered_beside(&mut self, due: Micros, now: Instant) {
        add(&self.tally.owed, -1);
        if let Some(micros) = self.lasted(due, now) {
            self.times.beside.saturating_record(micros);
        }
    }

    /// Microseconds since something was due. `None` if that was before the hold phase: it says how
    /// long connecting took.
    fn lasted(&self, due: Micros, now: Instant) -> Option<u64> {
        let holding = self.holding?;
        let time = self.micros(now).since(due);
        let held = now.saturating_duration_since(holding) + MICROSECOND;
        (time <= held).then_some(time.as_micros() as u64)
    }

    /// A connection did not come about: a fault, unless it is tried again.
    pub(crate) fn missed(&self, fault: Fault, detail: impl fmt::Display) {
        if (self.retrying || self.returning) && fault != Fault::Wrong {
            add(&self.tally.missed[fault as usize], 1);
        } else {
            self.fault(fault, detail);
        }
    }

    /// A connection has ended: a fault, unless its client returns.
    pub(crate) fn lost(&self, detail: impl fmt::Display) {
        if self.returning {
            add(&self.tally.ended, 1);
        } else {
            self.fault(Fault::Lost, detail);
        }
    }

    pub(crate) fn fault(&self, fault: Fault, detail: impl fmt::Display) {
        add(&self.tally.faults[fault as usize], 1);
        self.tally.first_fault.get_or_init(|| format!("{}: {detail}", fault.name()));
    }
}

/// The error of rounding.
const MICROSECOND: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn totals(score: &Score) -> Totals {
        let mut totals = Totals::default();
        score.tally().add_to(&mut totals);
        totals
    }

    /// Shows that a late client is charged, that the connect phase is not, and that the wrap
    /// of the small clock does no harm.
    #[test]
    fn latency_counts_from_when_a_request_was_due() {
        let start = Instant::now();
        let mut score = Score::new(start);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let before = score.micros(at(1));
        score.hold(at(4000), false);
        score.owe(3);
        score.answered(before, at(4001));
        let due = score.micros(at(4290));
        score.answered(due, at(4300));
        assert_eq!((totals(&score).owed, totals(&score).answered), (1, 2));
        let latency = &score.times().latency;
        assert_eq!(latency.len(), 1);
        assert!((9_990_000..=10_010_000).contains(&latency.max()), "{}", latency.max());
    }

    /// Shows that what is answered late counts where it was asked for, and that shards' phases are
    /// put together one by one.
    #[test]
    fn a_time_belongs_to_the_phase_in_which_it_was_due() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut score = Score::new(start);
        score.hold(start, false);
        score.phase(at(0), false);
        let first = score.micros(at(90));
        score.phase(at(100), false);
        let second = score.micros(at(100));
        score.answered(first, at(150));
        score.answered(second, at(150));
        let lens = |times: &Times| times.phases.iter().map(Histogram::len).collect::<Vec<_>>();
        assert_eq!(lens(score.times()), [1, 1]);
        let mut all = Times::none();
        all.add(score.times());
        all.add(score.times());
        assert_eq!(lens(&all), [2, 2]);
        assert_eq!(all.phases[1].max() / 1000, 50);
    }

    /// Shows when one that did not make it is counted as what, and that a wrong answer is never
    /// forgiven.
    #[test]
    fn a_connection_that_is_tried_again_is_no_fault() {
        let mut score = Score::new(Instant::now());
        score.missed(Fault::Refused, "");
        score.phase(Instant::now(), true);
        score.missed(Fault::Refused, "");
        score.missed(Fault::Wrong, "");
        assert_eq!((totals(&score).faults_all(), totals(&score).missed_all()), (2, 1));
    }

    /// Shows that the end of a connection is a fault until the hold phase of clients that return.
    #[test]
    fn a_client_that_returns_may_lose_its_connection() {
        let mut score = Score::new(Instant::now());
        score.lost("");
        assert_eq!((totals(&score).faults(Fault::Lost), totals(&score).ended), (1, 0));
        score.hold(Instant::now(), true);
        score.lost("");
        score.missed(Fault::Refused, "");
        assert_eq!((totals(&score).faults_all(), totals(&score).missed_all()), (1, 1));
        assert_eq!(totals(&score).ended, 1);
        score.fault(Fault::Timeout, "");
        score.missed(Fault::Wrong, "");
        assert_eq!(totals(&score).faults_all(), 3);
    }

    /// Shows that faults are counted by kind and the first one is described.
    #[test]
    fn the_first_fault_is_kept_in_words() {
        let score = Score::new(Instant::now());
        score.fault(Fault::Wrong, "expected `a`, got `b`");
        score.fault(Fault::Lost, "reset");
        assert_eq!((totals(&score).faults(Fault::Wrong), totals(&score).faults_all()), (1, 2));
        assert_eq!(score.tally().first_fault(), Some("wrong: expected `a`, got `b`"));
    }
}
