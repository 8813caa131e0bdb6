//! The record of a run: one line of JSON with everything that is needed to read its numbers.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cli::{Cli, Scenario};
use crate::client::visitors::VisitFacts;
use crate::measure::machine::Machine;
use crate::measure::memory::Memory;
use crate::run::act::ActFacts;
use crate::run::columns::Article;
use crate::run::{AbuseFacts, SoakFacts, StormFacts};
use crate::scenarios::churn;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) tool: &'static str,
    /// Which server or build was measured.
    pub(crate) label: String,
    pub(crate) version: &'static str,
    pub(crate) commit: Option<String>,
    pub(crate) started: String,
    /// As it was given.
    pub(crate) command: String,
    pub(crate) scenario: Scenario,
    pub(crate) outcome: Outcome,
    /// Why it did not pass.
    pub(crate) reasons: Vec<String>,
    pub(crate) parameters: Cli,
    pub(crate) machine: Machine,
    pub(crate) client: ClientFacts,
    pub(crate) connect: Connect,
    /// `None` if not all connections were reached.
    pub(crate) hold: Option<Hold>,
    /// Connections that failed, by kind; `wrong` and `lost` again below, for they matter most.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
    /// Answers in all phases, each checked and right.
    pub(crate) answered: u64,
    /// Of the hold phase and what was still owed at its end. What was never answered is in
    /// `errors` and not here.
    pub(crate) latency_us: Latency,
    pub(crate) memory: Option<Memory>,
    /// What the article of 2012 told of its runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) article: Option<Article>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fanout: Option<FanoutFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) churn: Option<churn::Facts>,
    /// The hold phase, where it has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) acts: Vec<ActFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storm: Option<StormFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) abuse: Option<AbuseFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) soak: Option<SoakFacts>,
    /// By kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) visits: BTreeMap<String, VisitFacts>,
    pub(crate) series: Series,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Interrupted,
}

/// How we ran.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClientFacts {
    pub(crate) io: &'static str,
    pub(crate) io_reason: String,
    pub(crate) descriptors: &'static str,
    pub(crate) descriptors_reason: String,
    pub(crate) shards: usize,
    /// By the size of its structures.
    pub(crate) bytes_per_connection: usize,
    /// Growth of our PSS from the first connect to the full hold, buffers and histograms included.
    pub(crate) pss_bytes_per_connection: Option<f64>,
    /// From the first connect to the end of the hold phase.
    pub(crate) cpu_seconds: f64,
}

/// From the first connect until all connections are up, handshake included; for http-keepalive
/// until each has had its first answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Connect {
    pub(crate) seconds: f64,
    pub(crate) connections: u64,
    pub(crate) connections_per_second: f64,
    pub(crate) client_cpu_seconds: f64,
    pub(crate) server_cpu_seconds: Option<f64>,
    pub(crate) connections_per_server_cpu_second: Option<f64>,
}

/// From then on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Hold {
    pub(crate) seconds: f64,
    /// Requests, messages or pings that were answered, each checked.
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) client_cpu_seconds: f64,
    pub(crate) server_cpu_seconds: Option<f64>,
    pub(crate) requests_per_server_cpu_second: Option<f64>,
}

/// Of publications to many; a delivery is a request that was answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FanoutFacts {
    /// Those that every subscriber has, in all phases.
    pub(crate) publications: u64,
    /// Until the last subscriber had one.
    pub(crate) last_delivery_us: Latency,
    /// Of the pings of the connections beside, if there were any.
    pub(crate) beside_us: Option<Latency>,
}

