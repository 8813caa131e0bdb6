//! The thread that writes what has changed.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::spool::Spool;
use crate::store::{Problem, Store, Written};
use crate::tracker::{Batch, Tracker};
use crate::{SessionLog, TRACKERS, lock, millis, moment};

/// The time between two batches.
const INTERVAL: Duration = Duration::from_millis(500);
/// Rows of one transaction at most. Shards wait while they are taken, readers while they are written.
const ROWS: usize = 1000;
/// Without changes, the time between two notes that the server is there.
const BEAT: Duration = Duration::from_secs(5);
/// The time between two looks for sessions that are older than the retention.
const TRIM: Duration = Duration::from_secs(60);
/// Sessions that are deleted at once.
const TRIMMED: usize = 5000;
/// Calls of [`Tracker::tend`](crate::tracker::Tracker::tend) of each tracker between two batches at most.
const TENDED: usize = 100;
/// After a failure the pause grows up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Writes until the log ends.
pub(crate) fn run(log: &SessionLog, store: Store, spool: Option<Spool>) {
    let now = Instant::now();
    let mut writer = Writer {
        log,
        store,
        spool,
        number: 1,
        unwritten: None,
        first: 0,
        pause: None,
        spool_failed: false,
        beat_at: now,
        trim_at: now,
    };
    loop {
        // What the last connections have changed is written before the end.
        let ends_at = writer.wait();
        let now = Instant::now();
        if ends_at.is_some() || writer.pause.is_none_or(|(until, _)| now >= until) {
            writer.write_all();
        }
        if writer.pause.is_some() {
            writer.tend();
            writer.fill_spool();
        }
        if ends_at.is_some_and(|ends_at| writer.pause.is_none() || now >= ends_at) {
            break;
        }
    }
    writer.end();
}

struct Writer<'l> {
    log: &'l SessionLog,
    store: Store,
    spool: Option<Spool>,
    /// Of the next batch.
    number: i64,
    /// The batch that failed, if the store takes it as it is: its transaction may have been written after all.
    unwritten: Option<Batch>,
    /// The tracker whose turn is first.
    first: usize,
    /// After a failure: until when nothing is written, and the length of this pause.
    pause: Option<(Instant, Duration)>,
    /// Whether the spool failed, and a log line says so.
    spool_failed: bool,
    beat_at: Instant,
    trim_at: Instant,
}

