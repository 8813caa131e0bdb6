//! A batch as one transaction, or some where users have come and gone often.
//!
//! The order is that of the tracker: first sessions that have ended, then open ones. A session that ends takes this
//! node out of the user's row, and is logged if it was the last node. If the row does not have this node (the
//! session was shorter than the time between two batches, PostgreSQL was away, or the node had another id) it is
//! first joined with what the user has within the gap before and after, in the row or in the log.
//!
//! So no two sessions of a user in the tables are closer to each other than the gap, and a session that is written
//! twice is there once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_postgres::types::ToSql;

use super::connection::Client;
use super::{nodes, time};
use crate::store::{Problem, Written};
use crate::tracker::{Batch, Ended, Open};

/// What belongs to a batch.
pub(super) struct Flush<'f> {
    /// The id of the node.
    pub(super) node: &'f str,
    pub(super) lease: Duration,
    pub(super) gap: Duration,
    /// Of the transaction. Numbers of a node go up.
    pub(super) number: i64,
    pub(super) now_ms: u64,
}

/// No row: the batch was applied, or the node was declared dead.
const FENCE: &str = "\
    UPDATE murre_node SET applied = $2, seen_at = now(), lease_until = now() + make_interval(secs => $3) \
    WHERE node = $1 AND applied < $2 AND dead_at IS NULL RETURNING applied";

/// Takes a node out of the rows of users, and logs the sessions of those that are nowhere else. Answers the users
/// whose rows do not have the node in a session that began before this end.
const CLOSE: &str = "\
    WITH gone AS (SELECT * FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS g(user_id, joined, at)), \
    locked AS MATERIALIZED (\
        SELECT o.user_id, g.joined, g.at, o.nodes - $1::text AS rest \
        FROM murre_session_open o JOIN gone g ON o.user_id = g.user_id COLLATE \"C\" \
        WHERE o.nodes ? $1::text AND o.join_at <= g.at ORDER BY o.user_id FOR UPDATE OF o), \
    kept AS (\
        UPDATE murre_session_open o SET nodes = l.rest, left_at = greatest(o.left_at, l.at) \
        FROM locked l WHERE o.user_id = l.user_id AND l.rest <> '{}'::jsonb), \
    closed AS (\
        DELETE FROM murre_session_open o USING locked l WHERE o.user_id = l.user_id AND l.rest = '{}'::jsonb \
        RETURNING o.user_id, least(o.join_at, l.joined) AS join_at, greatest(o.left_at, l.at, o.join_at) AS at), \
    logged AS (INSERT INTO murre_session_log SELECT user_id, join_at, at, $5::smallint FROM closed) \
    SELECT user_id FROM gone WHERE user_id NOT IN (SELECT user_id FROM locked)";

/// Puts ended sessions into the rows of their users, to be closed there, and answers their users. A row whose
/// session began later than the gap after the end is locked and left alone.
const JOIN_ROW: &str = "\
    INSERT INTO murre_session_open AS o (user_id, join_at, left_at, nodes) \
    SELECT u, j, t, jsonb_build_object($1::text, 0) \
    FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS x(u, j, t) ORDER BY u COLLATE \"C\" \
    ON CONFLICT (user_id) DO UPDATE SET nodes = o.nodes || excluded.nodes, \
        join_at = least(o.join_at, excluded.join_at), left_at = greatest(o.left_at, excluded.left_at) \
    WHERE o.join_at < excluded.left_at + make_interval(secs => $5) RETURNING user_id";

/// The beginning of a statement that takes the sessions out of the log that those of `fresh` are one with: which are
/// closer to them than the gap, or the same, written before. `$5` is before all of them.
macro_rules! with_old {
    ($then:literal) => {
        concat!(
            "WITH fresh AS (\
                SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS f(user_id, joined, at)), \
            old AS (\
                DELETE FROM murre_session_log l USING fresh f WHERE l.user_id = f.user_id COLLATE \"C\" \
                AND (l.terminate_at > f.joined - make_interval(secs => $4) \
                    AND l.join_at < f.at + make_interval(secs => $4) \
                    OR (l.join_at, l.terminate_at) = (f.joined, f.at)) \
                AND l.terminate_at >= $5::timestamptz - make_interval(secs => $4) \
                RETURNING l.user_id, l.join_at, l.terminate_at)",
            $then
        )
    };
}

