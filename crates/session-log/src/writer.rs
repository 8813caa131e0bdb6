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
/// Without an error, the time between two looks for sessions that are older than the retention.
const TRIM: Duration = Duration::from_secs(60);
/// Sessions that are deleted at once.
const TRIMMED: usize = 5000;
/// After a failure the pause grows up to this.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Writes until the log ends.
pub(crate) fn run(log: &SessionLog) {
    let store = log.writer().store.take().expect("one thread writes");
    let mut writer = Writer {
        log,
        store,
        number: 1,
        pause: INTERVAL,
        beat_at: Instant::now(),
        trim_at: Instant::now(),
        is_failing: false,
    };
    loop {
        // What the last connections have changed is written before the end.
        let is_ending = writer.wait();
        writer.write_all();
        if is_ending {
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
    pause: Duration,
    beat_at: Instant,
    trim_at: Instant,
    is_failing: bool,
}

impl Writer<'_> {
    /// Waits until it is time to write. Returns whether the log ends.
    fn wait(&self) -> bool {
        let state = self.log.writer();
        let waited =
            self.log.changed.wait_timeout_while(state, self.pause, |state| !state.is_ending);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ending
    }

    /// Writes all that has changed, and what is due beside it. Returns whether that worked.
    fn write_all(&mut self) -> bool {
        let error = self.write_changes().err();
        let file = self.log.settings.file.display();
        match &error {
            None if self.is_failing => tracing::info!(%file, "the session log is written again"),
            Some(error) if !self.is_failing => tracing::error!(
                %file, %error, "the session log cannot be written: it is tried again, connections stay"
            ),
            _ => {}
        }
        self.is_failing = error.is_some();
        self.pause = if self.is_failing { (self.pause * 2).min(PAUSE_MAX) } else { INTERVAL };
        self.log.numbers.failed.fetch_add(u64::from(self.is_failing), Ordering::Relaxed);
        !self.is_failing
    }

    fn write_changes(&mut self) -> rusqlite::Result<()> {
        loop {
            let now = moment(self.log.began);
            let batch = self.log.tracker().take(ROWS, now);
            if batch.is_empty() {
                return self.care(now.unix_ms);
            }
            if let Err(error) = self.store.write(self.number, &batch, now.unix_ms) {
                self.take_back(batch);
                return Err(error);
            }
            self.number += 1;
            self.beat_at = Instant::now() + BEAT;
            self.log.numbers.written.fetch_add(batch.ended.len() as u64, Ordering::Relaxed);
        }
    }

    fn take_back(&mut self, batch: Batch) {
        let dropped = self.log.tracker().take_back(batch) as u64;
        if dropped > 0 {
            self.log.numbers.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
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
        let Writer { log, store, .. } = self;
        let sessions = log.tracker().waiting();
        if let Err(error) = store.end(moment(log.began).unix_ms) {
            let file = log.settings.file.display();
            tracing::error!(%file, %error, sessions, "the end of the session log is not written");
        }
        drop(store);
        log.writer().has_ended = true;
        log.changed.notify_all();
    }
}