impl Writer<'_> {
    /// Waits until the next batch. Returns when the log ends, if it does.
    fn wait(&self) -> Option<Instant> {
        let mut state = self.log.writer();
        // At the end what fails is tried again soon.
        let interval = if state.ends_at.is_some() { INTERVAL / 10 } else { INTERVAL };
        if state.ends_at.is_none() || self.pause.is_some() {
            let before = state.ends_at;
            let waited = self
                .log
                .changed
                .wait_timeout_while(state, interval, |state| state.ends_at == before);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ends_at
    }

    /// Writes all that has changed, and what is due beside it.
    fn write_all(&mut self) {
        let error = self.write_changes().err();
        let place = &self.log.settings.place;
        match (&error, self.pause) {
            (None, Some(_)) => tracing::info!(%place, "the session log is written again"),
            (Some(error), None) => tracing::error!(
                %place, error = crate::postgres::problem_text(error),
                "the session log cannot be written: it is tried again, connections stay"
            ),
            _ => {}
        }
        self.log.numbers.failed.fetch_add(u64::from(error.is_some()), Ordering::Relaxed);
        self.pause = error.map(|_| {
            let span = self.pause.map_or(INTERVAL, |(_, span)| (span * 2).min(PAUSE_MAX));
            (Instant::now() + span, span)
        });
    }

    fn write_changes(&mut self) -> Result<(), Problem> {
        loop {
            let now_ms = moment(self.log.began).unix_ms;
            // First what has waited for longest.
            if !self.replay(now_ms)? {
                if self.is_over() {
                    return Ok(());
                }
                // What ends meanwhile comes after it.
                self.fill_spool();
                continue;
            }
            let batch = match self.unwritten.take() {
                Some(batch) => batch,
                None => self.take(),
            };
            let rows = batch.rows();
            if rows > 0 || batch.forget_open {
                self.write(batch, now_ms)?;
            }
            // The rest of less than a batch waits for others.
            if rows < ROWS {
                return self.care(now_ms);
            }
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Whether the time for the end is over.
    fn is_over(&self) -> bool {
        self.log.writer().ends_at.is_some_and(|ends_at| Instant::now() >= ends_at)
    }

    /// Takes what has changed, as many rows as a transaction has.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        for index in 0..TRACKERS {
            let rows = ROWS - batch.rows();
            if rows == 0 {
                break;
            }
            let tracker = (self.first + index) % TRACKERS;
            let part = lock(&self.log.trackers[tracker]).take(rows, moment(self.log.began));
            if part.forget_open {
                batch.forget_open = true;
                let others = (0..TRACKERS).filter(|other| *other != tracker);
                others.for_each(|other| lock(&self.log.trackers[other]).send_all());
            }
            batch.ended.extend(part.ended);
            batch.open.extend(part.open);
        }
        self.first = (self.first + 1) % TRACKERS;
        batch.is_rest = batch.rows() < ROWS;
        batch
    }

    /// Writes a batch. One that fails is kept, or its sessions become part of others.
    fn write(&mut self, batch: Batch, now_ms: u64) -> Result<(), Problem> {
        let (rows, ended) = (batch.rows() as u64, batch.ended.len() as u64);
        let written = self.store.write(self.number, &batch, now_ms);
        match written {
            Err(_) if self.store.repeats_batches() => self.unwritten = Some(batch),
            Err(_) => {
                self.number += 1;
                self.put_back(batch);
            }
            Ok(Written::Fenced) => {
                self.number += 1;
                // The new id has no rows that are to be forgotten.
                self.put_back(Batch { forget_open: false, ..batch });
                self.send_all();
            }
            Ok(Written::Done) => self.count(rows, ended),
        }
        written.map(|_| ())
    }

    /// Notes that a batch is in the database.
    fn count(&mut self, rows: u64, ended: u64) {
        self.number += 1;
        self.beat_at = self.next_beat();
        self.log.numbers.rows.fetch_add(rows, Ordering::Relaxed);
        self.log.numbers.written.fetch_add(ended, Ordering::Relaxed);
    }

    fn put_back(&self, batch: Batch) {
        let Batch { forget_open, ended, open, .. } = batch;
        lock(&self.log.trackers[0]).put_back(Batch { forget_open, ..Batch::default() });
        // Each goes before those that have ended since.
        for ended in ended.into_iter().rev() {
            let user = Arc::clone(&ended.user);
            self.log.tracker(&user).put_back(Batch { ended: vec![ended], ..Batch::default() });
        }
        for open in open {
            let user = Arc::clone(&open.user);
            self.log.tracker(&user).put_back(Batch { open: vec![open], ..Batch::default() });
        }
    }

    /// Writes all open sessions with the next batches: the database has none of this server.
    fn send_all(&self) {
        self.log.numbers.fenced.fetch_add(1, Ordering::Relaxed);
        self.log.trackers.iter().for_each(|tracker| lock(tracker).send_all());
    }

    /// Writes a batch of the spool. Returns whether the spool is empty.
    fn replay(&mut self, now_ms: u64) -> Result<bool, Problem> {
        let Some(spool) = self.spool.as_mut().filter(|spool| !spool.is_empty()) else {
            return Ok(true);
        };
        let (ended, to) = spool.next(ROWS)?;
        let count = ended.len();
        let batch = Batch { is_replayed: true, ended, ..Batch::default() };
        let written = self.store.write(self.number, &batch, now_ms);
        self.number += 1;
        match written? {
            Written::Fenced => self.send_all(),
            Written::Done => {
                spool.written(to, count)?;
                self.count(count as u64, count as u64);
            }
        }
        self.note_spool();
        Ok(false)
    }

    /// Moves ended sessions to the spool, if there is one, as far as there is room.
    fn fill_spool(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let mut fill = || -> io::Result<()> {
            for tracker in &self.log.trackers {
                loop {
                    let ended = lock(tracker).take_ended(ROWS);
                    if ended.is_empty() {
                        break;
                    }
                    let back = |ended| lock(tracker).put_back(Batch { ended, ..Batch::default() });
                    match spool.add(&ended) {
                        Ok(added) if added == ended.len() => {}
                        Ok(added) => {
                            back(ended.into_iter().skip(added).collect());
                            return spool.sync();
                        }
                        Err(error) => {
                            back(ended);
                            return Err(error);
                        }
                    }
                }
            }
            spool.sync()
        };
        let filled = fill();
        if let Err(error) = &filled
            && !self.spool_failed
        {
            tracing::error!(%error, "the spool of the session log cannot be written: ended sessions wait in memory");
        }
        self.spool_failed = filled.is_err();
        self.note_spool();
    }

    fn note_spool(&self) {
        let Some(spool) = &self.spool else { return };
        self.log.numbers.spooled.store(spool.records(), Ordering::Relaxed);
        self.log.numbers.spool_bytes.store(spool.bytes(), Ordering::Relaxed);
    }

    /// Ends sessions whose gaps are over, also while nothing can be written. Returns whether some are left.
    fn tend(&self) -> bool {
        // Shards get the lock in between.
        let mut is_more = false;
        for tracker in &self.log.trackers {
            is_more |= (0..TENDED).all(|_| lock(tracker).tend(ROWS, moment(self.log.began)));
        }
        is_more
    }

    /// What is due without changes: the beat, and the retention.
    fn care(&mut self, now_ms: u64) -> Result<(), Problem> {
        let now = Instant::now();
        if now >= self.beat_at {
            if self.store.beat(now_ms)? == Written::Fenced {
                self.send_all();
            }
            self.beat_at = self.next_beat();
        }
        if let Some(retention) = self.log.settings.retention
            && now >= self.trim_at
        {
            let before = now_ms.saturating_sub(millis(retention));
            // With more to delete, again after the next batch.
            if self.store.trim(before, TRIMMED)? < TRIMMED {
                self.trim_at = now + TRIM;
            }
        }
        Ok(())
    }

    fn next_beat(&self) -> Instant {
        Instant::now() + BEAT.min(self.log.settings.lease / 6)
    }

    /// Ends the run in the database, closes it, and tells the thread that waits for the end.
    fn end(mut self) {
        let log = self.log;
        let is_left = |writer: &Self| {
            let is_empty = |tracker: &Mutex<Tracker>| lock(tracker).is_written();
            writer.pause.is_some()
                || writer.unwritten.is_some()
                || writer.spool.as_ref().is_some_and(|spool| !spool.is_empty())
                || !log.trackers.iter().all(is_empty)
        };
        let is_all_written = !is_left(&self);
        if self.spool.is_some() && !is_all_written {
            while self.tend() {
                self.fill_spool();
            }
            self.fill_spool();
        }
        let waiting: usize = log.trackers.iter().map(|tracker| lock(tracker).waiting()).sum();
        let sessions = waiting + self.unwritten.as_ref().map_or(0, |batch| batch.ended.len());
        // A database that is away is not waited for: the lease of this server ends there by itself.
        let ended = match self.pause.is_some() && !self.store.repeats_batches() {
            true if sessions > 0 => Err("the database is away".into()),
            true => Ok(()),
            false => self.store.end(moment(log.began).unix_ms, is_all_written),
        };
        if let Err(error) = ended {
            let (place, error) = (&log.settings.place, crate::postgres::problem_text(&error));
            tracing::error!(%place, %error, sessions, "the end of the session log is not written");
        }
        if let Some(Err(error)) = self.spool.map(Spool::close) {
            tracing::error!(%error, "the spool of the session log is not on the disk");
        }
        drop(self.store);
        log.writer().has_ended = true;
        log.changed.notify_all();
    }
}