/// Has the sessions of rows go on with those of the log.
const RESUME: &str = with_old!(
    ", back AS (SELECT user_id, min(join_at) AS joined, max(terminate_at) AS at FROM old GROUP BY user_id) \
    UPDATE murre_session_open o SET join_at = least(o.join_at, b.joined), left_at = greatest(o.left_at, b.at) \
    FROM back b WHERE o.user_id = b.user_id"
);

/// Logs ended sessions that do not belong to the rows of their users. They are joined with those of the log.
const LOG: &str = with_old!(
    " INSERT INTO murre_session_log \
    SELECT f.user_id, least(f.joined, min(o.join_at)), greatest(f.at, max(o.terminate_at)), $6::smallint \
    FROM fresh f LEFT JOIN old o ON o.user_id = f.user_id COLLATE \"C\" GROUP BY f.user_id, f.joined, f.at"
);

/// Counts are absolute.
const OPEN: &str = "\
    INSERT INTO murre_session_open AS o (user_id, join_at, left_at, nodes) \
    SELECT u, j, t, jsonb_build_object($1::text, c) \
    FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[], $5::int4[]) AS x(u, j, t, c) ORDER BY u COLLATE \"C\" \
    ON CONFLICT (user_id) DO UPDATE SET nodes = o.nodes || excluded.nodes, \
        join_at = least(o.join_at, excluded.join_at), left_at = greatest(o.left_at, excluded.left_at)";

/// `ended` in the log: the user has left.
const LEFT: i16 = 0;
/// The session waited in a spool while PostgreSQL was away.
const REPLAYED: i16 = 2;

/// What one transaction writes of a batch.
pub(super) struct Part<'b> {
    /// Each user has one session in each.
    rounds: Vec<Columns<'b>>,
    open: &'b [Open],
    /// `ended` of the sessions in the log.
    how: i16,
}

/// A user that has come and gone so often makes another transaction, so that none takes too long.
const ROUNDS: usize = 16;

/// The parts of a batch, at most [`PARTS`].
pub(super) fn parts(batch: &Batch) -> Vec<Part<'_>> {
    let how = if batch.is_replayed { REPLAYED } else { LEFT };
    let mut parts = Vec::new();
    let mut rounds = rounds(&batch.ended).into_iter().peekable();
    while rounds.peek().is_some() {
        parts.push(Part { rounds: rounds.by_ref().take(ROUNDS).collect(), open: &[], how });
    }
    match parts.last_mut() {
        Some(last) => last.open = &batch.open,
        None => parts.push(Part { rounds: Vec::new(), open: &batch.open, how }),
    }
    parts
}

/// Parts of a batch: more than one of 1000 rows has.
pub(super) const PARTS: i64 = 1024;

/// Writes a part of a batch.
pub(super) async fn write(
    client: &mut Client,
    flush: &Flush<'_>,
    part: &Part<'_>,
) -> Result<Written, Problem> {
    let Flush { node, lease, number, .. } = *flush;
    client.batch("BEGIN").await?;
    let fence = client.query(FENCE, &[&node, &number, &lease.as_secs_f64()]).await?;
    if fence.is_empty() {
        client.batch("ROLLBACK").await?;
        let is_dead = nodes::is_dead(client, node).await?;
        return Ok(if is_dead { Written::Fenced } else { Written::Done });
    }
    for round in &part.rounds {
        end(client, flush, round, part.how).await?;
    }
    if !part.open.is_empty() {
        open(client, flush, part.open).await?;
    }
    client.batch("COMMIT").await?;
    Ok(Written::Done)
}

/// Ended sessions as columns.
#[derive(Default)]
struct Columns<'b> {
    users: Vec<&'b str>,
    joined: Vec<SystemTime>,
    at: Vec<SystemTime>,
}

