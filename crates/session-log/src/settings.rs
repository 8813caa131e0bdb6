//! The settings of a session log.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::postgres::PostgresUrl;

/// The settings of a session log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub place: Place,
    /// A user that comes back within this time after the last connection has not left.
    pub gap: Duration,
    /// Ended sessions are deleted this long after their end; `None` keeps them for ever. From PostgreSQL they
    /// are deleted by days.
    pub retention: Option<Duration>,
    /// The name of this server among those that write the same PostgreSQL.
    pub node: String,
    /// Without a word from a server for so long, others take it for dead. For PostgreSQL.
    pub lease: Duration,
    /// Where ended sessions wait while PostgreSQL is away; `None`: in memory.
    pub spool: Option<Spooled>,
}

/// The file in which ended sessions wait.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// Of this server alone.
    pub file: PathBuf,
    /// Further sessions wait in memory, and are dropped beyond the bound of that.
    pub bytes_max: u64,
}

/// A [`Settings::lease`]: servers that write nothing say every 5 seconds that they are there.
pub const LEASE: Duration = Duration::from_secs(30);

/// Where a session log is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file, a SQLite database, that one server writes. A second file, with `-lock` after its name, keeps
    /// other servers out.
    File(PathBuf),
    /// In PostgreSQL, which several servers write.
    Postgres(PostgresUrl),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => PostgresUrl::parse(text).map(Place::Postgres),
            Some(_) => Err("it is the name of a file, or postgres://USER@HOST/DATABASE".into()),
            None if text.starts_with(':') => Err("it is the name of a file on disk".into()),
            None if text.is_empty() => Err("it is the name of a file".into()),
            None => Ok(Place::File(text.into())),
        }
    }
}

/// The name of the file, or the URL without its password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(file) => file.display().fmt(f),
            Place::Postgres(url) => url.fmt(f),
        }
    }
}
