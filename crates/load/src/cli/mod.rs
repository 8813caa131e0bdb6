//! The command line.

pub(crate) mod args;
pub(crate) mod command;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use murre_core::host::{Descriptors, Io};
use serde::{Serialize, Serializer};

use self::args::{Cpus, Span, Targets};
use crate::scenarios::fanout;

/// Opens many connections to a server, checks every answer, and writes a record of the run.
///
/// Exits with 0 only if every answer was right, all connections were reached at once and no more
/// of them failed than --max-errors; with 1 otherwise, the reason on stderr; with 2 for bad
/// arguments.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "murre-load", version)]
pub(crate) struct Cli {
    /// What the connections do
    pub(crate) scenario: Scenario,

    /// Where to connect: HOST:PORT, several with commas, ranges as 127.0.0.1-31:8000
    #[arg(long, value_name = "HOST:PORT[,...]")]
    pub(crate) target: Targets,

    /// Connections; for ws-echo the active ones, for fanout and churn the subscribers, for abuse the
    /// well-behaved; for soak as many at a time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conns: u32,

    /// Request target [default: / for http-keepalive, /upper for ws-upper, /echo for ws-idle and
    /// ws-echo, otherwise /ws]
    #[arg(long)]
    pub(crate) path: Option<String>,

    /// Connects per second, all shards together; 0 is as fast as they go
    #[arg(long, value_name = "N/s", default_value = "0", value_parser = args::rate)]
    pub(crate) connect_rate: f64,

    /// How long to hold all connections; storm: how long to be quiet, before it, after it, and while
    /// those who were killed are away; abuse: how long to be quiet and how long not to be, twice
    #[arg(long, default_value = "120s", value_parser = args::duration)]
    #[serde(serialize_with = "seconds")]
    pub(crate) duration: Duration,

    /// Appends the record to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Which server or build is measured, for the record
    #[arg(long, value_name = "TEXT", default_value = "murre")]
    pub(crate) label: String,

    /// Connections that may fail (a wrong answer is never forgiven)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_errors: u64,

    /// Decides what is random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Source addresses to spread connections over
    #[arg(long, value_name = "ADDR[,...]", value_delimiter = ',', value_parser = args::source)]
    pub(crate) source: Vec<IpAddr>,

    /// Where our sockets live: in the process (limited by RLIMIT_NOFILE) or in the rings
    #[arg(long, value_enum, default_value_t)]
    pub(crate) descriptors: DescriptorsChoice,

    /// How we talk to the kernel
    #[arg(long, value_enum, default_value_t)]
    pub(crate) io: IoChoice,

    /// Threads [default: one per core, more if descriptors require it]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,

    /// Cores to pin the threads to, in turns: 1 or 0,2-3
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<Cpus>,

