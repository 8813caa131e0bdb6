//! Questions to a session log: who is online, sessions, time per day, the peak of each hour. They read the
//! database, which a server may write meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, ToSql};

use crate::store::{self, StoreError, unsigned};

/// A database, opened for questions.
pub struct Reader {
    file: PathBuf,
    connection: Connection,
}

/// A session. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The user.
    pub user: String,
    /// When its first connection began.
    pub join_at: u64,
    /// When its last connection ended; `None` while the user is there. A user that comes back within the gap
    /// goes on with the session.
    pub terminate_at: Option<u64>,
    /// Whether the server ended without closing its connections: the end is about then.
    pub died: bool,
}

/// Which sessions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those of this user; `None`: of all.
    pub user: Option<String>,
    /// Those that had not ended at this time, in milliseconds since 1970.
    pub from: u64,
    /// Those that had begun before this time; `None`: all.
    pub to: Option<u64>,
}

/// The time for which a user was there on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// The begin of the day (UTC), in milliseconds since 1970.
    pub begins: u64,
    /// Milliseconds.
    pub online: u64,
}

/// How many users were there at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// The begin of the hour (UTC), in milliseconds since 1970.
    pub begins: u64,
    /// The most users at one time of the hour.
    pub users: u64,
}

/// A server that has not written for so long is not there.
const ALIVE_MS: u64 = 60_000;
const DAY: u64 = 24 * HOUR;
const HOUR: u64 = 60 * 60 * 1000;

/// The sessions of a time, with columns as in [`Session`]. `OF_USER` follows each `WHERE`, so that the index of
/// users is used where one is wanted.
const SESSIONS: &str = "\
    SELECT user_id, join_at, terminate_at, ended FROM murre_session_log \
    WHERE OF_USER AND terminate_at > ?2 AND join_at < ?3 \
    UNION ALL \
    SELECT user_id, join_at, left_at, 0 FROM murre_session_open \
    WHERE OF_USER AND ifnull(left_at, ?3) > ?2 AND join_at < ?3 \
    ORDER BY join_at, user_id";

