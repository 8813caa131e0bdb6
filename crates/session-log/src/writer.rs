//! The thread that writes what has changed.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::store::Store;
use crate::tracker::Batch;
use crate::{SessionLog, millis, moment};

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
/// Calls of [`Tracker::tend`](crate::tracker::Tracker::tend) between two batches at most.
const TENDED: usize = 100;
/// After a failure the pause grows up to this.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Writes until the log ends.
pub(crate) fn run(log: &SessionLog) {
    let store = log.writer().store.take().expect("one thread writes");
    let now = Instant::now();
    let mut writer =
        Writer { log, store, number: 1, unwritten: None, pause: None, beat_at: now, trim_at: now };
    loop {
        // What the last connections have changed is written before the end.
        let ends_at = writer.wait();
        let now = Instant::now();
        if ends_at.is_some() || writer.pause.is_none_or(|(until, _)| now >= until) {
            writer.write_all();
        } else {
            writer.tend();
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
    /// Of the next batch.
    number: i64,
    /// The batch that failed. It is written again as it is: its transaction may have been written after all.
    unwritten: Option<Batch>,
    /// After a failure: until when nothing is written, and the length of this pause.
    pause: Option<(Instant, Duration)>,
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
        let file = self.log.settings.file.display();
        match (&error, self.pause) {
            (None, Some(_)) => tracing::info!(%file, "the session log is written again"),
            (Some(error), None) => tracing::error!(
                %file, %error, "the session log cannot be written: it is tried again, connections stay"
            ),
            _ => {}
        }
        self.log.numbers.failed.fetch_add(u64::from(error.is_some()), Ordering::Relaxed);
        self.pause = error.map(|_| {
            let span = self.pause.map_or(INTERVAL, |(_, span)| (span * 2).min(PAUSE_MAX));
            (Instant::now() + span, span)
        });
    }

    fn write_changes(&mut self) -> rusqlite::Result<()> {
        loop {
            let now = moment(self.log.began);
            let batch = match self.unwritten.take() {
                Some(batch) => batch,
                None => self.log.tracker().take(ROWS, now),
            };
            let (rows, ended) = (batch.rows(), batch.ended.len() as u64);
            if rows > 0 || batch.forget_open {
                if let Err(error) = self.store.write(self.number, &batch, now.unix_ms) {
                    self.unwritten = Some(batch);
                    return Err(error);
                }
                self.number += 1;
                self.beat_at = Instant::now() + BEAT;
                self.log.numbers.written.fetch_add(ended, Ordering::Relaxed);
            }
            // The rest of less than a batch waits for others.
            if rows < ROWS && !self.tend() {
                return self.care(now.unix_ms);
            }
        }
    }

    /// Ends sessions whose gaps are over, also while nothing can be written. Returns whether some are left.
    fn tend(&self) -> bool {
        // Shards get the lock in between.
        let is_more = || self.log.tracker().tend(ROWS, moment(self.log.began));
        (0..TENDED).all(|_| is_more())
    }

    /// What is due without changes: the beat, and the retention.
    fn care(&mut self, now_ms: u64) -> rusqlite::Result<()> {
        let now = Instant::now();
        if now >= self.beat_at {
            self.store.beat(now_ms)?;
            self.beat_at = now + BEAT;
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

    /// Ends the run in the database, closes it, and tells the thread that waits for the end.
    fn end(self) {
        let Writer { log, store, unwritten, .. } = self;
        let sessions = log.tracker().waiting() + unwritten.map_or(0, |batch| batch.ended.len());
        if let Err(error) = store.end(moment(log.began).unix_ms) {
            let file = log.settings.file.display();
            tracing::error!(%file, %error, sessions, "the end of the session log is not written");
        }
        drop(store);
        log.writer().has_ended = true;
        log.changed.notify_all();
    }
}
