//! The command line: a subcommand for each scenario and each tool.

pub(crate) mod args;
pub(crate) mod common;

use clap::{Parser, Subcommand};
use serde::Serialize;

use self::common::Common;
use crate::measure::memory_tool::MemoryArguments;
use crate::scenarios::scenario::{Profile, Scenario};
use crate::scenarios::{
    abuse, backend, churn, fanout, http_keepalive, interest, phoenix, presence, pubsub, quotes,
    recover, request_reply, soak, storm, ws_echo, ws_idle, ws_upper,
};

/// Opens many connections to a server, checks every answer, and writes a record of the run.
///
/// Exits with 0 only if every answer was right, all connections were up at once and no more of them
/// failed than --max-errors; with 1 otherwise, with the reason on stderr; with 2 for bad arguments.
#[derive(Parser)]
#[command(name = "murre-load", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A scenario, or a tool that goes with records.
#[derive(Subcommand)]
#[command(subcommand_help_heading = "Scenarios and tools", disable_help_subcommand = true)]
pub(crate) enum Command {
    /// Request a body of random length, compare it, stay idle, request again (http-kit 2013)
    HttpKeepalive(Run<http_keepalive::Args>),
    /// Send a text at intervals, expect it in upper case (Gretty 2010)
    WsUpper(Run<ws_upper::Args>),
    /// Hold WebSockets; a sample pings the server
    WsIdle(Run<ws_idle::Args>),
    /// Send messages and expect them back: throughput and latency
    #[command(mut_arg("conns", |arg| arg.help("Connections that send messages")))]
    WsEcho(Run<ws_echo::Args>),
    /// Subscribe to one channel each, and receive what the server publishes (2012)
    Pubsub(Run<pubsub::Args>),
    /// Receive what the quotes page of --bench receives, on many pages
    Quotes(Run<quotes::Args>),
    /// Request an order from a service at intervals (2012)
    RequestReply(Run<request_reply::Args>),
    /// Publish to many subscribers, each of which must receive everything
    #[command(mut_arg("conns", |arg| arg.help("Subscribers")))]
    Fanout(Run<fanout::Args>),
    /// Subscribe, unsubscribe and reconnect while one connection publishes
    #[command(mut_arg("conns", |arg| arg.help("Subscribers")))]
    Churn(Run<churn::Args>),
    /// Recover on another node when the own one ends, while connections publish
    #[command(mut_arg("conns", |arg| arg.help("Subscribers")))]
    Recover(Run<recover::Args>),
    /// End and begin subscriptions of connections with many channels each
    Interest(Run<interest::Args>),
    /// Join one Phoenix topic each, and send heartbeats (2020)
    Phoenix(Run<phoenix::Args>),
    /// Join and leave channels with presence, whose members are told
    #[command(mut_arg("conns", |arg| arg.help("Connections that join and leave")))]
    Presence(Run<presence::Args>),
    /// Hold WebSockets, reset most of them at once, let them return: without and with jitter
    #[command(mut_arg("duration", |arg| arg.help(
        "How long each part lasts: before the storm, while the connections are away, and after it"
    )))]
    Storm(Run<storm::Args>),
    /// Connect in one moment to a server that asks an application about each connection
    #[command(
        mut_arg("conns", |arg| arg.help("Connections that come at once")),
        mut_arg("duration", |arg| arg.help("How long each part lasts: quiet, and after the reset"))
    )]
    Backend(Run<backend::Args>),
    /// Hostile peers of every kind beside well-behaved connections, which must not notice
    #[command(
        mut_arg("conns", |arg| arg.help("Well-behaved connections")),
        mut_arg("duration", |arg| arg.help("How long each part lasts: quiet, then hostile, twice")),
        mut_arg("timeout", |arg| arg.default_value("60s").help(
            "How long an answer may take, and how long the server may take to end a hostile connection"
        ))
    )]
    Abuse(Run<abuse::Args>),
    /// Connect, use the server and vanish in every way, after which nothing may be left
    #[command(
        mut_arg("conns", |arg| arg.help("Connections at a time")),
        mut_arg("timeout", |arg| arg.default_value("60s").help(
            "How long an answer may take, and how long the server may take to end a connection"
        ))
    )]
    Soak(Run<soak::Args>),
    Memory(MemoryArguments),
    /// Adds time, commit and machine to each line of JSON on stdin, and prints it
    #[command(alias = "stamp")]
    Annotate,
}

/// A scenario's command line.
#[derive(clap::Args, Serialize)]
pub(crate) struct Run<S: clap::Args + Serialize> {
    #[command(flatten)]
    #[serde(flatten)]
    common: Common,

    #[command(flatten, next_help_heading = "Options of this scenario")]
    #[serde(flatten)]
    scenario: S,
}

/// A run to be made.
pub(crate) struct Job {
    pub(crate) common: Common,
    pub(crate) scenario: Box<dyn Scenario>,
    pub(crate) profile: Profile,
    /// All arguments, for the record.
    pub(crate) parameters: serde_json::Value,
}

impl<S: clap::Args + Serialize + Scenario + 'static> From<Run<S>> for Job {
    fn from(run: Run<S>) -> Job {
        let parameters = serde_json::to_value(&run).expect("arguments have text keys");
        let Run { common, scenario } = run;
        Job { common, profile: scenario.profile(), scenario: Box::new(scenario), parameters }
    }
}

impl Job {
    /// The request target.
    pub(crate) fn path(&self) -> &str {
        self.common.path.as_deref().unwrap_or(self.profile.path)
    }

    /// All connections that are held at once.
    pub(crate) fn conns_all(&self) -> u64 {
        self.scenario.conns_all(&self.common)
    }

