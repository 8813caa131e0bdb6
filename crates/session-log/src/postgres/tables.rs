//! The tables: their versions, and those of the days.

use std::time::{Duration, SystemTime};

use super::connection::{self, Client};
use crate::store::Problem;
use tokio_postgres::error::SqlState;

/// The steps from an empty database to the present tables, by version. A step that has been released is never
/// changed.
pub(super) const MIGRATIONS: &[&str] = &["
    -- Servers that write the log. Numbers of batches go up to `applied`. With `dead_at` other nodes end its sessions.
    CREATE SEQUENCE murre_node_number;
    CREATE TABLE murre_node (
        node text COLLATE \"C\" PRIMARY KEY, name text NOT NULL, started_at timestamptz NOT NULL DEFAULT now(),
        seen_at timestamptz NOT NULL DEFAULT now(), lease_until timestamptz NOT NULL,
        applied bigint NOT NULL DEFAULT 0, dead_at timestamptz);
    -- Users that are there, or have left within the gap. `nodes`: the connections on each node. `left_at`: when the
    -- user left one of the nodes for the last time. No index on `nodes`: updates change no index.
    CREATE TABLE murre_session_open (
        user_id text COLLATE \"C\" PRIMARY KEY, join_at timestamptz NOT NULL, left_at timestamptz,
        nodes jsonb NOT NULL CHECK (nodes <> '{}'::jsonb))
        WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
    -- Sessions that have ended, by day. `ended`: 0 the user has left, 1 the server died, 2 the user has left while the
    -- database was away.
    CREATE TABLE murre_session_log (
        user_id text COLLATE \"C\" NOT NULL, join_at timestamptz NOT NULL, terminate_at timestamptz NOT NULL,
        ended smallint NOT NULL) PARTITION BY RANGE (terminate_at);
    CREATE TABLE murre_session_log_default PARTITION OF murre_session_log DEFAULT;
    CREATE INDEX ON murre_session_log (user_id, terminate_at);
    CREATE INDEX ON murre_session_log (join_at, user_id);
    CREATE VIEW watching_times AS
        SELECT user_id, join_at, NULL::timestamptz AS terminate_at, nodes FROM murre_session_open
        UNION ALL SELECT user_id, join_at, terminate_at, '{}'::jsonb FROM murre_session_log;
"];

/// Makes or changes the tables. Nodes that start at once do so one after the other.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Problem> {
    client.batch("BEGIN; SELECT pg_advisory_xact_lock(4823101)").await?;
    client
        .batch("SET LOCAL client_min_messages = warning; \
                CREATE TABLE IF NOT EXISTS murre_migration (version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
        .await?;
    let known = version(client).await?;
    let Some(missing) = MIGRATIONS.get(known..) else { return Err(newer(known)) };
    for (step, version) in missing.iter().zip(known + 1..) {
        client.batch(step).await?;
        let insert = "INSERT INTO murre_migration (version) VALUES ($1)";
        client.query(insert, &[&i32::try_from(version)?]).await?;
    }
    client.batch("COMMIT").await?;
    if !missing.is_empty() {
        care(client, None).await?;
    }
    Ok(())
}

/// The version of the tables.
pub(super) async fn version(client: &mut Client) -> Result<usize, Problem> {
    let rows = client.query("SELECT coalesce(max(version), 0) FROM murre_migration", &[]).await?;
    Ok(usize::try_from(rows[0].get::<_, i32>(0))?)
}

fn newer(version: usize) -> Problem {
    format!(
        "its tables have version {version}, this server knows {}: use a newer server, or another database",
        MIGRATIONS.len()
    )
    .into()
}

/// An error at the start, with its remedy.
pub(super) fn with_remedy(problem: Problem) -> Problem {
    let remedy =
        match problem.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code()) {
            Some(code) => match code.code() {
                "42501" => {
                    "; GRANT CREATE, USAGE ON SCHEMA of the tables to the user, or let it own them"
                }
                "28P01" | "28000" => "; check user, password, sslmode and pg_hba.conf",
                "3D000" => "; make it with CREATE DATABASE",
                "25006" => "; name the primary server, or add target_session_attrs=read-write",
                _ => "",
            },
            None => return problem,
        };
    match connection::is_away(&problem) {
        true => problem,
        false => format!("{}{remedy}", connection::text(&problem)).into(),
    }
}

/// Makes the tables of today and of the next three days, and drops those of days before the retention.
pub(super) async fn care(client: &mut Client, retention: Option<Duration>) -> Result<(), Problem> {
    let missing = "\
        SELECT format('CREATE TABLE IF NOT EXISTS murre_session_log_%s PARTITION OF murre_session_log \
                       FOR VALUES FROM (%L) TO (%L)', to_char(day, 'YYYYMMDD'), \
                       to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + interval '1 day', 'YYYY-MM-DD 00:00:00+00')) \
        FROM (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') + n * interval '1 day' AS day \
              FROM generate_series(0, 3) n) days \
        WHERE to_regclass('murre_session_log_' || to_char(day, 'YYYYMMDD')) IS NULL";
    for row in client.query(missing, &[]).await? {
        change(client, row.get(0)).await?;
    }
    let Some(retention) = retention else { return Ok(()) };
    let before = client
        .query("SELECT now() - make_interval(secs => $1)", &[&retention.as_secs_f64()])
        .await?;
    let before: SystemTime = before[0].get(0);
    let old = "\
        SELECT format('DROP TABLE IF EXISTS %s', i.inhrelid::regclass) FROM pg_inherits i \
        JOIN pg_class c ON c.oid = i.inhrelid \
        WHERE i.inhparent = 'murre_session_log'::regclass AND c.relname ~ '^murre_session_log_[0-9]{8}$' \
        AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= ($1::timestamptz AT TIME ZONE 'UTC')::date";
    for row in client.query(old, &[&before]).await? {
        change(client, row.get(0)).await?;
    }
    client
        .query("DELETE FROM murre_session_log_default WHERE terminate_at < $1", &[&before])
        .await?;
    Ok(())
}

/// Makes or drops the table of a day. What cannot be done now is done later: other transactions have the tables
/// locked. What can never be done does no harm: the default table has sessions of the day already, and so takes the
/// others.
async fn change(client: &Client, statement: &str) -> Result<(), Problem> {
    match client.batch(statement).await {
        Err(error) => match error.code() {
            Some(
                &SqlState::CHECK_VIOLATION
                | &SqlState::DUPLICATE_TABLE
                | &SqlState::LOCK_NOT_AVAILABLE,
            ) => Ok(()),
            _ => Err(error.into()),
        },
        Ok(()) => Ok(()),
    }
}
