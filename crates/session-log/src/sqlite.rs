//! SQLite: a database in one file, which one server writes.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, Row, ToSql, Transaction, TransactionBehavior, params,
};

use crate::questions::{Session, Wanted};
use crate::store::{self, StoreError};
use crate::tracker::{Batch, Ended, LeftOpen, Open};

/// The database, opened by the one server that writes it.
#[derive(Debug)]
pub(crate) struct Store {
    file: PathBuf,
    connection: Connection,
    /// The number of this run of a server.
    run: i64,
    /// The number of the last batch of this run that was written.
    applied: i64,
    /// Whether open sessions that no batch has had are forgotten with the next batch that has the rest.
    is_forgetting: bool,
    /// Locked as long as this exists.
    _lock: File,
}

/// The steps from an empty database to the present tables, by version. A step that has been released is
/// never changed.
const MIGRATIONS: &[&str] = &["
    -- Runs of servers. `seen_at` is the time of the last batch or beat; with `ended_at` the run has ended in order.
    CREATE TABLE murre_node (
        run INTEGER PRIMARY KEY, started_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
        applied INTEGER NOT NULL DEFAULT 0, ended_at INTEGER) STRICT;
    -- Users that are there, or have left within the gap (`left_at`). Times are milliseconds since 1970.
    -- `ended` as below, of users that have left.
    CREATE TABLE murre_session_open (
        user_id TEXT PRIMARY KEY, join_at INTEGER NOT NULL, left_at INTEGER, ended INTEGER NOT NULL DEFAULT 0)
        STRICT, WITHOUT ROWID;
    -- Sessions that have ended. `ended`: 0 the user has left, 1 the server died.
    CREATE TABLE murre_session_log (
        user_id TEXT NOT NULL, join_at INTEGER NOT NULL, terminate_at INTEGER NOT NULL, ended INTEGER NOT NULL)
        STRICT;
    CREATE INDEX murre_session_log_user ON murre_session_log (user_id, terminate_at);
    CREATE INDEX murre_session_log_time ON murre_session_log (terminate_at);
    CREATE VIEW watching_times AS
        SELECT user_id, join_at, left_at AS terminate_at FROM murre_session_open
        UNION ALL SELECT user_id, join_at, terminate_at FROM murre_session_log;
", "
    -- Pages of sessions, in the order in which they began.
    CREATE INDEX murre_session_log_join ON murre_session_log (join_at, user_id);
"];

/// A reader of the same file, such as `murre sessions`, is waited for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the write-ahead log that stay when it is not needed.
const JOURNAL_BYTES: i64 = 64 << 20;
const OTHER_FILE: &str =
    "it is not a session log: name the file of one, or one that does not exist";
/// Runs that are kept.
const RUNS_KEPT: i64 = 1000;

impl Store {
    /// Opens the database of a server, makes or changes its tables, and begins a run.
    pub(crate) fn open(file: &Path, now_ms: u64) -> Result<Self, StoreError> {
        let wrong = |problem: &dyn std::fmt::Display| StoreError::new(file.display(), problem);
        let lock = lock(file)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(file, flags).map_err(|error| {
            wrong(&format!(
                "{error}; its folder must exist, and the server must be able to write in it"
            ))
        })?;
        let run = begin(&mut connection, now_ms).map_err(|error| match error {
            BeginError::Newer(version) => wrong(&format!(
                "its tables have version {version}, this server knows {}: use a newer server, or another file",
                MIGRATIONS.len()
            )),
            BeginError::Foreign => wrong(&OTHER_FILE),
            BeginError::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                wrong(&format!("{error}: {OTHER_FILE}"))
            }
            BeginError::Sql(error) => wrong(&error),
        })?;
        Ok(Store {
            file: file.to_owned(),
            connection,
            run,
            applied: 0,
            is_forgetting: false,
            _lock: lock,
        })
    }

    /// The sessions that former runs have left open.
    pub(crate) fn left_open(&self) -> Result<Vec<LeftOpen>, StoreError> {
        self.query_left_open().map_err(|error| StoreError::new(self.file.display(), error))
    }

    fn query_left_open(&self) -> rusqlite::Result<Vec<LeftOpen>> {
        let rows = "SELECT user_id, join_at, left_at, ended FROM murre_session_open";
        let mut rows = self.connection.prepare(rows)?;
        let left = rows.query_map([], |row| {
            Ok(LeftOpen {
                user: Arc::from(row.get::<_, String>(0)?),
                join_at: unsigned(row.get(1)?),
                left_at: unsigned(row.get(2)?),
                died: row.get::<_, i64>(3)? != 0,
            })
        })?;
        left.collect()
    }

    /// Writes a batch as one transaction, or nothing of it.
    pub(crate) fn write(
        &mut self,
        number: i64,
        batch: &Batch,
        now_ms: u64,
    ) -> rusqlite::Result<()> {
        if number <= self.applied {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        // A batch whose commit failed may have been written after all.
        let update =
            "UPDATE murre_node SET applied = ?2, seen_at = ?3 WHERE run = ?1 AND applied < ?2";
        let is_new =
            transaction.prepare(update)?.execute(params![self.run, number, signed(now_ms)])? == 1;
        let is_forgetting = self.is_forgetting || batch.forget_open;
        if is_new {
            put(&transaction, batch, is_forgetting)?;
            transaction.commit()?;
        }
        self.applied = number;
        self.is_forgetting = is_forgetting && !batch.is_rest;
        Ok(())
    }

    /// Notes that the server is there.
    pub(crate) fn beat(&self, now_ms: u64) -> rusqlite::Result<()> {
        let update = "UPDATE murre_node SET seen_at = ?2 WHERE run = ?1";
        self.connection.prepare(update)?.execute(params![self.run, signed(now_ms)])?;
        Ok(())
    }

    /// Deletes sessions that ended before this time, at most `rows` of them. Returns their number.
    pub(crate) fn trim(&self, before_ms: u64, rows: usize) -> rusqlite::Result<usize> {
        let delete = "DELETE FROM murre_session_log WHERE rowid IN \
                      (SELECT rowid FROM murre_session_log WHERE terminate_at < ?1 ORDER BY terminate_at LIMIT ?2)";
        self.connection.prepare(delete)?.execute(params![signed(before_ms), rows as i64])
    }

    /// Notes that the run ends in order: users whose rows are not written any more have left then.
    pub(crate) fn end(&self, now_ms: u64) -> rusqlite::Result<()> {
        let update = "UPDATE murre_node SET seen_at = ?2, ended_at = ?2 WHERE run = ?1";
        self.connection.execute(update, params![self.run, signed(now_ms)])?;
        Ok(())
    }
}

/// Locks the file beside the database, so that two servers cannot write the same log.
fn lock(file: &Path) -> Result<File, StoreError> {
    // Through links, so that two names of one file have one lock.
    let mut name = file.canonicalize().unwrap_or_else(|_| file.to_owned()).into_os_string();
    name.push("-lock");
    let locked = OpenOptions::new().create(true).append(true).open(&name);
    let problem = match locked.map(|locked| (store::lock(&locked), locked)) {
        Ok((Ok(()), locked)) => return Ok(locked),
        Ok((Err(TryLockError::WouldBlock), _)) => {
            "another server writes it: give each server a file of its own".to_owned()
        }
        Ok((Err(TryLockError::Error(error)), _)) | Err(error) => {
            let name = name.display();
            format!(
                "cannot lock {name}: {error}; its folder must exist, and the server must be able to write in it"
            )
        }
    };
    Err(StoreError::new(file.display(), problem))
}

enum BeginError {
    /// The tables are of another program.
    Foreign,
    /// The tables are of this version, which a newer server made.
    Newer(i64),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for BeginError {
    fn from(error: rusqlite::Error) -> Self {
        BeginError::Sql(error)
    }
}

/// Makes or changes the tables, and begins a run, of which it returns the number.
fn begin(connection: &mut Connection, now_ms: u64) -> Result<i64, BeginError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let is_ours = "SELECT count(*) = 0 OR (SELECT user_version > 0 FROM pragma_user_version) \
                   AND EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'murre_session_log') FROM sqlite_schema";
    if !connection.query_row(is_ours, [], |row| row.get(0))? {
        return Err(BeginError::Foreign);
    }
    // Readers do not wait for the writer. After a power loss the newest transactions may be missing, the
    // database is whole (https://sqlite.org/pragma.html#pragma_synchronous).
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    // What a reader with a long transaction has kept in the file of the log is given back.
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let Ok(known) = usize::try_from(version) else { return Err(BeginError::Newer(version)) };
    let Some(missing) = MIGRATIONS.get(known..) else { return Err(BeginError::Newer(version)) };
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    // Users that the last run has not seen leave have left when it was there for the last time.
    transaction.execute(
        "UPDATE murre_session_open SET left_at = max(join_at, last.seen_at), ended = last.ended_at IS NULL \
         FROM (SELECT seen_at, ended_at FROM murre_node ORDER BY run DESC LIMIT 1) AS last \
         WHERE left_at IS NULL",
        [],
    )?;
    let insert = "INSERT INTO murre_node (started_at, seen_at) VALUES (?1, ?1)";
    transaction.execute(insert, [signed(now_ms)])?;
    let run = transaction.last_insert_rowid();
    transaction.execute("DELETE FROM murre_node WHERE run <= ?1", [run - RUNS_KEPT])?;
    transaction.commit()?;
    Ok(run)
}

/// A database, opened for questions, which wait for no server and change nothing.
pub(crate) struct SqliteReader {
    file: PathBuf,
    connection: Connection,
}

/// A server that has not written for so long is not there.
const ALIVE_MS: u64 = 60_000;

/// The sessions of a time, with columns as in [`Session`]. `OF_USER` follows each `WHERE`, so that the index of
/// users is used where one is wanted.
const SESSIONS: &str = "\
    SELECT user_id, join_at, terminate_at, ended FROM murre_session_log \
    WHERE OF_USER AND terminate_at > ?2 AND join_at < ?3 AND (join_at, user_id) > (?4, ?5) \
    UNION ALL \
    SELECT user_id, join_at, left_at, 0 FROM murre_session_open \
    WHERE OF_USER AND ifnull(left_at, ?3) > ?2 AND join_at < ?3 AND (join_at, user_id) > (?4, ?5) \
    ORDER BY join_at, user_id LIMIT ?6";

impl SqliteReader {
    pub(crate) fn open(file: &Path) -> Result<Self, StoreError> {
        let connection = open_to_read(file)?;
        Ok(SqliteReader { file: file.to_owned(), connection })
    }

    /// The users that have a connection, of those that are wanted.
    pub(crate) fn online(
        &self,
        wanted: &Wanted,
        now: u64,
        each: &mut dyn FnMut(Session),
    ) -> Result<(), StoreError> {
        let rows = "SELECT user_id, join_at, NULL, 0 FROM murre_session_open \
                    WHERE left_at IS NULL AND (SELECT seen_at FROM murre_node ORDER BY run DESC LIMIT 1) > ?1 \
                    AND (?2 IS NULL OR user_id = ?2) AND join_at < ?3 AND user_id > ?4 ORDER BY user_id LIMIT ?5";
        let there_at = signed(now.saturating_sub(ALIVE_MS));
        let to = wanted.to.map_or(i64::MAX, signed);
        let after = wanted.after.as_ref().map_or("", |(_, user)| user);
        let values: [&dyn ToSql; _] = [&there_at, &wanted.user, &to, &after, &limit(wanted)];
        self.each(rows, &values, |row| session(row).map(&mut *each))
    }

    /// The wanted sessions.
    pub(crate) fn sessions(
        &self,
        wanted: &Wanted,
        each: &mut dyn FnMut(Session),
    ) -> Result<(), StoreError> {
        let Wanted { user, from, to, after, .. } = wanted;
        let (from, to) = (signed(*from), to.map_or(i64::MAX, signed));
        let (joined, name) = after.as_ref().map_or((-1, ""), |(at, name)| (signed(*at), name));
        // A parameter that is not used has no type: the second form uses it, too.
        let of_user = if user.is_some() { "user_id = ?1" } else { "?1 IS NULL" };
        let statement = SESSIONS.replace("OF_USER", of_user);
        let values: [&dyn ToSql; _] = [user, &from, &to, &joined, &name, &limit(wanted)];
        self.each(&statement, &values, |row| session(row).map(&mut *each))
    }

    /// When the server was there for the last time.
    pub(crate) fn seen_at(&self) -> Result<Option<u64>, StoreError> {
        let last = "SELECT seen_at FROM murre_node ORDER BY run DESC LIMIT 1";
        let mut seen_at = None;
        self.each(last, &[], |row| row.get(0).map(|seen| seen_at = Some(unsigned(seen))))?;
        Ok(seen_at)
    }

    fn each(
        &self,
        statement: &str,
        values: &[&dyn ToSql],
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let mut read = || {
            let mut statement = self.connection.prepare(statement)?;
            let mut rows = statement.query(values)?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        };
        read().map_err(|error: rusqlite::Error| StoreError::new(self.file.display(), error))
    }
}

fn limit(wanted: &Wanted) -> i64 {
    wanted.limit.map_or(i64::MAX, i64::from)
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        user: row.get(0)?,
        join_at: unsigned(row.get(1)?),
        terminate_at: row.get::<_, Option<i64>>(2)?.map(unsigned),
        died: row.get::<_, i64>(3)? != 0,
    })
}

