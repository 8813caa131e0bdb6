//! The session log: who was online, when and for how long.
//!
//! A *session* here is the time for which a user is there, on any of the user's connections. It begins with
//! the first connection and ends with the last one, unless the user comes back within the *gap*: a page
//! that is loaded again, or a server that is restarted, ends no session.
//!
//! ```text
//!   shards ──▶ Trackers (users, in memory) ──▶ writer: a batch each 500 ms ──▶ Store (SQLite or PostgreSQL)
//!                                              │    ▲                          ▲
//!                  while PostgreSQL is away    ▼    │                          │
//!                                              spool                  keeper ──┘ (questions, dead nodes)
//! ```
//!
//! Connections never wait for the database, and none ends because of it. A user that comes and goes between
//! two batches costs one row, however often. While the database fails, open sessions wait in the
//! trackers, which have them anyway, and ended ones wait within a bound.
#![forbid(unsafe_code)]

mod keeper;
mod postgres;
mod questions;
mod settings;
mod spool;
mod sqlite;
mod store;
mod tracker;
mod writer;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keeper::Message;
pub use postgres::PostgresUrl;
pub use questions::{Day, Hour, Reader, Session, Times, Wanted};
pub use settings::{LEASE, Place, Settings, Spooled};
use spool::Spool;
use store::Store;
pub use store::StoreError;
use tokio::sync::watch;
use tracker::{AtEnd, Moment, Tracker};

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
    /// Each user is in one of them, by a hash of the name. A table that grows stops one part of the shards' calls,
    /// and not for long.
    trackers: Box<[Mutex<Tracker>]>,
    hash: RandomState,
    at_end: AtEnd,
    writer: Mutex<WriterState>,
    /// Notified when the writer must write at once, and when it has ended.
    changed: Condvar,
    keeper: SyncSender<Message>,
    /// Whether the log ends, for those that wait for the database.
    ending: watch::Sender<bool>,
    numbers: Numbers,
}

struct WriterState {
    /// For the threads, until they begin.
    parts: Option<(Store, Option<Spool>, Receiver<Message>)>,
    /// When the log ends, whether all is written or not.
    ends_at: Option<Instant>,
    has_ended: bool,
}

/// Trackers of a log.
const TRACKERS: usize = 64;
/// Ended sessions wait in memory within this bound: 300,000 of users with names of 50 bytes.
const ENDED_BYTES_MAX: usize = 32 << 20;
/// Questions that wait. Further ones are refused.
const QUESTIONS: usize = 16;

/// Counts of a session log.
#[derive(Debug, Default)]
struct Numbers {
    /// Sessions that have ended and were written.
    written: AtomicU64,
    /// Rows of batches that were written.
    rows: AtomicU64,
    /// Batches that failed. Each is written again.
    failed: AtomicU64,
    /// Sessions in the spool.
    spooled: AtomicU64,
    spool_bytes: AtomicU64,
    /// Dead nodes whose sessions this one has ended.
    cleaned: AtomicU64,
    /// Times that others took this node for dead.
    fenced: AtomicU64,
}

/// Counts of a session log, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Users that are there, or have left within the gap.
    pub open: u64,
    /// Sessions that have ended and were written since the start.
    pub written: u64,
    /// Sessions that have ended and wait to be written, also those in the spool.
    pub waiting: u64,
    /// Sessions that have ended and were dropped since the start, as the database failed for too long.
    pub dropped: u64,
    /// Rows that were written since the start: sessions that have begun, changed or ended.
    pub rows: u64,
    /// Batches that failed since the start. Each is written again.
    pub failed: u64,
    /// Sessions that have ended and wait in the spool.
    pub spooled: u64,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// Dead servers whose sessions this one has ended since the start.
    pub cleaned: u64,
    /// Times since the start that others took this server for dead.
    pub fenced: u64,
}

