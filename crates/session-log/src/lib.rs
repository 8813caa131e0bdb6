//! The session log: who was online, when and for how long.
//!
//! A *session* here is the time for which a user is there, on any of the user's connections. It begins with
//! the first connection and ends with the last one, unless the user comes back within the *gap*: a page
//! that is loaded again, or a server that is restarted, ends no session.
//!
//! ```text
//!   shards ──▶ Tracker (users, in memory) ──▶ writer: a batch each 500 ms ──▶ Store (SQLite)
//!                                                                              ▲
//!                                                        Reader (questions) ───┘
//! ```
//!
//! Connections never wait for the database, and none ends because of it. A user that comes and goes between
//! two batches costs one row, however often. While the database fails, open sessions wait in the
//! tracker, which has them anyway, and ended ones wait within a bound.
#![forbid(unsafe_code)]

mod questions;
mod store;
mod tracker;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use questions::{Day, Hour, Reader, Session, Wanted};
use store::Store;
pub use store::StoreError;
use tracker::{Moment, Tracker};

/// The settings of a session log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file of the database. A second file, with `-lock` after its name, keeps other servers out.
    pub file: PathBuf,
    /// A user that comes back within this time after the last connection has not left.
    pub gap: Duration,
    /// Ended sessions are deleted this long after their end; `None` keeps them for ever.
    pub retention: Option<Duration>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last connection of the user ended.
    Left,
    /// The server ended without closing its connections: the session lasted until about then.
    ServerDied,
}

/// A session log in use. Any thread may call it.
pub struct SessionLog {
    settings: Settings,
    /// The zero of the clock that does not jump.
    began: Instant,
    tracker: Mutex<Tracker>,
    writer: Mutex<WriterState>,
    /// Notified when the writer must write at once, and when it has ended.
    changed: Condvar,
    numbers: Numbers,
}

#[derive(Debug, Default)]
struct WriterState {
    store: Option<Store>,
    /// When the log ends, whether all is written or not.
    ends_at: Option<Instant>,
    has_ended: bool,
}

/// Counts of a session log.
#[derive(Debug, Default)]
struct Numbers {
    /// Sessions that have ended and were written.
    written: AtomicU64,
    /// Batches that failed. Each is written again.
    failed: AtomicU64,
}

/// Counts of a session log, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Users that are there, or have left within the gap.
    pub open: u64,
    /// Sessions that have ended and were written since the start.
    pub written: u64,
    /// Sessions that have ended and wait to be written.
    pub waiting: u64,
    /// Sessions that have ended and were dropped since the start, as the database failed for too long.
    pub dropped: u64,
    /// Batches that failed since the start. Each is written again.
    pub failed: u64,
}

impl SessionLog {
    /// Opens the database, makes or changes its tables, and reads the sessions that a former run has left
    /// open.
    ///
    /// # Errors
    /// The database cannot be used. The error names the file, the problem and the remedy.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let began = Instant::now();
        let now = moment(began);
        let store = Store::open(&settings.file, now.unix_ms)?;
        let mut tracker = Tracker::new(millis(settings.gap));
        for left in store.left_open()? {
            tracker.restore(left, now);
        }
        Ok(SessionLog {
            settings,
            began,
            tracker: Mutex::new(tracker),
            writer: Mutex::new(WriterState { store: Some(store), ..WriterState::default() }),
            changed: Condvar::new(),
            numbers: Numbers::default(),
        })
    }

    /// A connection of `user` has begun.
    pub fn connected(&self, user: &str) {
        let now = moment(self.began);
        self.tracker().connected(user, now);
    }

    /// A connection of `user` has ended.
    ///
    /// # Panics
    /// If it was not told of its begin: a fault of the caller.
    pub fn disconnected(&self, user: &str) {
        let now = moment(self.began);
        self.tracker().disconnected(user, now);
    }

    /// Writes batches until [`begin_end`](Self::begin_end). Blocks: for a thread of its own.
    ///
    /// A database that fails is tried again.
    ///
    /// # Panics
    /// If it is called twice.
    pub fn run(&self) {
        writer::run(self);
    }

    /// All users leave, and the writer ends when all is written, or after `span`. Sessions stay open in the
    /// database, so that the next run goes on with those whose users come back within the gap.
    pub fn begin_end(&self, span: Duration) {
        self.tracker().leave_all(moment(self.began));
        self.writer().ends_at = Instant::now().checked_add(span);
        self.changed.notify_all();
    }

    /// Waits until the writer has ended, for `span` at most. Returns whether it has.
    pub fn wait(&self, span: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.writer(), span, |state| !state.has_ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_ended
    }

    /// The counts.
    pub fn counts(&self) -> Counts {
        let (open, waiting, dropped) = {
            let tracker = self.tracker();
            (tracker.open() as u64, tracker.waiting() as u64, tracker.dropped())
        };
        let Numbers { written, failed } = &self.numbers;
        let [written, failed] = [written, failed].map(|count| count.load(Ordering::Relaxed));
        Counts { open, written, waiting, dropped, failed }
    }

    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, WriterState> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time now: that of the wall, which rows have, and the time since `began`, which never jumps.
fn moment(began: Instant) -> Moment {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Moment { unix_ms: millis(wall.unwrap_or_default()), ms: millis(began.elapsed()) }
}

fn millis(span: Duration) -> u64 {
    // SQLite's numbers have 63 bits.
    span.as_millis().min(i64::MAX as u128) as u64
}
