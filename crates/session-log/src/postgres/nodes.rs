//! The nodes that write the tables, and what dead ones have left there.

use std::time::{Duration, Instant, SystemTime};

use super::connection::{Client, Connection};
use super::{Node, tables};
use crate::store::{Problem, Written};

/// Makes a node one of the tables. Returns its id and the time of the database.
pub(super) async fn register(
    client: &mut Client,
    node: &Node,
) -> Result<(String, SystemTime), Problem> {
    let insert = "INSERT INTO murre_node (node, name, lease_until) \
                  SELECT $1::text || '/' || to_hex(nextval('murre_node_number')), $1, now() + make_interval(secs => $2) \
                  RETURNING node, clock_timestamp()";
    let rows = client.query(insert, &[&node.name, &node.lease.as_secs_f64()]).await?;
    Ok((rows[0].get(0), rows[0].get(1)))
}

/// Notes that a node is there.
pub(super) async fn beat(
    client: &mut Client,
    id: &str,
    lease: Duration,
) -> Result<Written, Problem> {
    let update = "UPDATE murre_node SET seen_at = now(), lease_until = now() + make_interval(secs => $2) \
                  WHERE node = $1 AND dead_at IS NULL RETURNING node";
    let rows = client.query(update, &[&id, &lease.as_secs_f64()]).await?;
    Ok(if rows.is_empty() { Written::Fenced } else { Written::Done })
}

/// Whether others took the node for dead.
pub(super) async fn is_dead(client: &mut Client, id: &str) -> Result<bool, Problem> {
    let alive = "SELECT 1 FROM murre_node WHERE node = $1 AND dead_at IS NULL";
    Ok(client.query(alive, &[&id]).await?.is_empty())
}

/// Takes a node out of the tables, of which no row has it.
pub(super) async fn leave(client: &mut Client, id: &str) -> Result<(), Problem> {
    client.query("DELETE FROM murre_node WHERE node = $1", &[&id]).await?;
    Ok(())
}

/// Leaves the rows of a node to those that clean.
pub(super) async fn declare_dead(client: &mut Client, id: &str) -> Result<(), Problem> {
    let update = "UPDATE murre_node SET dead_at = now() WHERE node = $1 AND dead_at IS NULL";
    client.query(update, &[&id]).await?;
    Ok(())
}

/// The number of the lock under which one node at a time cleans; of this program.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(4823100)";
/// Rows of a dead node that one transaction ends.
const SLICE: usize = 5000;
/// As `CLOSE` in `flush.rs`, in the order of the users' names. A user without connections to the node has left
/// before it died. Answers the last of the users.
const CLEAN: &str = "\
    WITH locked AS MATERIALIZED (\
        SELECT o.user_id, o.nodes - $1::text AS rest, \
            CASE WHEN o.nodes ->> $1::text = '0' THEN o.left_at ELSE $2::timestamptz END AS at, \
            CASE WHEN o.nodes ->> $1::text = '0' THEN 0 ELSE 1 END AS how \
        FROM murre_session_open o WHERE o.user_id > $3::text COLLATE \"C\" AND o.nodes ? $1::text \
        ORDER BY o.user_id LIMIT $4 FOR UPDATE), \
    kept AS (\
        UPDATE murre_session_open o SET nodes = l.rest, left_at = greatest(o.left_at, l.at) \
        FROM locked l WHERE o.user_id = l.user_id AND l.rest <> '{}'::jsonb), \
    closed AS (\
        DELETE FROM murre_session_open o USING locked l WHERE o.user_id = l.user_id AND l.rest = '{}'::jsonb \
        RETURNING o.user_id, o.join_at, greatest(o.left_at, l.at, o.join_at) AS at, \
            CASE WHEN o.left_at > l.at THEN 0 ELSE l.how END AS how), \
    logged AS (INSERT INTO murre_session_log SELECT user_id, join_at, at, how FROM closed) \
    SELECT max(user_id), count(*) FROM locked";

/// What any node does for all: ends the sessions of dead nodes, makes tables of coming days and drops old ones.
pub(crate) struct Care {
    lease: Duration,
    retention: Option<Duration>,
    tables_at: Instant,
}

/// Longer than the statements may take.
const TIMEOUT: Duration = Duration::from_secs(70);
/// The time between two looks at the tables of days.
const TABLES: Duration = Duration::from_secs(600);

impl Care {
    pub(crate) fn new(lease: Duration, retention: Option<Duration>) -> Self {
        Care { lease, retention, tables_at: Instant::now() }
    }

    /// Does what is due. Returns the number of dead nodes whose sessions were ended.
    pub(super) fn care(&mut self, connection: &mut Connection) -> Result<u64, Problem> {
        // After a failure of the database all leases may be over: the others get the time to be there again.
        let may_declare = connection.age() >= self.lease;
        if Instant::now() >= self.tables_at {
            let retention = self.retention;
            connection.with(TIMEOUT, async |client| tables::care(client, retention).await)?;
            self.tables_at = Instant::now() + TABLES;
        }
        connection.with(TIMEOUT, async |client| clean(client, may_declare).await)
    }
}

/// Ends the sessions of nodes whose leases are over.
async fn clean(client: &mut Client, may_declare: bool) -> Result<u64, Problem> {
    if may_declare {
        let update = "UPDATE murre_node SET dead_at = now() WHERE dead_at IS NULL AND lease_until < now() RETURNING node";
        for row in client.query(update, &[]).await? {
            tracing::warn!(
                node = row.get::<_, &str>(0),
                "a node of the session log is dead: its sessions end"
            );
        }
    }
    let dead =
        client.query("SELECT node, seen_at FROM murre_node WHERE dead_at IS NOT NULL", &[]).await?;
    let mut cleaned = 0;
    for row in dead {
        let (id, seen_at): (String, SystemTime) = (row.get(0), row.get(1));
        cleaned += u64::from(clean_node(client, &id, seen_at).await?);
    }
    Ok(cleaned)
}

/// Ends the sessions of a dead node. Returns whether this node has done the last of it.
async fn clean_node(client: &mut Client, id: &str, seen_at: SystemTime) -> Result<bool, Problem> {
    let mut after = String::new();
    loop {
        client.batch("BEGIN").await?;
        if !client.query(LOCK, &[]).await?[0].get::<_, bool>(0) {
            client.batch("ROLLBACK").await?;
            return Ok(false);
        }
        let rows = client.query(CLEAN, &[&id, &seen_at, &after, &(SLICE as i64)]).await?;
        let (last, ended): (Option<String>, i64) = (rows[0].get(0), rows[0].get(1));
        let is_last = ended < SLICE as i64;
        let mut is_mine = false;
        if is_last {
            let delete = "DELETE FROM murre_node WHERE node = $1 RETURNING node";
            is_mine = !client.query(delete, &[&id]).await?.is_empty();
        }
        client.batch("COMMIT").await?;
        match last {
            Some(last) if !is_last => after = last,
            _ => return Ok(is_mine),
        }
    }
}