/// A question was not taken: too many others wait, or the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl SessionLog {
    /// Opens the database, makes or changes its tables, and reads the sessions that a former run has left
    /// open.
    ///
    /// # Errors
    /// The database cannot be used. The error names the database, the problem and the remedy. That PostgreSQL
    /// cannot be reached is none.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let began = Instant::now();
        let now = moment(began);
        let spool = match (&settings.place, &settings.spool) {
            (Place::Postgres(_), Some(spool)) => Some(Spool::open(spool)?),
            _ => None,
        };
        let (ending, is_ending) = watch::channel(false);
        let store = Store::open(&settings, is_ending, now.unix_ms)?;
        let gap = millis(settings.gap);
        let tracker = || Mutex::new(Tracker::new(gap, ENDED_BYTES_MAX / TRACKERS));
        let trackers = std::iter::repeat_with(tracker).take(TRACKERS).collect();
        let (keeper, messages) = mpsc::sync_channel(QUESTIONS);
        let (left_open, at_end) = (store.left_open()?, store.at_end());
        let parts = Some((store, spool, messages));
        let log = SessionLog {
            settings,
            began,
            trackers,
            hash: RandomState::new(),
            at_end,
            writer: Mutex::new(WriterState { parts, ends_at: None, has_ended: false }),
            changed: Condvar::new(),
            keeper,
            ending,
            numbers: Numbers::default(),
        };
        for left in left_open {
            log.tracker(&left.user).restore(left, now);
        }
        Ok(log)
    }

    /// A connection of `user` has begun.
    pub fn connected(&self, user: &str) {
        let now = moment(self.began);
        self.tracker(user).connected(user, now);
    }

    /// A connection of `user` has ended.
    ///
    /// # Panics
    /// If it was not told of its begin: a fault of the caller.
    pub fn disconnected(&self, user: &str) {
        let now = moment(self.began);
        self.tracker(user).disconnected(user, now);
    }

    /// Writes batches and answers questions until [`begin_end`](Self::begin_end). Blocks: for a thread of its
    /// own.
    ///
    /// A database that fails is tried again.
    ///
    /// # Panics
    /// If it is called twice.
    pub fn run(&self) {
        let parts = self.writer().parts.take();
        let (store, spool, messages) = parts.expect("it is called once");
        thread::scope(|threads| {
            let keeper = thread::Builder::new().name("session-keeper".into());
            let keep = move || keeper::run(self, &messages);
            keeper.spawn_scoped(threads, keep).expect("there is memory for a thread");
            writer::run(self, store, spool);
        });
    }

    /// All users leave, and the writer ends when all is written, or after `span`. Sessions in a file stay open, so
    /// that the next run goes on with those whose users come back within the gap. In PostgreSQL they end, and go on
    /// on any node.
    pub fn begin_end(&self, span: Duration) {
        let now = moment(self.began);
        for tracker in &self.trackers {
            lock(tracker).leave_all(now, self.at_end);
        }
        self.writer().ends_at = Instant::now().checked_add(span);
        self.ending.send_replace(true);
        // A keeper that has too many questions to be told ends with the process.
        _ = self.keeper.try_send(Message::End);
        self.changed.notify_all();
    }

    /// Has a question answered by a thread that may wait for the database. It gets a reader, or the reason why there
    /// is none.
    ///
    /// # Errors
    /// Too many others wait.
    pub fn ask<T: 'static>(
        &self,
        question: impl FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
        answer: impl FnOnce(Result<T, String>) + Send + 'static,
    ) -> Result<(), Busy> {
        let ask: keeper::Question = Box::new(move |reader| {
            let answered = match reader {
                Ok(reader) => question(reader).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let is_good = answered.is_ok();
            answer(answered);
            is_good
        });
        self.keeper
            .try_send(Message::Ask(ask))
            .map_err(|(TrySendError::Full(_) | TrySendError::Disconnected(_))| Busy)
    }

    /// Waits until the writer has ended, for `span` at most. Returns whether it has.
    pub fn wait(&self, span: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.writer(), span, |state| !state.has_ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_ended
    }

    /// The counts.
    pub fn counts(&self) -> Counts {
        let (mut open, mut waiting, mut dropped) = (0, 0, 0);
        for tracker in &self.trackers {
            let tracker = lock(tracker);
            open += tracker.open() as u64;
            waiting += tracker.waiting() as u64;
            dropped += tracker.dropped();
        }
        let numbers = &self.numbers;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let spooled = get(&numbers.spooled);
        Counts {
            open,
            written: get(&numbers.written),
            waiting: waiting + spooled,
            dropped,
            rows: get(&numbers.rows),
            failed: get(&numbers.failed),
            spooled,
            spool_bytes: get(&numbers.spool_bytes),
            cleaned: get(&numbers.cleaned),
            fenced: get(&numbers.fenced),
        }
    }

    /// The tracker of a user.
    fn tracker(&self, user: &str) -> MutexGuard<'_, Tracker> {
        lock(&self.trackers[self.hash.hash_one(user) as usize % TRACKERS])
    }

    fn writer(&self) -> MutexGuard<'_, WriterState> {
        lock(&self.writer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time now: that of the wall, which rows have, and the time since `began`, which never jumps.
fn moment(began: Instant) -> Moment {
    Moment { unix_ms: now(), ms: millis(began.elapsed()) }
}

/// The time now, as questions have it: milliseconds since 1970.
pub fn now() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> u64 {
    // SQLite's numbers have 63 bits.
    span.as_millis().min(i64::MAX as u128) as u64
}
