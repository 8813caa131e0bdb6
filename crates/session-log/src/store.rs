//! The database of the log: a file of SQLite, or PostgreSQL.

use std::fmt;
use std::fs::{File, TryLockError};
use std::thread;
use std::time::Duration;

use crate::postgres::{self, Postgres};
use crate::settings::{Place, Settings};
use crate::sqlite;
use crate::tracker::{AtEnd, Batch, LeftOpen};

/// Why the database cannot be used. The text names the database, the problem and, where there is one, the
/// remedy.
#[derive(Debug)]
pub struct StoreError {
    place: String,
    problem: String,
}

impl StoreError {
    pub(crate) fn new(place: impl fmt::Display, problem: impl fmt::Display) -> Self {
        StoreError { place: place.to_string(), problem: problem.to_string() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session log {}: {}", self.place, self.problem)
    }
}

impl std::error::Error for StoreError {}

/// Locks a file for this process. One that was just killed may still be ending, and a program that another thread of
/// this process starts has the file until it runs: those are waited for.
pub(crate) fn lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            locked => return locked,
        }
    }
    file.try_lock()
}

const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What has become of a batch or a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Written {
    /// The database has it.
    Done,
    /// Nothing of it was written: other nodes took this one for dead, and have ended its sessions. It is there
    /// again under a new id, and must send all sessions anew.
    Fenced,
}

/// Why a batch was not written.
pub(crate) type Problem = Box<dyn std::error::Error + Send + Sync>;

/// A database, opened by a server that writes it.
pub(crate) enum Store {
    Sqlite(sqlite::Store),
    Postgres(Box<Postgres>),
}

impl Store {
    /// Opens the database, makes or changes its tables, and begins a run.
    pub(crate) fn open(
        settings: &Settings,
        ending: postgres::Ending,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        match &settings.place {
            Place::File(file) => sqlite::Store::open(file, now_ms).map(Store::Sqlite),
            Place::Postgres(url) => {
                let node = postgres::Node { name: settings.node.clone(), lease: settings.lease };
                let opened = Postgres::open(url, node, settings.gap, ending, now_ms);
                opened.map(|store| Store::Postgres(Box::new(store)))
            }
        }
    }

    /// The sessions that former runs of this server have left open. Those in PostgreSQL are ended by any node.
    pub(crate) fn left_open(&self) -> Result<Vec<LeftOpen>, StoreError> {
        match self {
            Store::Sqlite(store) => store.left_open(),
            Store::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// What becomes of the open sessions at the end of this server: those in a file are for its next run.
    pub(crate) fn at_end(&self) -> AtEnd {
        match self {
            Store::Sqlite(_) => AtEnd::StayOpen,
            Store::Postgres(_) => AtEnd::End,
        }
    }

    /// Whether a batch that failed is written again as it is, under its number. Otherwise its sessions may be
    /// part of other batches: one that was written after all changes nothing when it is written again.
    pub(crate) fn repeats_batches(&self) -> bool {
        matches!(self, Store::Sqlite(_))
    }

    /// Writes a batch as one transaction, or nothing of it. Numbers go up.
    pub(crate) fn write(
        &mut self,
        number: i64,
        batch: &Batch,
        now_ms: u64,
    ) -> Result<Written, Problem> {
        match self {
            Store::Sqlite(store) => store.write(number, batch, now_ms)?,
            Store::Postgres(store) => return store.write(number, batch, now_ms),
        }
        Ok(Written::Done)
    }

    /// Notes that the server is there.
    pub(crate) fn beat(&mut self, now_ms: u64) -> Result<Written, Problem> {
        match self {
            Store::Sqlite(store) => store.beat(now_ms)?,
            Store::Postgres(store) => return store.beat(now_ms),
        }
        Ok(Written::Done)
    }

    /// Deletes sessions that ended before this time, at most `rows` of them. Returns their number. From
    /// PostgreSQL other connections delete whole days.
    pub(crate) fn trim(&self, before_ms: u64, rows: usize) -> Result<usize, Problem> {
        match self {
            Store::Sqlite(store) => Ok(store.trim(before_ms, rows)?),
            Store::Postgres(_) => Ok(0),
        }
    }

    /// Notes that the run ends in order, and whether all was written.
    pub(crate) fn end(&mut self, now_ms: u64, is_all_written: bool) -> Result<(), Problem> {
        match self {
            Store::Sqlite(store) => Ok(store.end(now_ms)?),
            Store::Postgres(store) => store.end(is_all_written),
        }
    }
}