    /// The server's process, if it is on this machine: its memory and processor time are measured
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) server_pid: Option<i32>,

    /// Where the server's sockets live; auto looks at the size of its descriptor table
    #[arg(long, value_enum, default_value_t)]
    pub(crate) server_descriptors: DescriptorsChoice,

    /// How long an answer, or a handshake, may take; abuse, soak: or that the server ends what it must
    /// [default: 60s]
    #[arg(
        long,
        default_value = "30s",
        default_value_ifs = [("scenario", "abuse", "60s"), ("scenario", "soak", "60s")],
        value_parser = args::timed
    )]
    #[serde(serialize_with = "seconds")]
    pub(crate) timeout: Duration,

    /// A range of seconds: http-keepalive: idle between an answer and the next request; request-reply:
    /// from one request to the next [default: 0.05-0.3]; churn: from one change of mind to the next
    /// [default: 0.1-1]
    #[arg(
        long,
        value_name = "FROM-TO",
        default_value = "5-45",
        default_value_ifs = [
            ("scenario", "request-reply", "0.05-0.3"),
            ("scenario", "churn", "0.1-1"),
        ]
    )]
    pub(crate) idle: Span,

    /// ws-upper: time from one text to the next; ws-idle: from one ping of the sample to the next;
    /// fanout, storm: from one ping of a connection beside, or that stays, to the next; abuse: from one
    /// text or request of a well-behaved connection to the next [default: 100ms; storm: 500ms]
    #[arg(
        long,
        default_value = "25s",
        default_value_ifs = [
            ("scenario", "fanout", "100ms"),
            ("scenario", "storm", "500ms"),
            ("scenario", "abuse", "100ms"),
        ],
        value_parser = args::timed
    )]
    #[serde(serialize_with = "seconds")]
    pub(crate) every: Duration,

    /// ws-idle: part of the connections that ping the server; storm: part that stays, and pings
    #[arg(long, default_value = "0.01", value_parser = args::fraction)]
    pub(crate) sample: f64,

    /// Bytes: ws-echo: of a message; pubsub: of a message, about [default: 1400]; fanout: of the JSON
    /// that is published [default: 128]
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "32",
        default_value_ifs = [("scenario", "pubsub", "1400"), ("scenario", "fanout", "128")],
        value_parser = clap::value_parser!(u32).range(1..=PAYLOAD_MAX)
    )]
    pub(crate) payload: u32,

    /// ws-echo: messages under way on one connection; fanout: publications under way of one publisher
    #[arg(
        long,
        value_name = "DEPTH",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub(crate) pipeline: u32,

    /// Per second, all connections together, on a fixed schedule (open loop): ws-echo: messages;
    /// pubsub: messages of the server; fanout, churn: publications [default: as fast as they come;
    /// churn: 1000]. abuse, soak: connects of the hostile, or of the visitors, and pieces of up to
    /// 64 KiB that they say [default: 300]
    #[arg(
        long,
        value_name = "N/s",
        default_value_ifs = [
            ("scenario", "churn", "1000"),
            ("scenario", "abuse", "300"),
            ("scenario", "soak", "300"),
        ],
        value_parser = args::rate
    )]
    pub(crate) rate: Option<f64>,

    /// ws-echo: idle connections held beside the active ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) idle_conns: u32,

    /// fanout, churn: topics, which the subscribers are spread over [default: 1; churn: 10]
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        default_value_if("scenario", "churn", "10"),
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) topics: u32,

    /// churn: topics of them that have history, in the namespace `kept` [default: half]
    #[arg(long, value_name = "N")]
    pub(crate) kept: Option<u32>,

    /// fanout: connections that publish; each has its own of the topics
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) publishers: u32,

    /// fanout: connections beside them, on a thread of their own, that ping the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) beside: u32,

    /// abuse: hostile connections at a time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) hostile: u32,

    /// soak: the server's admin port, whose /stats are compared
    #[arg(long, value_name = "HOST:PORT", required_if_eq("scenario", "soak"))]
    pub(crate) admin: Option<Targets>,

    /// storm: the second time each connection comes back at a random moment of this; the first time
    /// all do at once
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    #[serde(serialize_with = "seconds")]
    pub(crate) jitter: Duration,

    /// pubsub, request-reply: writes the columns of every 15 s to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn path(&self) -> &str {
        match (&self.path, self.scenario) {
            (Some(path), _) => path,
            (None, Scenario::HttpKeepalive) => "/",
            (None, Scenario::WsUpper | Scenario::Abuse) => "/upper",
            (None, Scenario::WsIdle | Scenario::WsEcho | Scenario::Storm) => "/echo",
            (
                None,
                Scenario::Pubsub
                | Scenario::Quotes
                | Scenario::RequestReply
                | Scenario::Fanout
                | Scenario::Churn
                | Scenario::Soak,
            ) => "/ws",
        }
    }

    /// All connections that are held, whatever they do.
    pub(crate) fn conns_all(&self) -> u64 {
        // Visitors come and go.
        if self.scenario == Scenario::Soak {
            return 0;
        }
        let more = match self.scenario {
            Scenario::WsEcho => u64::from(self.idle_conns),
            Scenario::Fanout => u64::from(self.publishers) + u64::from(self.beside),
            // Who publishes.
            Scenario::Churn => 1,
            _ => 0,
        };
        u64::from(self.conns) + more
    }

    /// Connections of `storm` that are not killed.
    pub(crate) fn staying(&self) -> u32 {
        ((f64::from(self.conns) * self.sample).round() as u32).max(1)
    }

    /// Shards for connections that must not notice what others do: theirs do nothing else.
    pub(crate) fn shards_apart(&self) -> usize {
        match self.scenario {
            Scenario::Storm => 1,
            Scenario::Abuse => 2,
            Scenario::Fanout => usize::from(self.beside > 0),
            _ => 0,
        }
    }

    /// Connections at a time of those who come and go.
    pub(crate) fn visitors(&self) -> u32 {
        match self.scenario {
            Scenario::Abuse => self.hostile,
            Scenario::Soak => self.conns,
            _ => 0,
        }
    }

    /// Whether 100 ms are too coarse for its timers.
    pub(crate) fn is_finely_timed(&self) -> bool {
        use Scenario::{Abuse, Churn, RequestReply, Soak};
        matches!(self.scenario, RequestReply | Churn | Abuse | Soak)
    }

    /// Whether the article of 2012 measured this.
    pub(crate) fn is_of_article(&self) -> bool {
        matches!(self.scenario, Scenario::Pubsub | Scenario::RequestReply)
    }

    /// Topics with history.
    pub(crate) fn kept(&self) -> u32 {
        self.kept.unwrap_or(self.topics / 2)
    }

    /// What no single argument shows to be wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.path().starts_with('/') || self.path().contains([' ', '\r', '\n', '#']) {
            return Err(format!("--path `{}` must begin with / and hold no spaces", self.path()));
        }
        if self.conns_all() > u64::from(u32::MAX) {
            return Err("--conns and those beside them are too many".to_owned());
        }
        if self.rate == Some(0.0) {
            return Err("--rate must be more than 0: leave it out for a closed loop".to_owned());
        }
        if self.scenario == Scenario::Abuse && self.conns < 2 {
            return Err("--conns: abuse has well-behaved connections of two sorts".to_owned());
        }
        if self.is_finely_timed() && self.idle.to.max(self.timeout.as_secs_f64()) > FINE_SECONDS_MAX
        {
            return Err(format!("--idle and --timeout are {FINE_SECONDS_MAX} s here at most"));
        }
        if self.scenario == Scenario::Storm && self.staying() >= self.conns {
            return Err("--sample leaves nobody to be killed".to_owned());
        }
        if matches!(self.scenario, Scenario::Fanout | Scenario::Churn) {
            if self.topics > self.conns {
                return Err("--topics without subscribers: give as many --conns".to_owned());
            }
            if self.kept() > self.topics {
                return Err("--kept is more than there are --topics".to_owned());
            }
        }
        if self.scenario == Scenario::Fanout {
            if self.publishers > self.topics {
                return Err("--publishers without topics: give as many --topics".to_owned());
            }
            if self.payload < fanout::PAYLOAD_BYTES_MIN {
                return Err(format!("--payload is {} at least", fanout::PAYLOAD_BYTES_MIN));
            }
        }
        let under_way = u64::from(self.payload) * u64::from(self.pipeline);
        if under_way > u64::from(PAYLOAD_MAX as u32) {
            return Err(format!("--payload times --pipeline is more than {PAYLOAD_MAX} bytes"));
        }
        Ok(())
    }
}

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Ask for a body of random length, compare it, stay idle, ask again (http-kit 2013)
    HttpKeepalive,
    /// Send a text every so often, expect it in upper case (Gretty 2010)
    WsUpper,
    /// Hold WebSockets; a sample pings the server
    WsIdle,
    /// Send messages and expect them back: throughput and latency
    WsEcho,
    /// Subscribe to one identifier each, and hear what the server publishes (2012)
    Pubsub,
    /// Hear what the quotes page hears, on many pages
    Quotes,
    /// Ask a service for an order every so often (2012)
    RequestReply,
    /// Publish to many subscribers, each of whom must get everything
    Fanout,
    /// Subscribe, unsubscribe and reconnect while somebody publishes
    Churn,
    /// Hold WebSockets, kill all but a few at once, have them come back: without and with jitter
    Storm,
    /// Hostile peers of every kind beside well-behaved connections, which must not notice
    Abuse,
    /// Connect, use the server and vanish in every way, after which nothing may be left
    Soak,
}

