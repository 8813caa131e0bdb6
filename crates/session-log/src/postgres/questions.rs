//! Questions to the tables.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::connection::{self, Connection};
use super::url::PostgresUrl;
use super::{Care, ms, tables, time};
use crate::questions::{Asker, Session, Wanted};
use crate::store::{Problem, StoreError};

/// The database, opened for questions.
pub(crate) struct PostgresReader {
    connection: Connection,
    timeout: Duration,
}

/// Of a server: what takes long delays other questions, and the care for dead nodes.
const OPTIONS: &str =
    "SET application_name = 'murre'; SET statement_timeout = '60s'; SET lock_timeout = '2s'";
const TIMEOUT: Duration = Duration::from_secs(70);
/// Of a command, which may take long.
const OPTIONS_ALONE: &str = "SET application_name = 'murre sessions'";
const TIMEOUT_ALONE: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a row is of a user that has a connection. Dead nodes count until others have cleaned after them.
const ONLINE: &str = "\
    SELECT user_id, join_at, NULL::timestamptz, 0::smallint FROM murre_session_open o \
    WHERE ($1::text IS NULL OR user_id = $1 COLLATE \"C\") AND user_id > $2::text COLLATE \"C\" AND join_at < $3::timestamptz \
    AND EXISTS (SELECT FROM jsonb_each_text(o.nodes) n JOIN murre_node m ON m.node = n.key COLLATE \"C\" \
        WHERE n.value <> '0' AND m.dead_at IS NULL AND m.lease_until > now()) \
    ORDER BY user_id LIMIT $4";

/// Of one user, and of all: each has its index.
macro_rules! sessions {
    ($of_user:literal) => {
        concat!(
            "SELECT * FROM (\
             SELECT user_id, join_at, terminate_at, ended FROM murre_session_log WHERE ",
            $of_user,
            " AND terminate_at > $2::timestamptz AND join_at < $3::timestamptz \
             AND (join_at, user_id) > ($4::timestamptz, $5::text COLLATE \"C\") \
             UNION ALL \
             SELECT user_id, join_at, CASE WHEN nodes @? '$.* ? (@ > 0)' THEN NULL ELSE left_at END, 0::smallint \
             FROM murre_session_open WHERE ",
            $of_user,
            " AND (nodes @? '$.* ? (@ > 0)' OR left_at > $2::timestamptz) AND join_at < $3::timestamptz \
             AND (join_at, user_id) > ($4::timestamptz, $5::text COLLATE \"C\")\
             ) sessions ORDER BY join_at, user_id LIMIT $6"
        )
    };
}
const SESSIONS_OF_USER: &str = sessions!("user_id = $1::text COLLATE \"C\"");
const SESSIONS: &str = sessions!("$1::text IS NULL");

impl PostgresReader {
    pub(crate) fn open(url: &PostgresUrl, for_whom: Asker) -> Result<Self, StoreError> {
        let (options, timeout) = match for_whom {
            Asker::Server => (OPTIONS, TIMEOUT),
            Asker::Command => (OPTIONS_ALONE, TIMEOUT_ALONE),
        };
        // Who asks ends with the process.
        let (_, ending) = watch::channel(false);
        let connection = Connection::new(url.clone(), options, ending);
        let connection = connection.map_err(|error| StoreError::new(url, error))?;
        let mut reader = PostgresReader { connection, timeout };
        let check = reader.connection.with(timeout, async |client| tables::version(client).await);
        match check.map_err(|problem| reader.wrong(&problem))? {
            known if known == tables::MIGRATIONS.len() => Ok(reader),
            known => Err(StoreError::new(
                url,
                format!(
                    "its tables have version {known}, this program knows {}: use the program that belongs to the \
                     server, and start the server with this database first",
                    tables::MIGRATIONS.len()
                ),
            )),
        }
    }

    /// The users that have a connection, of those that are wanted.
    pub(crate) fn online(
        &mut self,
        wanted: &Wanted,
        each: &mut dyn FnMut(Session),
    ) -> Result<(), StoreError> {
        let to = time(wanted.to.unwrap_or(u64::MAX));
        let after = wanted.after.as_ref().map_or("", |(_, user)| user);
        self.each(ONLINE, &[&wanted.user, &after, &to, &limit(wanted)], each)
    }

    /// The wanted sessions.
    pub(crate) fn sessions(
        &mut self,
        wanted: &Wanted,
        each: &mut dyn FnMut(Session),
    ) -> Result<(), StoreError> {
        let (from, to) = (time(wanted.from), time(wanted.to.unwrap_or(u64::MAX)));
        let before_all = (0, String::new());
        let (joined, user) = wanted.after.as_ref().unwrap_or(&before_all);
        let statement = if wanted.user.is_some() { SESSIONS_OF_USER } else { SESSIONS };
        let joined = time(*joined);
        self.each(statement, &[&wanted.user, &from, &to, &joined, user, &limit(wanted)], each)
    }

    /// When a node was there for the last time.
    pub(crate) fn seen_at(&mut self) -> Result<Option<u64>, StoreError> {
        let last = "SELECT max(seen_at) FROM murre_node";
        let rows =
            self.connection.with(self.timeout, async |client| Ok(client.query(last, &[]).await?));
        let rows = rows.map_err(|problem| self.wrong(&problem))?;
        Ok(rows[0].get::<_, Option<SystemTime>>(0).map(ms))
    }

    /// Does what is due for all nodes. Returns the number of dead nodes whose sessions were ended.
    pub(crate) fn care(&mut self, care: &mut Care) -> Result<u64, StoreError> {
        care.care(&mut self.connection).map_err(|problem| self.wrong(&problem))
    }

    fn each(
        &mut self,
        statement: &'static str,
        values: &[&(dyn ToSql + Sync)],
        each: &mut dyn FnMut(Session),
    ) -> Result<(), StoreError> {
        let read = self.connection.with(self.timeout, async |client| {
            Ok(client.each(statement, values, |row| session(row).map(&mut *each)).await?)
        });
        read.map_err(|problem| self.wrong(&problem))
    }

    fn wrong(&self, problem: &Problem) -> StoreError {
        StoreError::new(self.connection.url(), connection::text(problem))
    }
}

fn limit(wanted: &Wanted) -> i64 {
    wanted.limit.map_or(i64::MAX, i64::from)
}

fn session(row: &Row) -> Result<Session, Error> {
    Ok(Session {
        user: row.try_get(0)?,
        join_at: ms(row.try_get(1)?),
        terminate_at: row.try_get::<_, Option<SystemTime>>(2)?.map(ms),
        died: row.try_get::<_, i16>(3)? == 1,
    })
}