/// `n` per second of `seconds`; `None` where there was no time to divide by.
pub(crate) fn per(n: u64, seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|&seconds| seconds > 0.0).map(|seconds| n as f64 / seconds)
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// What the times are counted from.
    pub(crate) counted_from: CountedFrom,
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// Says whether a late client is charged for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CountedFrom {
    /// When the request was due: corrected for coordinated omission.
    Due,
    /// When it was sent. Closed loop: the next is sent when one has come back, so a slow server
    /// is asked less often.
    SentInClosedLoop,
    /// When the server says that it sent a message, by the same clock, in whole milliseconds.
    SentByServer,
    /// When it was sent, by whoever published it on a schedule.
    Sent,
    /// When the first who heard it had it.
    FirstHeard,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>, counted_from: CountedFrom) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency {
            counted_from,
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max(),
        }
    }
}

/// One value for each second since the first connect.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) connections: Vec<u64>,
    /// Answered in that second.
    pub(crate) requests: Vec<u64>,
}

/// Where the record goes. Opened before the run: a run without a record is for nothing.
pub(crate) enum Sink {
    Stdout,
    File(File),
}

impl Sink {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Sink> {
        match path {
            None => Ok(Sink::Stdout),
            Some(path) => Ok(Sink::File(OpenOptions::new().append(true).create(true).open(path)?)),
        }
    }

    pub(crate) fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        match self {
            // One write, so that lines of runs at the same time do not mix.
            Sink::File(file) => file.write_all(&line),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.flush()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::engine::score::empty_histogram;

    #[test]
    fn a_record_is_one_line_with_every_section() {
        // Shows the shape that other tools read: names, units, and that parameters are complete.
        let arguments = "murre-load ws-echo --target 127.0.0.1-2:80 --conns 5 --duration 2m";
        let record = Record {
            tool: "murre-load",
            label: "peer".to_owned(),
            version: "0",
            commit: None,
            started: "1970-01-01T00:00:00Z".to_owned(),
            command: arguments.to_owned(),
            scenario: Scenario::WsEcho,
            outcome: Outcome::Passed,
            reasons: Vec::new(),
            parameters: Cli::try_parse_from(arguments.split(' ')).unwrap(),
            machine: Machine::read(),
            client: ClientFacts {
                io: "uring",
                io_reason: String::new(),
                descriptors: "normal",
                descriptors_reason: String::new(),
                shards: 2,
                bytes_per_connection: 80,
                pss_bytes_per_connection: None,
                cpu_seconds: 1.0,
            },
            connect: Connect::default(),
            hold: None,
            errors: BTreeMap::from([("lost", 0)]),
            wrong: 0,
            lost: 0,
            answered: 0,
            latency_us: Latency::of(&empty_histogram(), CountedFrom::SentInClosedLoop),
            memory: None,
            article: None,
            fanout: None,
            churn: None,
            acts: Vec::new(),
            storm: None,
            abuse: None,
            soak: None,
            visits: BTreeMap::new(),
            series: Series::default(),
        };
        let path = std::env::temp_dir().join(format!("murre-load-record-{}", std::process::id()));
        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write(&record).unwrap();
        sink.write(&record).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let json: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&json["scenario"], &json["label"]), (&"ws-echo".into(), &"peer".into()));
        assert_eq!(json["outcome"], "passed");
        assert_eq!(json["parameters"]["target"], "127.0.0.1-2:80");
        assert_eq!(json["parameters"]["duration"], 120.0);
        assert_eq!(json["latency_us"]["counted_from"], "sent-in-closed-loop");
        assert!(json["machine"]["sysctls"]["net.core.somaxconn"].is_string());
        assert!(json["series"]["connections"].is_array());
    }

    #[test]
    fn quantiles_are_in_microseconds() {
        // Shows which numbers of the histogram the record takes.
        let mut histogram = empty_histogram();
        (1..=1000).for_each(|micros| histogram.record(micros).unwrap());
        let latency = Latency::of(&histogram, CountedFrom::Due);
        assert_eq!((latency.count, latency.p50, latency.p99, latency.max), (1000, 500, 990, 1000));
        assert_eq!(per(10, Some(0.5)), Some(20.0));
        assert_eq!(per(10, Some(0.0)), None);
    }
}