impl Reader {
    /// Opens the database.
    ///
    /// # Errors
    /// It cannot be read. The error names the file and the problem.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let connection = store::open_to_read(file)?;
        Ok(Reader { file: file.to_owned(), connection })
    }

    /// The sessions of users that have a connection now, in the order of their names. Nobody, if the server
    /// has not written for a minute: it is not there any more.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn online(&self, now: u64, mut each: impl FnMut(Session)) -> Result<(), StoreError> {
        let rows = "SELECT user_id, join_at, NULL, 0 FROM murre_session_open \
                    WHERE left_at IS NULL AND (SELECT seen_at FROM murre_node ORDER BY run DESC LIMIT 1) > ?1 \
                    ORDER BY user_id";
        let there_at = store::signed(now.saturating_sub(ALIVE_MS));
        self.each(rows, &[&there_at], |row| session(row).map(&mut each))
    }

    /// The time until which users that are there count: now, or when the server was there for the last time.
    fn until(&self, now: u64) -> Result<u64, StoreError> {
        let last = "SELECT seen_at FROM murre_node ORDER BY run DESC LIMIT 1";
        let mut seen_at = 0;
        self.each(last, &[], |row| row.get(0).map(|seen| seen_at = unsigned(seen)))?;
        Ok(now.min(seen_at))
    }

    /// The sessions that are wanted, in the order in which they began.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sessions(
        &self,
        Wanted { user, from, to }: &Wanted,
        mut each: impl FnMut(Session),
    ) -> Result<(), StoreError> {
        let (from, to) = (store::signed(*from), to.map_or(i64::MAX, store::signed));
        // A parameter that is not used has no type: the second form uses it, too.
        let of_user = if user.is_some() { "user_id = ?1" } else { "?1 IS NULL" };
        let statement = SESSIONS.replace("OF_USER", of_user);
        self.each(&statement, &[user, &from, &to], |row| session(row).map(&mut each))
    }

    /// For how long the user was there on each day, from the first to the last day on which it was.
    /// A user that is there counts until `now`, or until the server was there for the last time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn days(&self, wanted: &Wanted, now: u64) -> Result<Vec<Day>, StoreError> {
        let mut days = BTreeMap::<u64, u64>::new();
        self.spans(wanted, now, |begin, end| {
            let mut at = begin;
            while at < end {
                let day = at - at % DAY;
                let until = end.min(day + DAY);
                *days.entry(day).or_default() += until - at;
                at = until;
            }
        })?;
        Ok(days.into_iter().map(|(begins, online)| Day { begins, online }).collect())
    }

    /// The most users that were there at once, for each hour in which it changed or somebody was there.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn peaks(&self, wanted: &Wanted, now: u64) -> Result<Vec<Hour>, StoreError> {
        // The ends of the sessions that are open at the time to which the walk has come.
        let mut ends = BinaryHeap::new();
        let mut hours: Vec<Hour> = Vec::new();
        self.spans(wanted, now, |begin, end| {
            end_until(begin, &mut ends, &mut hours);
            ends.push(Reverse(end));
            count(begin, ends.len(), &mut hours);
        })?;
        end_until(u64::MAX, &mut ends, &mut hours);
        Ok(hours)
    }

    /// Calls `each` with the begin and the end of the wanted sessions, as far as they are in the wanted
    /// time.
    fn spans(
        &self,
        wanted: &Wanted,
        now: u64,
        mut each: impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let now = self.until(now)?;
        let to = wanted.to.map_or(now, |to| to.min(now));
        self.sessions(wanted, |session| {
            let begin = session.join_at.max(wanted.from);
            let end = session.terminate_at.unwrap_or(now).min(to);
            if begin < end {
                each(begin, end);
            }
        })
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
        read().map_err(|error: rusqlite::Error| StoreError::new(&self.file, error))
    }

    /// A time as text: `2026-11-30T21:15:00.123Z`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn text(&self, time: u64) -> Result<String, StoreError> {
        let text =
            "SELECT ifnull(strftime('%Y-%m-%dT%H:%M:%fZ', ?1 / 1000.0, 'unixepoch'), 'never')";
        let text = self.connection.query_row(text, [store::signed(time)], |row| row.get(0));
        text.map_err(|error| StoreError::new(&self.file, error))
    }

    /// The time that a text names, in milliseconds since 1970; `None` if it is no time. A date is its
    /// begin; times without a zone are UTC (<https://sqlite.org/lang_datefunc.html>).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn time(&self, text: &str) -> Result<Option<u64>, StoreError> {
        // SQLite takes 2026 as a number of days, and 2026-02-31 as a day in March.
        let time = "SELECT CASE WHEN ?1 GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' \
                    AND date(substr(?1, 1, 10)) = substr(?1, 1, 10) \
                    THEN CAST(round(unixepoch(?1, 'subsec') * 1000) AS INTEGER) END";
        let time = self.connection.query_row(time, [text], |row| row.get::<_, Option<i64>>(0));
        let time = time.map_err(|error| StoreError::new(&self.file, error))?;
        Ok(time.map(unsigned))
    }
}

/// Ends the sessions that end until `time`, and counts the hours that the others go on.
fn end_until(time: u64, ends: &mut BinaryHeap<Reverse<u64>>, hours: &mut Vec<Hour>) {
    loop {
        let end = ends.peek().map_or(time, |Reverse(end)| *end).min(time);
        // Nothing has changed since the last hour that was counted.
        while let Some(last) = hours.last()
            && !ends.is_empty()
            && last.begins + HOUR < end
        {
            count(last.begins + HOUR, ends.len(), hours);
        }
        if ends.peek().is_none_or(|Reverse(first)| *first > time) {
            return;
        }
        ends.pop();
    }
}

/// Counts so many users at a time, which is not before that of the last call.
fn count(time: u64, users: usize, hours: &mut Vec<Hour>) {
    let (begins, users) = (time - time % HOUR, users as u64);
    match hours.last_mut() {
        Some(last) if last.begins == begins => last.users = last.users.max(users),
        _ => hours.push(Hour { begins, users }),
    }
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        user: row.get(0)?,
        join_at: unsigned(row.get(1)?),
        terminate_at: row.get::<_, Option<i64>>(2)?.map(unsigned),
        died: row.get::<_, i64>(3)? != 0,
    })
}
