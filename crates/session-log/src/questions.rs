//! Questions to a session log: who is online, sessions, time per day, the peak of each hour. They read the
//! database, which servers may write meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rusqlite::Connection;

use crate::postgres::PostgresReader;
use crate::settings::Place;
use crate::sqlite::{self, SqliteReader};
use crate::store::StoreError;

/// A database, opened for questions.
pub struct Reader(Database);

enum Database {
    Sqlite(SqliteReader),
    Postgres(Box<PostgresReader>),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A server, which has other things to do.
    Server,
    /// A command.
    Command,
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
    /// Those after this one, by its begin and its user.
    pub after: Option<(u64, String)>,
    /// So many of them at most; `None`: all.
    pub limit: Option<u32>,
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

const DAY: u64 = 24 * HOUR;
const HOUR: u64 = 60 * 60 * 1000;

impl Reader {
    /// Opens the database.
    ///
    /// # Errors
    /// It cannot be read. The error names the database and the problem.
    pub fn open(place: &Place) -> Result<Self, StoreError> {
        Self::open_for(place, Asker::Command)
    }

    pub(crate) fn open_for(place: &Place, asker: Asker) -> Result<Self, StoreError> {
        Ok(Reader(match place {
            Place::File(file) => Database::Sqlite(SqliteReader::open(file)?),
            Place::Postgres(url) => Database::Postgres(Box::new(PostgresReader::open(url, asker)?)),
        }))
    }

    /// The sessions of users that have a connection now, in the order of their names: those of `wanted` by
    /// `user`, `to`, the name in `after`, and `limit`. Nobody of a server that has not written for a minute, or
    /// whose lease is over: it is not there any more.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn online(
        &mut self,
        wanted: &Wanted,
        now: u64,
        mut each: impl FnMut(Session),
    ) -> Result<(), StoreError> {
        match &mut self.0 {
            Database::Sqlite(reader) => reader.online(wanted, now, &mut each),
            Database::Postgres(reader) => reader.online(wanted, &mut each),
        }
    }

    /// The time until which users that are there count: now, or when a server was there for the last time.
    fn until(&mut self, now: u64) -> Result<u64, StoreError> {
        let seen_at = match &mut self.0 {
            Database::Sqlite(reader) => reader.seen_at()?,
            Database::Postgres(reader) => reader.seen_at()?,
        };
        Ok(now.min(seen_at.unwrap_or(now)))
    }

    /// The sessions that are wanted, in the order in which they began.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sessions(
        &mut self,
        wanted: &Wanted,
        mut each: impl FnMut(Session),
    ) -> Result<(), StoreError> {
        match &mut self.0 {
            Database::Sqlite(reader) => reader.sessions(wanted, &mut each),
            Database::Postgres(reader) => reader.sessions(wanted, &mut each),
        }
    }

    /// What this program does for all nodes, if the database is one of several.
    pub(crate) fn care(&mut self, care: &mut crate::postgres::Care) -> Result<u64, StoreError> {
        match &mut self.0 {
            Database::Sqlite(_) => Ok(0),
            Database::Postgres(reader) => reader.care(care),
        }
    }

    /// For how long the user was there on each day, from the first to the last day on which it was.
    /// A user that is there counts until `now`, or until the server was there for the last time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn days(&mut self, wanted: &Wanted, now: u64) -> Result<Vec<Day>, StoreError> {
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
    pub fn peaks(&mut self, wanted: &Wanted, now: u64) -> Result<Vec<Hour>, StoreError> {
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
        &mut self,
        wanted: &Wanted,
        now: u64,
        mut each: impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let now = self.until(now)?;
        let to = wanted.to.unwrap_or(u64::MAX);
        self.sessions(wanted, |session| {
            let begin = session.join_at.max(wanted.from);
            let end = session.terminate_at.unwrap_or(now).min(to);
            if begin < end {
                each(begin, end);
            }
        })
    }
}

/// Reads and writes times as text.
pub struct Times(Connection);

impl Times {
    /// # Errors
    /// There is no memory.
    pub fn new() -> Result<Self, StoreError> {
        // SQLite has the functions.
        Connection::open_in_memory().map(Times).map_err(no_memory)
    }

    /// A time as text: `2026-11-30T21:15:00.123Z`.
    ///
    /// # Errors
    /// There is no memory.
    pub fn text(&self, time: u64) -> Result<String, StoreError> {
        let text =
            "SELECT ifnull(strftime('%Y-%m-%dT%H:%M:%fZ', ?1 / 1000.0, 'unixepoch'), 'never')";
        self.0.query_row(text, [sqlite::signed(time)], |row| row.get(0)).map_err(no_memory)
    }

    /// The time that a text names, in milliseconds since 1970; `None` if it is no time. A date is its
    /// begin; times without a zone are UTC (<https://sqlite.org/lang_datefunc.html>).
    ///
    /// # Errors
    /// There is no memory.
    pub fn time(&self, text: &str) -> Result<Option<u64>, StoreError> {
        // SQLite takes 2026 as a number of days, and 2026-02-31 as a day in March.
        let time = "SELECT CASE WHEN ?1 GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' \
                    AND date(substr(?1, 1, 10)) = substr(?1, 1, 10) \
                    THEN CAST(round(unixepoch(?1, 'subsec') * 1000) AS INTEGER) END";
        let time = self.0.query_row(time, [text], |row| row.get::<_, Option<i64>>(0));
        Ok(time.map_err(no_memory)?.map(sqlite::unsigned))
    }
}

fn no_memory(error: rusqlite::Error) -> StoreError {
    StoreError::new("", error)
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