    /// Errors that no single argument shows.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.path().starts_with('/') || self.path().contains([' ', '\r', '\n', '#']) {
            return Err(format!("--path `{}` must begin with / and hold no spaces", self.path()));
        }
        if self.conns_all() > u64::from(u32::MAX) {
            return Err("--conns and the connections beside them are too many".to_owned());
        }
        self.scenario.check(&self.common)
    }
}

impl Command {
    /// The command, whichever scenario it is.
    pub(crate) fn task(self) -> Task {
        Task::Run(Box::new(match self {
            Command::HttpKeepalive(run) => run.into(),
            Command::WsUpper(run) => run.into(),
            Command::WsIdle(run) => run.into(),
            Command::WsEcho(run) => run.into(),
            Command::Pubsub(run) => run.into(),
            Command::Quotes(run) => run.into(),
            Command::RequestReply(run) => run.into(),
            Command::Fanout(run) => run.into(),
            Command::Churn(run) => run.into(),
            Command::Recover(run) => run.into(),
            Command::Interest(run) => run.into(),
            Command::Phoenix(run) => run.into(),
            Command::Presence(run) => run.into(),
            Command::Storm(run) => run.into(),
            Command::Backend(run) => run.into(),
            Command::Abuse(run) => run.into(),
            Command::Soak(run) => run.into(),
            Command::Memory(arguments) => return Task::Memory(arguments),
            Command::Annotate => return Task::Annotate,
        }))
    }
}

/// What the command line asks for.
pub(crate) enum Task {
    Run(Box<Job>),
    Memory(MemoryArguments),
    Annotate,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use serde_json::json;

    use super::*;

    fn job(arguments: &str) -> Result<Job, clap::Error> {
        let words = format!("murre-load {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace())?;
        match cli.command.task() {
            Task::Run(job) => Ok(*job),
            Task::Memory(_) | Task::Annotate => panic!("{arguments} is not a scenario"),
        }
    }

    /// Shows what clap checks only when asked to.
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Shows each scenario's request target, how many connections it holds, and its own defaults.
    #[test]
    fn scenarios_have_their_defaults() {
        let run = |arguments: &str| job(&format!("{arguments} --target 127.0.0.1:80 --conns 12"));
        for (arguments, path, conns, parameters) in [
            ("http-keepalive", "/", 12, json!({"idle": "5-45"})),
            ("ws-upper", "/upper", 12, json!({"every": 25.0})),
            ("ws-idle", "/echo", 12, json!({"every": 25.0, "sample": 0.01})),
            ("ws-echo --idle-conns 4", "/echo", 16, json!({"payload": 32, "rate": null})),
            ("pubsub", "/ws", 12, json!({"payload": 1400, "rate": null, "csv": null})),
            ("quotes", "/ws", 12, json!({"timeout": 30.0})),
            ("request-reply", "/ws", 12, json!({"idle": "0.05-0.3"})),
            ("fanout", "/ws", 13, json!({"payload": 128, "every": 0.1, "channels": 1})),
            ("fanout --topics 3", "/ws", 13, json!({"channels": 3})),
            ("churn", "/ws", 13, json!({"rate": 1000.0, "channels": 10, "idle": "0.1-1"})),
            ("recover --channels 4", "/ws", 15, json!({"rate": 100.0, "plain": false})),
            ("interest --beside 2", "/ws", 14, json!({"channels": 100, "every": 0.1})),
            ("storm", "/echo", 12, json!({"every": 0.5, "jitter": 10.0})),
            ("backend --application 127.0.0.1:82", "/ws", 112, json!({"answer_time": 0.02})),
            ("abuse", "/upper", 12, json!({"every": 0.1, "rate": 300.0, "timeout": 60.0})),
            ("soak --admin 127.0.0.1:81", "/ws", 0, json!({"rate": 300.0, "timeout": 60.0})),
            ("pubsub --payload 170", "/ws", 12, json!({"payload": 170})),
        ] {
            let job = run(arguments).expect(arguments);
            assert_eq!(job.check(), Ok(()), "{arguments}");
            assert_eq!((job.path(), job.conns_all()), (path, conns), "{arguments}");
            for (name, value) in parameters.as_object().expect("an object") {
                assert_eq!(&job.parameters[name], value, "{arguments}: {name}");
            }
        }
    }

    /// Shows that errors are found before the run, by clap (exit code 2) or by `check`.
    #[test]
    fn arguments_without_sense_are_refused() {
        for wrong in [
            "ws-echo",
            "ws-echo --conns 0",
            "ws-echo --conns 1 --payload 0",
            "ws-idle --conns 1 --sample 2",
            "ws-echo --conns 1 --cpus x",
            "ws-idle --conns 1 --payload 32",
            "soak --conns 1",
            "backend --conns 1",
            "nonsense --conns 1",
        ] {
            assert!(job(&format!("{wrong} --target 127.0.0.1:80")).is_err(), "{wrong}");
        }
        for wrong in [
            "ws-echo --conns 1 --rate 0",
            "ws-echo --conns 1 --path echo",
            "ws-echo --conns 1 --payload 1000000 --pipeline 4096",
            "fanout --conns 2 --channels 3",
            "fanout --conns 2 --channels 2 --publishers 3",
            "fanout --conns 2 --payload 25",
            "churn --conns 20 --kept 11",
            "churn --conns 9",
            "interest --conns 9 --rate 0",
            "recover --conns 9 --channels 10",
            "recover --conns 9 --channels 2",
            "recover --conns 900 --rate 0",
            "request-reply --conns 1 --idle 1-700",
            "storm --conns 1",
            "abuse --conns 1",
        ] {
            let job = job(&format!("{wrong} --target 127.0.0.1:80")).expect(wrong);
            assert!(job.check().is_err(), "{wrong}");
        }
    }
}