/// Opens a database for questions.
fn open_to_read(file: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((connection, version))
    };
    let wrong = |error: rusqlite::Error| StoreError::new(file.display(), error);
    let (connection, version) = open().map_err(wrong)?;
    match version as usize == MIGRATIONS.len() {
        true => Ok(connection),
        false => Err(StoreError::new(
            file.display(),
            format!(
                "its tables have version {version}, this program knows {}: use the program that belongs to \
                 the server, and start the server with this file first",
                MIGRATIONS.len()
            ),
        )),
    }
}

/// The statements of a batch.
fn put(transaction: &Transaction<'_>, batch: &Batch, is_forgetting: bool) -> rusqlite::Result<()> {
    if batch.forget_open {
        // The users that are there. A kill before the last of them leaves the others open, for the next run.
        transaction.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS sent (user_id TEXT PRIMARY KEY) WITHOUT ROWID; DELETE FROM sent",
        )?;
    }
    let mut close = transaction.prepare("DELETE FROM murre_session_open WHERE user_id = ?1")?;
    let mut log = transaction.prepare("INSERT INTO murre_session_log VALUES (?1, ?2, ?3, ?4)")?;
    for Ended { user, join_at, terminate_at, how } in &batch.ended {
        close.execute([user])?;
        log.execute(params![user, signed(*join_at), signed(*terminate_at), *how as i64])?;
    }
    let mut open = transaction.prepare(
        "INSERT INTO murre_session_open (user_id, join_at, left_at) VALUES (?1, ?2, ?3) \
         ON CONFLICT (user_id) DO UPDATE SET join_at = ?2, left_at = ?3, ended = 0",
    )?;
    for Open { user, join_at, left_at, .. } in &batch.open {
        open.execute(params![user, signed(*join_at), left_at.map(signed)])?;
        if is_forgetting {
            transaction.execute("INSERT OR IGNORE INTO sent VALUES (?1)", [user])?;
        }
    }
    if is_forgetting && batch.is_rest {
        let others =
            "DELETE FROM murre_session_open WHERE user_id NOT IN (SELECT user_id FROM sent)";
        transaction.execute(others, [])?;
        transaction.execute("DELETE FROM sent", [])?;
    }
    Ok(())
}

/// A time as SQLite has it.
pub(crate) fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// A time of the database. It has none before 1970.
pub(crate) fn unsigned(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}