impl Scenario {
    /// The same, as records have it.
    pub(crate) fn recorded(self) -> murre_record::Scenario {
        use murre_record::Scenario as Recorded;
        match self {
            Scenario::HttpKeepalive => Recorded::HttpKeepalive,
            Scenario::WsUpper => Recorded::WsUpper,
            Scenario::WsIdle => Recorded::WsIdle,
            Scenario::WsEcho => Recorded::WsEcho,
            Scenario::Pubsub => Recorded::Pubsub,
            Scenario::Quotes => Recorded::Quotes,
            Scenario::RequestReply => Recorded::RequestReply,
            Scenario::Fanout => Recorded::Fanout,
            Scenario::Churn => Recorded::Churn,
            Scenario::Storm => Recorded::Storm,
            Scenario::Abuse => Recorded::Abuse,
            Scenario::Soak => Recorded::Soak,
        }
    }
}

/// `auto`, or one of the kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DescriptorsChoice {
    #[default]
    Auto,
    Normal,
    Direct,
}

impl DescriptorsChoice {
    pub(crate) fn wanted(self) -> Option<Descriptors> {
        match self {
            DescriptorsChoice::Auto => None,
            DescriptorsChoice::Normal => Some(Descriptors::Normal),
            DescriptorsChoice::Direct => Some(Descriptors::Direct),
        }
    }
}

