//! `murre sessions`: questions to a session log, on the command line.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::{Args, Subcommand};
use murre_session_log::{Place, Reader, Session, StoreError, Times, Wanted, now};
use serde_json::{Value, json};

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
    /// File or URL of the session log, as for `murre serve`
    #[arg(long, value_name = "FILE_OR_URL", env = "MURRE_SESSIONS", hide_env_values = true)]
    sessions: Place,

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
    /// Asks, and writes the answer to the standard output as it comes. Returns the rest of it, and the problem, if
    /// there is one.
    pub(crate) fn run(self) -> (String, Option<String>) {
        (String::new(), self.answer().err())
    }

    fn answer(self) -> Result<(), String> {
        let (SessionsCommand::Online(asked)
        | SessionsCommand::List(asked)
        | SessionsCommand::Days(asked)
        | SessionsCommand::Peaks(asked)) = &self;
        let times = Times::new().map_err(|error| error.to_string())?;
        let wanted = asked.wanted(&times)?;
        let mut reader = Reader::open(&asked.sessions).map_err(|error| error.to_string())?;
        let out = BufWriter::new(io::stdout().lock());
        let mut lines = Lines { times, json: asked.json, out, written: Ok(()) };
        let answered = match &self {
            SessionsCommand::Online(_) => lines.online(&mut reader, &wanted),
            SessionsCommand::List(_) => lines.list(&mut reader, &wanted),
            SessionsCommand::Days(_) => lines.days(&mut reader, &wanted),
            SessionsCommand::Peaks(_) => lines.peaks(&mut reader, &wanted),
        };
        answered.map_err(|error| error.to_string())?;
        let written = lines.written.and_then(|()| lines.out.flush());
        written.map_err(|error| format!("cannot write the output: {error}"))
    }
}

impl Asked {
    fn wanted(&self, times: &Times) -> Result<Wanted, String> {
        let time = |flag: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let time = times.time(text).map_err(|error| error.to_string())?;
            let wrong = || {
                format!(
                    "{flag}: '{text}' is no time; write it as 2026-11-30 or 2026-11-30T21:15:00Z"
                )
            };
            time.map(Some).ok_or_else(wrong)
        };
        let (from, to) = (time("--from", &self.from)?, time("--to", &self.to)?);
        let (user, from) = (self.user.clone(), from.unwrap_or_default());
        Ok(Wanted { user, from, to, ..Wanted::default() })
    }
}

/// The answer, a line for each row.
struct Lines<'o> {
    times: Times,
    json: bool,
    out: BufWriter<StdoutLock<'o>>,
    /// The first error of the output, after which nothing is written.
    written: io::Result<()>,
}

impl Lines<'_> {
    fn online(&mut self, reader: &mut Reader, wanted: &Wanted) -> Result<(), StoreError> {
        self.head("user\tsince");
        reader.online(wanted, now(), |session| {
            let since = self.time(session.join_at);
            self.line(
                json!({"user": session.user, "since": session.join_at}),
                &[&session.user, &since],
            );
        })
    }

    fn list(&mut self, reader: &mut Reader, wanted: &Wanted) -> Result<(), StoreError> {
        self.head("user\tfrom\tto\tended");
        reader.sessions(wanted, |session| {
            let from = self.time(session.join_at);
            let to = session.terminate_at.map_or(String::new(), |to| self.time(to));
            self.line(listed(&session), &[&session.user, &from, &to, how_ended(&session)]);
        })
    }

    fn days(&mut self, reader: &mut Reader, wanted: &Wanted) -> Result<(), StoreError> {
        let days = reader.days(wanted, now())?;
        self.head("day\tseconds");
        for day in days {
            let (text, seconds) = (self.time(day.begins), day.online as f64 / 1000.0);
            let object = json!({"day": day.begins, "seconds": seconds});
            self.line(object, &[&text[..DAY_BYTES.min(text.len())], &seconds.to_string()]);
        }
        Ok(())
    }

    fn peaks(&mut self, reader: &mut Reader, wanted: &Wanted) -> Result<(), StoreError> {
        let hours = reader.peaks(wanted, now())?;
        self.head("hour\tusers");
        for hour in hours {
            let begins = self.time(hour.begins);
            let object = json!({"hour": hour.begins, "users": hour.users});
            self.line(object, &[&begins, &hour.users.to_string()]);
        }
        Ok(())
    }

    fn time(&self, time: u64) -> String {
        // There is memory for a time, or there is none for the answer either.
        self.times.text(time).unwrap_or_else(|_| time.to_string())
    }

    fn head(&mut self, columns: &str) {
        if !self.json {
            self.write(columns);
        }
    }

    fn write(&mut self, line: &str) {
        if self.written.is_ok() {
            self.written = writeln!(self.out, "{line}");
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
        self.write(&text);
    }
}

/// A session as an object, also for the API.
pub(crate) fn listed(session: &Session) -> Value {
    let Session { user, join_at, terminate_at, .. } = session;
    json!({"user": user, "from": join_at, "to": terminate_at, "ended": how_ended(session)})
}

fn how_ended(Session { terminate_at, died, .. }: &Session) -> &'static str {
    match (terminate_at, died) {
        (None, _) => "no",
        (_, false) => "left",
        (_, true) => "server died",
    }
}

/// Bytes of a date at the begin of a time.
const DAY_BYTES: usize = "2026-11-30".len();
