//! `murre sessions`: questions to a session log, on the command line.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use murre_session_log::{Reader, Session, StoreError, Wanted};
use serde_json::{Value, json};

use crate::config::session_log_file;
use crate::hub::unix_seconds;

/// The questions of `murre sessions`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// The users that are there now, and since when
    Online(Asked),
    /// Sessions, in the order in which they began
    List(Asked),
    /// For how many seconds a user was there on each day (UTC)
    Days(Asked),
    /// The most users that were there at once in each hour (UTC)
    Peaks(Asked),
}

/// The log, and the part of it that is wanted.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// File of the session log, as for `murre serve`
    #[arg(long, value_name = "FILE", env = "MURRE_SESSIONS", value_parser = session_log_file)]
    sessions: PathBuf,

    /// Only sessions of this user [default: of all]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Only what was at this time or later, as 2026-11-30 or 2026-11-30T21:15:00Z [default: the first
    /// session]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Only what was before this time [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// One JSON object a line, with times in milliseconds since 1970, instead of columns with tabs between
    /// them
    #[arg(long)]
    json: bool,
}

impl SessionsCommand {
    /// Asks. Returns the text for the standard output, and the problem, if there is one.
    pub(crate) fn run(self) -> (String, Option<String>) {
        match self.answer() {
            Ok(text) => (text, None),
            Err(problem) => (String::new(), Some(problem)),
        }
    }

    fn answer(self) -> Result<String, String> {
        let (SessionsCommand::Online(asked)
        | SessionsCommand::List(asked)
        | SessionsCommand::Days(asked)
        | SessionsCommand::Peaks(asked)) = &self;
        let reader = Reader::open(&asked.sessions).map_err(|error| error.to_string())?;
        let wanted = asked.wanted(&reader)?;
        let mut lines = Lines { reader: &reader, json: asked.json, text: String::new() };
        let written = match &self {
            SessionsCommand::Online(_) => lines.online(&wanted),
            SessionsCommand::List(_) => lines.list(&wanted),
            SessionsCommand::Days(_) => lines.days(&wanted),
            SessionsCommand::Peaks(_) => lines.peaks(&wanted),
        };
        written.map_err(|error| error.to_string())?;
        Ok(lines.text)
    }
}

impl Asked {
    fn wanted(&self, reader: &Reader) -> Result<Wanted, String> {
        let time = |flag: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let time = reader.time(text).map_err(|error| error.to_string())?;
            let wrong = || {
                format!(
                    "{flag}: '{text}' is no time; write it as 2026-11-30 or 2026-11-30T21:15:00Z"
                )
            };
            time.map(Some).ok_or_else(wrong)
        };
        let (from, to) = (time("--from", &self.from)?, time("--to", &self.to)?);
        Ok(Wanted { user: self.user.clone(), from: from.unwrap_or_default(), to })
    }
}

/// The answer, a line for each row.
struct Lines<'r> {
    reader: &'r Reader,
    json: bool,
    text: String,
}

impl Lines<'_> {
    fn online(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let is_wanted = |session: &Session| {
            wanted.user.as_ref().is_none_or(|user| *user == session.user)
                && wanted.to.is_none_or(|to| session.join_at < to)
        };
        let mut sessions = Vec::new();
        self.reader.online(now(), |session| sessions.push(session))?;
        self.head("user\tsince");
        for session in sessions.into_iter().filter(is_wanted) {
            let since = self.time(session.join_at)?;
            self.line(
                json!({"user": session.user, "since": session.join_at}),
                &[&session.user, &since],
            );
        }
        Ok(())
    }

    fn list(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let mut sessions = Vec::new();
        self.reader.sessions(wanted, |session| sessions.push(session))?;
        self.head("user\tfrom\tto\tended");
        for Session { user, join_at, terminate_at, died } in sessions {
            let ended = match (terminate_at, died) {
                (None, _) => "no",
                (_, false) => "left",
                (_, true) => "server died",
            };
            let from = self.time(join_at)?;
            let to = terminate_at.map_or(Ok(String::new()), |to| self.time(to))?;
            let object = json!({"user": user, "from": join_at, "to": terminate_at, "ended": ended});
            self.line(object, &[&user, &from, &to, ended]);
        }
        Ok(())
    }

    fn days(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let days = self.reader.days(wanted, now())?;
        self.head("day\tseconds");
        for day in days {
            let (text, seconds) = (self.time(day.begins)?, day.online as f64 / 1000.0);
            let object = json!({"day": day.begins, "seconds": seconds});
            self.line(object, &[&text[..DAY_BYTES.min(text.len())], &seconds.to_string()]);
        }
        Ok(())
    }

    fn peaks(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let hours = self.reader.peaks(wanted, now())?;
        self.head("hour\tusers");
        for hour in hours {
            let begins = self.time(hour.begins)?;
            let object = json!({"hour": hour.begins, "users": hour.users});
            self.line(object, &[&begins, &hour.users.to_string()]);
        }
        Ok(())
    }

    fn time(&self, time: u64) -> Result<String, StoreError> {
        self.reader.text(time)
    }

    fn head(&mut self, columns: &str) {
        if !self.json {
            writeln!(self.text, "{columns}").expect("a string takes all that is written to it");
        }
    }

    /// Adds a line. Names have what would end a column or a line as JSON has it.
    fn line(&mut self, object: Value, columns: &[&str]) {
        let text = match self.json {
            true => object.to_string(),
            false => {
                let shown = columns.iter().map(|column| match column.contains(char::is_control) {
                    true => Value::from(*column).to_string(),
                    false => (*column).to_owned(),
                });
                shown.collect::<Vec<_>>().join("\t")
            }
        };
        writeln!(self.text, "{text}").expect("a string takes all that is written to it");
    }
}

/// Bytes of a date at the begin of a time.
const DAY_BYTES: usize = "2026-11-30".len();

/// Milliseconds since 1970.
fn now() -> u64 {
    unix_seconds().saturating_mul(1000)
}
