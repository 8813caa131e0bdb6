//! One connection to PostgreSQL, made when it is needed and again after a failure.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::url::PostgresUrl;
use crate::store::Problem;

/// A connection with a runtime of its own, for one thread. Nothing moves on it between two uses.
pub(super) struct Connection {
    url: PostgresUrl,
    /// Statements that follow each connect.
    options: &'static str,
    runtime: Runtime,
    ending: Ending,
    client: Option<Client>,
}

/// Whether the server ends. Then nothing waits for long.
pub(crate) type Ending = watch::Receiver<bool>;

/// At the end of the server there is so much time for one use.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection in use, with the statements that it has prepared.
pub(super) struct Client {
    client: tokio_postgres::Client,
    task: JoinHandle<()>,
    statements: HashMap<&'static str, Statement>,
    since: Instant,
}

/// The connection ends with its last use, also one that hangs.
impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(super) fn new(url: PostgresUrl, options: &'static str, ending: Ending) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Connection { url, options, runtime, ending, client: None })
    }

    /// Runs `work` on the connection within `timeout`. After a failure the connection ends, and with it the
    /// transaction.
    pub(super) fn with<T>(
        &mut self,
        timeout: Duration,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let Connection { url, options, runtime, ending, client } = self;
        let work = async {
            let client = match client {
                Some(client) => client,
                None => client.insert(Client::connect(url, options).await?),
            };
            work(client).await
        };
        let done = runtime.block_on(async {
            let end = async {
                // An error says that there is no server that could end.
                match ending.wait_for(|is_ending| *is_ending).await {
                    Ok(_) => tokio::time::sleep(END_TIMEOUT).await,
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                done = work => done,
                () = tokio::time::sleep(timeout) => Err(Away(timeout).into()),
                () = end => Err(Away(END_TIMEOUT).into()),
            }
        });
        if done.is_err() {
            self.client = None;
        }
        done
    }

    /// For how long the connection has not failed.
    pub(super) fn age(&self) -> Duration {
        self.client.as_ref().map_or(Duration::ZERO, |client| client.since.elapsed())
    }

    pub(super) fn url(&self) -> &PostgresUrl {
        &self.url
    }
}

impl Client {
    async fn connect(url: &PostgresUrl, options: &str) -> Result<Self, Problem> {
        let (client, connection) = url.connect().await?;
        // Its error is that of the statement that waits.
        let task = tokio::spawn(async move { _ = connection.await });
        let client = Client { client, task, statements: HashMap::new(), since: Instant::now() };
        client.batch(options).await?;
        Ok(client)
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, statements: &str) -> Result<(), Error> {
        self.client.batch_execute(statements).await
    }

    /// Runs a statement, which is prepared once.
    pub(super) async fn query(
        &mut self,
        statement: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let prepared = self.prepared(statement).await?;
        self.client.query(&prepared, values).await
    }

    /// Runs a statement that answers so many rows that they are read as they come.
    pub(super) async fn each(
        &mut self,
        statement: &'static str,
        values: &[&(dyn ToSql + Sync)],
        mut each: impl FnMut(&Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        use futures_util::TryStreamExt;
        let prepared = self.prepared(statement).await?;
        let rows = self.client.query_raw(&prepared, values.iter().copied()).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            each(&row)?;
        }
        Ok(())
    }

    async fn prepared(&mut self, statement: &'static str) -> Result<Statement, Error> {
        if let Some(prepared) = self.statements.get(statement) {
            return Ok(prepared.clone());
        }
        let prepared = self.client.prepare(statement).await?;
        self.statements.insert(statement, prepared.clone());
        Ok(prepared)
    }
}

/// There was no answer.
#[derive(Debug)]
struct Away(Duration);

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgreSQL has not answered within {:?}", self.0)
    }
}

impl std::error::Error for Away {}

/// Whether the database may be there again later: it was not reached, or is starting or ending.
pub(super) fn is_away(problem: &Problem) -> bool {
    let Some(error) = problem.downcast_ref::<Error>() else { return problem.is::<Away>() };
    match error.code() {
        Some(code) => [
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::TOO_MANY_CONNECTIONS,
        ]
        .contains(code),
        // Not reached, or closed; TLS that fails is another source.
        None => {
            error.is_closed()
                || error.source().is_some_and(|source| source.is::<io::Error>() && !is_tls(source))
        }
    }
}

/// Whether the error is of TLS, which comes inside one of input and output.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>())
}

/// Whether the database has ended the transaction for the sake of another one.
pub(super) fn is_deadlock(problem: &Problem) -> bool {
    let code = problem.downcast_ref::<Error>().and_then(Error::code);
    code.is_some_and(|code| {
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
    })
}

/// An error with its cause, which that of PostgreSQL hides.
pub(super) fn text(problem: &Problem) -> String {
    match problem.downcast_ref::<Error>() {
        Some(error) => match (error.as_db_error(), error.source()) {
            (Some(error), _) => format!("{} ({})", error.message(), error.code().code()),
            (None, Some(source)) => format!("{error}: {source}"),
            (None, None) => error.to_string(),
        },
        None => problem.to_string(),
    }
}
