//! Reads records. All that reports and verdicts know of a run is in its line.

pub(crate) mod kinds;

pub(crate) use self::kinds::{Parameters, Run};

use std::fs;
use std::io;
use std::path::Path;

use murre_record::{Machine, Outcome, Scenario};

use self::kinds::{Content, Stamp, content, kind};
use crate::figures::grouped;

/// One line of a file of records.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) place: RecordPlace,
    pub(crate) stamp: Stamp,
    pub(crate) content: Content,
}

#[cfg(test)]
impl Line {
    /// A record that is not in a file.
    pub(crate) fn of(place: RecordPlace, run: Run) -> Line {
        Line { place, stamp: Stamp::default(), content: Content::Run(Box::new(run)) }
    }
}

/// Where a line is: the file's name in its directory, and its number from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordPlace {
    pub(crate) file: String,
    pub(crate) line: usize,
}

/// The label of our own server in records.
pub(crate) const OURS: &str = "murre";

/// Whether a run is of our own server and came to its end.
pub(crate) fn is_ours(run: &Run) -> bool {
    run.label == OURS && ended(run)
}

/// Whether no signal interrupted a run.
pub(crate) fn ended(run: &Run) -> bool {
    run.outcome != Outcome::Interrupted
}

/// The work of a run in words. Runs with the same work have the same words.
pub(crate) fn work(run: &Run) -> String {
    let p = &run.parameters;
    let conns = grouped(p.conns);
    let also = |number: u64, what: &str| match number {
        0 => String::new(),
        number => format!(", {} {what}", grouped(number)),
    };
    let rate = p.rate.unwrap_or_default() as u64;
    let pipelined = if p.pipeline > 1 { p.pipeline } else { 0 };
    match run.scenario {
        Scenario::HttpKeepalive => {
            let idle = p.idle.replace('-', " to ");
            format!("{conns} HTTP keep-alive connections, idle {idle} s")
        }
        Scenario::WsUpper => format!("{conns} WebSockets, a text each every {} s", p.every),
        Scenario::WsIdle => format!("{conns} idle WebSockets"),
        Scenario::WsEcho => {
            format!("echo of {} B on {conns} WebSockets", grouped(p.payload))
                + &also(pipelined, "under way on each")
                + &also(rate, "messages a second")
                + &also(p.idle_conns, "idle beside")
        }
        Scenario::Pubsub => {
            format!("{conns} subscribers, messages of about {} B", grouped(p.payload))
                + &also(rate, "a second")
        }
        Scenario::Quotes => format!("{conns} pages of quotes"),
        Scenario::RequestReply => {
            let every = p.idle.replace('-', " to ");
            format!("{conns} WebSockets, a request each every {every} s")
        }
        Scenario::Fanout => {
            let to = match p.channels {
                1 => format!("to {conns} subscribers of one channel"),
                channels => format!("to {conns} subscribers of {} channels", grouped(channels)),
            };
            format!("fan-out of {} B {to}", grouped(p.payload))
                + &also(pipelined, "under way")
                + &also(rate, "a second")
                + &also(p.beside, "that ping beside")
        }
        Scenario::Churn => {
            format!("{conns} subscribers of {} channels that come and go", grouped(p.channels))
        }
        Scenario::Recover => {
            format!("{conns} subscribers of {} channels on several nodes", grouped(p.channels))
                + &also(rate, "publications a second")
        }
        Scenario::Interest => {
            format!("{conns} connections with {} channels each", grouped(p.channels))
                + &also(rate, "of which change a second")
                + &also(p.beside, "that ping beside")
        }
        Scenario::Phoenix => {
            let users = if p.token_secret_file.is_some() { " of users" } else { "" };
            let nodes = run.nodes.as_ref().map_or(String::new(), |nodes| {
                format!(" on {} nodes, of which two end", nodes.nodes)
            });
            format!("{conns} Phoenix clients{users}{nodes}, a heartbeat each every {} s", p.every)
        }
        Scenario::Presence => {
            let told = if p.watch == "counts" { "counts" } else { "changes" };
            format!("{conns} members of {} channels, {told} of", grouped(p.channels))
                + &format!(" {rate} joins and {rate} leaves a second")
                + &also(p.beside, "that ping beside")
        }
        Scenario::Storm => format!("{conns} WebSockets, most of them killed and back, twice"),
        Scenario::Backend => {
            format!("{conns} WebSockets at once, about each of which an application is asked")
                + &also(p.beside, "that ping beside")
        }
        Scenario::Abuse => {
            format!("{conns} connections beside {} that are hostile", grouped(p.hostile))
        }
        Scenario::Soak => format!("{conns} connections at a time that vanish in every way"),
    }
}

/// Twelve digits of a commit, and the mark of one that was changed.
pub(crate) fn short_commit(commit: Option<&str>) -> String {
    let Some(commit) = commit else { return "unknown".to_owned() };
    let (digits, mark) = commit.split_at(commit.find('+').unwrap_or(commit.len()));
    format!("{digits:.12}{mark}")
}

/// All lines that could be read, in the order of files, and warnings about the others.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) lines: Vec<Line>,
    pub(crate) warnings: Vec<String>,
}

impl Records {
    /// The records that tests read.
    #[cfg(test)]
    pub(crate) fn fixture() -> Records {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/records");
        Records::read_all(&directory).expect("the fixture")
    }

    /// Reads every `*.jsonl` of a directory.
    pub(crate) fn read_all(directory: &Path) -> io::Result<Records> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                files.push(path);
            }
        }
        files.sort();
        let mut records = Records::default();
        for file in files {
            records.read(&file)?;
        }
        Ok(records)
    }

    /// Reads one file.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<()> {
        let text = fs::read(path)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (index, bytes) in text.split(|&byte| byte == b'\n').enumerate() {
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let place = RecordPlace { file: file.clone(), line: index + 1 };
            match content(bytes) {
                Ok((stamp, content)) => self.lines.push(Line { place, stamp, content }),
                Err(error) => {
                    self.warnings.push(format!("{file}:{}: skipped: {error}", place.line));
                }
            }
        }
        Ok(())
    }

    /// The lines of one kind.
    pub(crate) fn of<'r, T: 'r>(
        &'r self,
        kind: fn(&'r Content) -> Option<&'r T>,
    ) -> impl DoubleEndedIterator<Item = (&'r Line, &'r T)> {
        self.lines.iter().filter_map(move |line| Some((line, kind(&line.content)?)))
    }

    /// The runs of scenarios.
    pub(crate) fn runs(&self) -> impl DoubleEndedIterator<Item = (&RecordPlace, &Run)> {
        self.of(kind!(Run)).map(|(line, run)| (&line.place, &**run))
    }

    /// The machines that lines are from.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.lines.iter().filter_map(|line| line.stamp.machine.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what is cut, and that what a change adds to it is not.
    #[test]
    fn commits_are_short_and_keep_their_mark() {
        let commit = "7e2d3754ae8a0123456789abcdef";
        assert_eq!(short_commit(Some(commit)), "7e2d3754ae8a");
        assert_eq!(short_commit(Some(&format!("{commit}+changes"))), "7e2d3754ae8a+changes");
        assert_eq!(
            (short_commit(Some("test")), short_commit(None)),
            ("test".into(), "unknown".into())
        );
    }
}