/// `auto`, or one of the forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IoChoice {
    #[default]
    Auto,
    Uring,
    /// What Linux 5.10 has
    UringPlain,
    /// Without io_uring
    Epoll,
}

impl IoChoice {
    pub(crate) fn wanted(self) -> Option<Io> {
        match self {
            IoChoice::Auto => None,
            IoChoice::Uring => Some(Io::Uring),
            IoChoice::UringPlain => Some(Io::UringPlain),
            IoChoice::Epoll => Some(Io::Epoll),
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What a timer of 10 ms can count.
const FINE_SECONDS_MAX: f64 = 650.0;

/// What one connection may have under way.
const PAYLOAD_MAX: i64 = 64 << 20;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn cli(arguments: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(arguments.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        // Shows what clap checks only when asked to.
        Cli::command().debug_assert();
    }

    #[test]
    fn scenarios_have_their_defaults() {
        // Shows the request target of each scenario and which connections count.
        let run = |scenario: &str| {
            cli(&format!("murre-load {scenario} --target 127.0.0.1:80 --conns 3 --idle-conns 4"))
                .expect(scenario)
        };
        assert_eq!(run("http-keepalive").path(), "/");
        assert_eq!(run("ws-upper").path(), "/upper");
        assert_eq!(run("ws-idle").path(), "/echo");
        assert_eq!((run("ws-idle").conns_all(), run("ws-echo").conns_all()), (3, 7));
        let (pubsub, fanout, churn) = (run("pubsub"), run("fanout"), run("churn"));
        assert_eq!((pubsub.path(), fanout.path(), churn.path()), ("/ws", "/ws", "/ws"));
        assert_eq!((pubsub.payload, fanout.payload, churn.payload), (1400, 128, 32));
        assert_eq!((pubsub.rate, churn.rate, churn.topics), (None, Some(1000.0), 10));
        assert_eq!((fanout.conns_all(), churn.conns_all(), churn.kept()), (4, 4, 5));
        assert_eq!(fanout.every, Duration::from_millis(100));
        let storm = run("storm");
        assert_eq!((storm.every, storm.staying()), (Duration::from_millis(500), 1));
        assert_eq!(run("request-reply").idle.to_string(), "0.05-0.3");
        let given = cli("murre-load pubsub --target 127.0.0.1:80 --conns 1 --payload 170");
        assert_eq!(given.expect("an argument goes before a default").payload, 170);
    }

    #[test]
    fn arguments_that_mean_nothing_are_refused() {
        // Shows that each is found before the run, by clap (exit 2) or by `check`.
        let base = "murre-load ws-echo --target 127.0.0.1:80";
        for wrong in
            ["", "--conns 0", "--conns 1 --payload 0", "--conns 1 --sample 2", "--conns 1 --cpus x"]
        {
            assert!(cli(&format!("{base} {wrong}")).is_err(), "{wrong}");
        }
        for wrong in ["--rate 0", "--path echo", "--payload 1000000 --pipeline 4096"] {
            let cli = cli(&format!("{base} --conns 1 {wrong}")).expect(wrong);
            assert!(cli.check().is_err(), "{wrong}");
        }
        for wrong in [
            "fanout --conns 2 --topics 3",
            "fanout --conns 2 --topics 2 --publishers 3",
            "fanout --conns 2 --payload 25",
            "churn --conns 20 --kept 11",
            "churn --conns 9",
            "request-reply --conns 1 --idle 1-700",
            "storm --conns 1",
            "abuse --conns 1",
        ] {
            let cli = cli(&format!("murre-load {wrong} --target 127.0.0.1:80")).expect(wrong);
            assert!(cli.check().is_err(), "{wrong}");
        }
    }
}
