//! PostgreSQL: one database for all nodes of a cluster.
//!
//! A user has one row in `murre_session_open`, with the connections on each node, and each node changes only what
//! it has there itself. So the nodes need not know of each other, and a batch that is written twice changes
//! nothing. A session goes on in the database as it does in the tracker: one that begins within the gap after a
//! session in the log goes on with that, whichever nodes they were on (`flush.rs`).

mod connection;
mod flush;
mod nodes;
mod questions;
mod tables;
mod tls;
mod url;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::connection::Connection;
pub(crate) use self::connection::Ending;
pub(crate) use self::nodes::Care;
pub(crate) use self::questions::PostgresReader;
pub use self::url::PostgresUrl;
use crate::store::{Problem, StoreError, Written};
use crate::tracker::Batch;

/// The name and the lease of a server.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Without a word for so long it is taken for dead.
    pub(crate) lease: Duration,
}

/// The database, for the server that writes it.
pub(crate) struct Postgres {
    connection: Connection,
    node: Node,
    gap: Duration,
    /// The id of this server in the tables, if it has one.
    id: Option<String>,
}

/// A batch or a beat without an answer for so long has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A clock that is apart from the database's by more is worth a warning.
const CLOCKS_APART_MS: u64 = 5000;

/// The rows of a batch are few beside those of the tables. A plan that was made while the tables were empty would
/// read all of them.
const OPTIONS: &str = "SET application_name = 'murre'; SET enable_seqscan = off; SET enable_hashjoin = off; \
                       SET enable_mergejoin = off";

impl Postgres {
    /// Connects, makes or changes the tables, and registers the node. A database that is away is no error: it is
    /// tried again with the first batch.
    pub(crate) fn open(
        url: &PostgresUrl,
        node: Node,
        gap: Duration,
        ending: Ending,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        let wrong = |problem: &Problem| StoreError::new(url, connection::text(problem));
        let connection = Connection::new(url.clone(), OPTIONS, ending);
        let connection = connection.map_err(|error| StoreError::new(url, error))?;
        let mut postgres = Postgres { connection, node, gap, id: None };
        match postgres.register(now_ms) {
            Err(problem) if connection::is_away(&problem) => {
                tracing::error!(
                    database = %url, error = connection::text(&problem),
                    "the session log cannot be written: it is tried again, connections stay"
                );
            }
            registered => registered.map_err(|problem| wrong(&problem))?,
        }
        Ok(postgres)
    }

    /// Makes this node one of the tables, under a new id.
    fn register(&mut self, now_ms: u64) -> Result<(), Problem> {
        let node = &self.node;
        let (id, clock_ms) = self
            .connection
            .with(TIMEOUT, async |client| {
                tables::migrate(client).await?;
                nodes::register(client, node).await
            })
            .map_err(tables::with_remedy)?;
        let apart_ms = ms(clock_ms).abs_diff(now_ms);
        if apart_ms > CLOCKS_APART_MS {
            tracing::warn!(
                apart_ms,
                "the clocks of this machine and of PostgreSQL are apart: sessions have wrong times; set both by NTP"
            );
        }
        self.id = Some(id);
        Ok(())
    }

    /// Writes a batch.
    pub(crate) fn write(
        &mut self,
        number: i64,
        batch: &Batch,
        now_ms: u64,
    ) -> Result<Written, Problem> {
        if batch.forget_open {
            // Rows of sessions that were dropped are those of a dead node.
            self.give_up_id()?;
        }
        let Some(id) = &self.id else {
            self.register(now_ms)?;
            return Ok(Written::Fenced);
        };
        let (lease, gap, mut written) = (self.node.lease, self.gap, Written::Done);
        for (part, index) in flush::parts(batch).iter().zip(0..) {
            let number = number * flush::PARTS + index;
            let flush = flush::Flush { node: id, lease, gap, number, now_ms };
            let mut write = || {
                self.connection
                    .with(TIMEOUT, async |client| flush::write(client, &flush, part).await)
            };
            // Two nodes that have locked the same users in another order: the database has ended one of them.
            written = write().or_else(|problem| match connection::is_deadlock(&problem) {
                true => write(),
                false => Err(problem),
            })?;
            if written == Written::Fenced {
                break;
            }
        }
        self.fenced(written, now_ms)
    }

    /// Notes that the node is there.
    pub(crate) fn beat(&mut self, now_ms: u64) -> Result<Written, Problem> {
        let Some(id) = &self.id else {
            self.register(now_ms)?;
            return Ok(Written::Fenced);
        };
        let lease = self.node.lease;
        let written =
            self.connection.with(TIMEOUT, async |client| nodes::beat(client, id, lease).await)?;
        self.fenced(written, now_ms)
    }

    fn fenced(&mut self, written: Written, now_ms: u64) -> Result<Written, Problem> {
        if written == Written::Fenced {
            tracing::warn!("other nodes took this one for dead: it writes all open sessions anew");
            self.id = None;
            self.register(now_ms)?;
        }
        Ok(written)
    }

    /// Leaves the tables. What was not written is cleaned by other nodes as that of a dead one.
    pub(crate) fn end(&mut self, is_all_written: bool) -> Result<(), Problem> {
        if !is_all_written {
            return self.give_up_id();
        }
        let Some(id) = self.id.take() else { return Ok(()) };
        self.connection.with(TIMEOUT, async |client| nodes::leave(client, &id).await)
    }

    /// Declares the id of this node dead. The next batch gets a new one.
    fn give_up_id(&mut self) -> Result<(), Problem> {
        let Some(id) = &self.id else { return Ok(()) };
        self.connection.with(TIMEOUT, async |client| nodes::declare_dead(client, id).await)?;
        self.id = None;
        Ok(())
    }
}

/// A problem with its cause.
pub(crate) fn problem_text(problem: &Problem) -> String {
    connection::text(problem)
}

/// A time as PostgreSQL has it.
fn time(ms: u64) -> SystemTime {
    // The end of the year 9999: PostgreSQL's times end, and those of the system.
    UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999))
}

/// A time of PostgreSQL in milliseconds since 1970. There is none before.
fn ms(time: SystemTime) -> u64 {
    crate::millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