impl<'b> Columns<'b> {
    fn push(&mut self, user: &'b str, joined_ms: u64, at_ms: u64) {
        self.users.push(user);
        self.joined.push(time(joined_ms));
        self.at.push(time(at_ms));
    }

    /// The sessions of these users.
    fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut wanted = Columns::default();
        for (index, user) in self.users.iter().enumerate().filter(|(_, user)| is_wanted(user)) {
            wanted.users.push(user);
            wanted.joined.push(self.joined[index]);
            wanted.at.push(self.at[index]);
        }
        wanted
    }

    fn first_joined(&self) -> SystemTime {
        self.joined.iter().copied().min().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Parts of a batch in which each user has one session, in the order in which they ended.
fn rounds(ended: &[Ended]) -> Vec<Columns<'_>> {
    let (mut rounds, mut counts) = (Vec::<Columns<'_>>::new(), HashMap::<&Arc<str>, usize>::new());
    for Ended { user, join_at, terminate_at, .. } in ended {
        let count = counts.entry(user).or_default();
        if rounds.len() == *count {
            rounds.push(Columns::default());
        }
        rounds[*count].push(user, *join_at, *terminate_at);
        *count += 1;
    }
    rounds
}

/// Ends sessions of different users.
async fn end(
    client: &mut Client,
    flush: &Flush<'_>,
    ended: &Columns<'_>,
    how: i16,
) -> Result<(), Problem> {
    let gap = &flush.gap.as_secs_f64();
    let unknown = close(client, flush.node, ended, how).await?;
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown = ended.only(|user| unknown.contains(user));
    let values: [&(dyn ToSql + Sync); _] =
        [&flush.node, &unknown.users, &unknown.joined, &unknown.at, gap];
    let joined = names(client.query(JOIN_ROW, &values).await?);
    let of_rows = unknown.only(|user| joined.contains(user));
    if !of_rows.users.is_empty() {
        resume(client, flush, &of_rows).await?;
        close(client, flush.node, &of_rows, how).await?;
    }
    let others = unknown.only(|user| !joined.contains(user));
    if !others.users.is_empty() {
        let Columns { users, joined, at } = &others;
        let first = others.first_joined();
        client.query(LOG, &[users, joined, at, gap, &first, &how]).await?;
    }
    Ok(())
}

/// Users that an answer names.
type Names = std::collections::HashSet<String>;

fn names(rows: Vec<tokio_postgres::Row>) -> Names {
    rows.iter().map(|row| row.get(0)).collect()
}

async fn close(
    client: &mut Client,
    node: &str,
    Columns { users, joined, at }: &Columns<'_>,
    how: i16,
) -> Result<Names, Problem> {
    Ok(names(client.query(CLOSE, &[&node, users, joined, at, &how]).await?))
}

async fn resume(
    client: &mut Client,
    flush: &Flush<'_>,
    fresh: &Columns<'_>,
) -> Result<(), Problem> {
    let Columns { users, joined, at } = fresh;
    let gap = flush.gap.as_secs_f64();
    client.query(RESUME, &[users, joined, at, &gap, &fresh.first_joined()]).await?;
    Ok(())
}

/// Writes open sessions.
async fn open(client: &mut Client, flush: &Flush<'_>, open: &[Open]) -> Result<(), Problem> {
    let users: Vec<&str> = open.iter().map(|open| &*open.user).collect();
    let joined: Vec<_> = open.iter().map(|open| time(open.join_at)).collect();
    let left: Vec<_> = open.iter().map(|open| open.left_at.map(time)).collect();
    let counts = open.iter().map(|open| i32::try_from(open.connections).unwrap_or(i32::MAX));
    let counts: Vec<_> = counts.collect();
    client.query(OPEN, &[&flush.node, &users, &joined, &left, &counts]).await?;
    let mut fresh = Columns::default();
    for open in open.iter().filter(|open| open.is_new) {
        fresh.push(&open.user, open.join_at, open.left_at.unwrap_or(flush.now_ms));
    }
    if !fresh.users.is_empty() {
        resume(client, flush, &fresh).await?;
    }
    Ok(())
}
