//! What Murre promises, and how each promise is computed from records. This table is the only one:
//! `report` fills SPECIFICATION.md and bench-results/README.md from it, `verdict` judges by it.

use clap::ValueEnum;

use crate::cli::Scenario;
use crate::compare;
use crate::figures::{Unit, with_unit};
use crate::record::Outcome;
use crate::records::{Ab, Content, Place, Records, Run};

/// One promise.
pub(crate) struct Promise {
    pub(crate) id: &'static str,
    pub(crate) topic: Topic,
    /// The published run that it is about.
    pub(crate) about: Option<About>,
    pub(crate) text: &'static str,
    pub(crate) target: Target,
    pub(crate) unit: Unit,
    /// How to measure it again.
    pub(crate) measured_by: &'static str,
    pub(crate) evidence: Evidence,
}

/// The sections of SPECIFICATION.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Memory,
    Connections,
    Speed,
}

impl Topic {
    pub(crate) const ALL: [Topic; 3] = [Topic::Memory, Topic::Connections, Topic::Speed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Topic::Memory => "memory",
            Topic::Connections => "connections",
            Topic::Speed => "speed",
        }
    }
}

/// A published run that is reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum About {
    /// http-kit, 2013: 600,000 HTTP keep-alive connections
    R1,
    /// Gretty, 2010: 512,000 WebSockets that send a text every 25 s
    R2,
    /// Grizzly's criterion, 2005: think time 8 s, 90 % within 3 s, errors under 0.1 %
    R4,
    /// 1,000,000 idle WebSockets for 10 minutes
    #[value(name = "idle-1m")]
    Idle1m,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    /// Reported, not promised.
    None,
}

impl Target {
    pub(crate) fn is_kept(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::Below(limit) => value < limit,
            Target::AtLeast(limit) => value >= limit,
            Target::None => true,
        }
    }

    pub(crate) fn text(self, unit: Unit) -> String {
        match self {
            Target::AtMost(0.0) => "none".to_owned(),
            Target::AtMost(limit) => format!("at most {}", with_unit(limit, unit)),
            Target::Below(limit) => format!("below {}", with_unit(limit, unit)),
            Target::AtLeast(limit) => format!("at least {}", with_unit(limit, unit)),
            Target::None => "as many as can be".to_owned(),
        }
    }
}

/// What a promise is computed from.
#[derive(Clone, Copy)]
pub(crate) enum Evidence {
    /// One run, if it is what the promise is about.
    Run(Needs, fn(&Run) -> Option<f64>),
    /// The most connections of any run that is what the promise is about.
    Most(Needs),
    /// `ab` while a run holds its connections.
    Ab(Needs, fn(&Ab) -> f64),
    /// The same, divided by what nginx does in the same run.
    AbBesideNginx(Needs),
    /// Our runs divided by the best peer's, in pairs; less is better if the flag says so.
    Peers(Needs, fn(&Run) -> Option<f64>, compare::Better),
}

/// What a run must be for a promise to be about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    scenarios: &'static [Scenario],
    /// Connections reached: from the first, and fewer than the second.
    conns: (u64, u64),
    hold_seconds: f64,
    /// One of these, if there are any.
    idle: &'static [&'static str],
    unthrottled: bool,
    descriptors: Option<&'static str>,
    open_files_max: Option<u64>,
    payload: Option<u64>,
    p90_ms_max: Option<f64>,
    faults_per_answer_max: Option<f64>,
}

impl Needs {
    const fn of(scenarios: &'static [Scenario], conns_min: u64) -> Needs {
        Needs {
            scenarios,
            conns: (conns_min, u64::MAX),
            hold_seconds: 0.0,
            idle: &[],
            unthrottled: false,
            descriptors: None,
            open_files_max: None,
            payload: None,
            p90_ms_max: None,
            faults_per_answer_max: None,
        }
    }

    /// Why a run cannot show the promise. `None` if it can.
    pub(crate) fn unmet(&self, run: &Run) -> Option<String> {
        let p = &run.parameters;
        if !self.scenarios.contains(&run.scenario) {
            return Some("another scenario".to_owned());
        }
        let (from, below) = self.conns;
        if !(from..below).contains(&run.connections()) {
            let needed = crate::figures::grouped(from);
            let reached = crate::figures::grouped(run.connections());
            return Some(format!("{reached} connections instead of {needed}"));
        }
        let held = run.hold.as_ref().map_or(0.0, |hold| hold.seconds);
        if held < self.hold_seconds {
            return Some(format!("held for {held:.0} s instead of {:.0} s", self.hold_seconds));
        }
        if !self.idle.is_empty() && !self.idle.contains(&&p.idle[..]) {
            return Some(format!("idle {} s instead of {} s", p.idle, self.idle[0]));
        }
        if self.unthrottled && p.connect_rate > 0.0 {
            return Some("connects were paced by --connect-rate".to_owned());
        }
        let descriptors = run.memory.as_ref().map(|memory| &memory.server_descriptors[..]);
        if self.descriptors.is_some_and(|kind| descriptors.is_some_and(|own| own != kind)) {
            return Some(format!("{} descriptors", descriptors.unwrap_or_default()));
        }
        let files = run.machine.open_files_max;
        if let Some(max) = self.open_files_max.filter(|&max| files > max) {
            return Some(format!("open files were limited to {files}, not to {max}"));
        }
        if let Some(payload) = self.payload.filter(|&payload| payload != p.payload) {
            return Some(format!("messages of {} B instead of {payload} B", p.payload));
        }
        let p90 = run.latency_us.p90 as f64 / 1000.0;
        if let Some(max) = self.p90_ms_max.filter(|&max| p90 > max) {
            return Some(format!("90 % within {p90:.0} ms instead of {max:.0} ms"));
        }
        let errors = error_rate(run).unwrap_or(1.0);
        if self.faults_per_answer_max.is_some_and(|max| errors >= max) {
            return Some(format!("{:.2} % errors", errors * 100.0));
        }
        None
    }
}

/// What records say about a promise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    /// The lines it is computed from, the most important first.
    pub(crate) places: Vec<Place>,
}

impl Promise {
    /// What the newest records that can show this promise say; `None` while there are none.
    pub(crate) fn measure(&self, records: &Records) -> Option<Measured> {
        match self.evidence {
            Evidence::Run(needs, value) => {
                let (place, value) = newest(records, &needs, value)?;
                Some(Measured { value, places: vec![place.clone()] })
            }
            Evidence::Most(needs) => {
                let runs = records.runs().filter(|(_, run)| run.is_ours());
                let able = runs.filter(|(_, run)| needs.unmet(run).is_none());
                let (place, run) = able.max_by_key(|(_, run)| run.connections())?;
                Some(Measured { value: run.connections() as f64, places: vec![place.clone()] })
            }
            Evidence::Ab(needs, value) => {
                let (at, ab) = ab_beside_newest(records, &needs, OURS)?;
                Some(Measured { value: value(ab), places: vec![at.clone()] })
            }
            Evidence::AbBesideNginx(needs) => {
                let (at, ours) = ab_beside_newest(records, &needs, OURS)?;
                let (peer_at, nginx) = ab_beside_newest(records, &needs, "nginx")?;
                let value = ours.requests_per_second / nginx.requests_per_second;
                Some(Measured { value, places: vec![at.clone(), peer_at.clone()] })
            }
            Evidence::Peers(needs, value, better) => {
                let runs = records.runs().filter(|(_, run)| needs.unmet(run).is_none());
                compare::with_best_peer(runs, value, better)
            }
        }
    }

    pub(crate) fn needs(&self) -> &Needs {
        match &self.evidence {
            Evidence::Run(needs, _)
            | Evidence::Most(needs)
            | Evidence::Ab(needs, _)
            | Evidence::AbBesideNginx(needs)
            | Evidence::Peers(needs, ..) => needs,
        }
    }
}

/// The newest run of ours that a promise is about.
fn newest<'r>(
    records: &'r Records,
    needs: &Needs,
    value: fn(&Run) -> Option<f64>,
) -> Option<(&'r Place, f64)> {
    let ours = records.runs().filter(|(_, run)| run.is_ours() && needs.unmet(run).is_none());
    let measured = ours.filter_map(|(place, run)| Some(((&run.started, place), value(run)?)));
    let newest = measured.max_by(|(one, _), (other, _)| one.cmp(other));
    newest.map(|((_, place), value)| (place, value))
}

/// `ab` against a server in the same file as our newest run: the newest such line that says it had
/// as many connections held beside it.
fn ab_beside_newest<'r>(
    records: &'r Records,
    needs: &Needs,
    label: &str,
) -> Option<(&'r Place, &'r Ab)> {
    let (run, _) = newest(records, needs, |run| Some(run.connections() as f64))?;
    let lines = records.lines.iter().filter(|line| line.place.file == run.file);
    let abs = lines.filter_map(|line| match &line.content {
        Content::Ab(ab) => Some((&line.place, ab)),
        _ => None,
    });
    abs.filter(|(_, ab)| ab.label == label && ab.connections_held >= needs.conns.0)
        .max_by(|(_, one), (_, other)| one.started.cmp(&other.started))
}

/// The label of our own server in records.
pub(crate) const OURS: &str = "murre";

impl Run {
    /// A run of our own server that came to its end.
    pub(crate) fn is_ours(&self) -> bool {
        self.label == OURS && self.ended()
    }

    /// Whether nobody interrupted it.
    pub(crate) fn ended(&self) -> bool {
        self.outcome != Outcome::Interrupted
    }
}

// ---- values ----

/// Errors for each right answer.
pub(crate) fn error_rate(run: &Run) -> Option<f64> {
    let answers = run.hold.as_ref()?.requests.max(1);
    Some(run.faults() as f64 / answers as f64)
}

/// What an idle connection costs the server's processors, in microseconds a second.
pub(crate) fn idle_cpu_us(run: &Run) -> Option<f64> {
    let hold = run.hold.as_ref()?;
    Some(hold.server_cpu_seconds? * 1e6 / hold.seconds / run.connections().max(1) as f64)
}

pub(crate) fn user_bytes(run: &Run) -> Option<f64> {
    run.memory.as_ref().map(|memory| memory.user)
}

pub(crate) fn total_bytes(run: &Run) -> Option<f64> {
    run.memory.as_ref()?.total
}

pub(crate) fn per_second(run: &Run) -> Option<f64> {
    run.hold.as_ref().map(|hold| hold.requests_per_second)
}

pub(crate) fn per_cpu_second(run: &Run) -> Option<f64> {
    run.hold.as_ref()?.requests_per_server_cpu_second
}

pub(crate) fn p99_ms(run: &Run) -> Option<f64> {
    (run.latency_us.count > 0).then(|| run.latency_us.p99 as f64 / 1000.0)
}

fn faults(run: &Run) -> Option<f64> {
    Some(run.faults() as f64)
}

fn connect_seconds(run: &Run) -> Option<f64> {
    Some(run.connect.seconds)
}

// ---- the table ----

const IDLE: &[Scenario] = &[Scenario::WsIdle];
/// After a text every 25 s a WebSocket is as idle as one that has said nothing.
const QUIET: &[Scenario] = &[Scenario::WsIdle, Scenario::WsUpper];
const KEEP_ALIVE: &[Scenario] = &[Scenario::HttpKeepalive];
const UPPER: &[Scenario] = &[Scenario::WsUpper];
const ECHO: &[Scenario] = &[Scenario::WsEcho];

const R1: Needs = Needs::of(KEEP_ALIVE, 600_000);
const R1_FIVE_MINUTES: Needs = Needs { hold_seconds: 299.0, idle: &["5-45"], ..R1 };
const R2: Needs = Needs::of(UPPER, 600_000);
const MILLION: Needs = Needs::of(IDLE, 1_000_000);
const MILLION_TEN_MINUTES: Needs = Needs { hold_seconds: 599.0, ..MILLION };
const ECHO_64: Needs = Needs { conns: (64, 65), ..Needs::of(ECHO, 64) };
const ECHO_32: Needs = Needs { payload: Some(32), ..ECHO_64 };
const ECHO_1K: Needs = Needs { payload: Some(1024), ..ECHO_64 };

const IDLE_COMMAND: &str = "scripts/bench idle";
const HTTP_COMMAND: &str = "scripts/bench http";
const ECHO_COMMAND: &str = "scripts/bench echo";
const R1_COMMAND: &str = "scripts/reproduce-600k";
const R2_COMMAND: &str = "scripts/reproduce-512k-websockets";
const MILLION_COMMAND: &str = "scripts/reproduce-1m-idle";

/// Every promise.
pub(crate) static PROMISES: &[Promise] = &[
    Promise {
        id: "user-100k",
        topic: Topic::Memory,
        about: None,
        text: "User space per idle WebSocket, at 100,000",
        target: Target::AtMost(96.0),
        unit: Unit::Bytes,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(
            Needs { conns: (100_000, 600_000), ..Needs::of(IDLE, 0) },
            user_bytes,
        ),
    },
    Promise {
        id: "user-600k",
        topic: Topic::Memory,
        about: Some(About::R2),
        text: "User space per WebSocket, at 600,000",
        target: Target::AtMost(96.0),
        unit: Unit::Bytes,
        measured_by: R2_COMMAND,
        evidence: Evidence::Run(
            Needs { conns: (600_000, 1_000_000), ..Needs::of(QUIET, 0) },
            user_bytes,
        ),
    },
    Promise {
        id: "user-1m",
        topic: Topic::Memory,
        about: Some(About::Idle1m),
        text: "User space per idle WebSocket, at 1,000,000",
        target: Target::AtMost(96.0),
        unit: Unit::Bytes,
        measured_by: MILLION_COMMAND,
        evidence: Evidence::Run(MILLION, user_bytes),
    },
    Promise {
        id: "all-in-normal",
        topic: Topic::Memory,
        about: None,
        text: "All in, per idle WebSocket on a normal descriptor, from 10,000 on",
        target: Target::AtMost(4220.0),
        unit: Unit::Bytes,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(
            Needs { descriptors: Some("normal"), ..Needs::of(IDLE, 10_000) },
            total_bytes,
        ),
    },
    Promise {
        id: "all-in-direct",
        topic: Topic::Memory,
        about: None,
        text: "All in, per idle WebSocket on a direct descriptor, from 100,000 on",
        target: Target::AtMost(4250.0),
        unit: Unit::Bytes,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(
            Needs { descriptors: Some("direct"), ..Needs::of(IDLE, 100_000) },
            total_bytes,
        ),
    },
    Promise {
        id: "all-in-1m",
        topic: Topic::Memory,
        about: Some(About::Idle1m),
        text: "All in, per idle WebSocket, at 1,000,000 (30 B less on normal descriptors)",
        target: Target::AtMost(4250.0),
        unit: Unit::Bytes,
        measured_by: MILLION_COMMAND,
        evidence: Evidence::Run(MILLION, |run| {
            let normal = run.memory.as_ref()?.server_descriptors == "normal";
            Some(total_bytes(run)? + if normal { 30.0 } else { 0.0 })
        }),
    },
    Promise {
        id: "client-bytes",
        topic: Topic::Memory,
        about: None,
        text: "User space per idle connection of the load generator, by the sizes of its parts",
        target: Target::AtMost(128.0),
        unit: Unit::Bytes,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(Needs::of(IDLE, 10_000), |run| {
            Some(run.client.bytes_per_connection as f64)
        }),
    },
    Promise {
        id: "idle-100k-faults",
        topic: Topic::Connections,
        about: None,
        text: "Faults among 100,000 WebSockets of one process that may open 20,000 files",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(
            Needs { open_files_max: Some(20_000), ..Needs::of(IDLE, 100_000) },
            faults,
        ),
    },
    Promise {
        id: "http-100k-faults",
        topic: Topic::Connections,
        about: None,
        text: "Wrong bodies and lost connections of 100,000 HTTP connections in 2 minutes",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: HTTP_COMMAND,
        evidence: Evidence::Run(
            Needs { hold_seconds: 119.0, ..Needs::of(KEEP_ALIVE, 100_000) },
            faults,
        ),
    },
    Promise {
        id: "connect-rate",
        topic: Topic::Connections,
        about: None,
        text: "WebSockets opened per second, handshake included, both ends on 2 cores",
        target: Target::AtLeast(40_000.0),
        unit: Unit::PerSecond,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(Needs { unthrottled: true, ..Needs::of(QUIET, 100_000) }, |run| {
            Some(run.connect.connections_per_second)
        }),
    },
    Promise {
        id: "r1-reached",
        topic: Topic::Connections,
        about: Some(About::R1),
        text: "R1: until 600,000 HTTP connections are up, each with its first answer",
        target: Target::Below(60.0),
        unit: Unit::Seconds,
        measured_by: R1_COMMAND,
        evidence: Evidence::Run(R1, connect_seconds),
    },
    Promise {
        id: "r1-faults",
        topic: Topic::Connections,
        about: Some(About::R1),
        text: "R1: wrong bodies, lost connections and other faults in 5 minutes",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: R1_COMMAND,
        evidence: Evidence::Run(R1_FIVE_MINUTES, faults),
    },
    Promise {
        id: "r2-faults",
        topic: Topic::Connections,
        about: Some(About::R2),
        text: "R2: wrong texts, lost connections and other faults at 600,000 WebSockets",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: R2_COMMAND,
        evidence: Evidence::Run(R2, faults),
    },
    Promise {
        id: "idle-1m-faults",
        topic: Topic::Connections,
        about: Some(About::Idle1m),
        text: "Lost connections and other faults of 1,000,000 idle WebSockets in 10 minutes",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: MILLION_COMMAND,
        evidence: Evidence::Run(MILLION_TEN_MINUTES, faults),
    },
    Promise {
        id: "idle-1m-cpu",
        topic: Topic::Speed,
        about: Some(About::Idle1m),
        text: "Processor time per idle WebSocket and second, at 1,000,000 and a ping every 25 s",
        target: Target::Below(1.0),
        unit: Unit::Micros,
        measured_by: MILLION_COMMAND,
        evidence: Evidence::Run(MILLION_TEN_MINUTES, idle_cpu_us),
    },
    Promise {
        id: "r1-rate",
        topic: Topic::Speed,
        about: Some(About::R1),
        text: "R1: requests per second for 5 minutes, idle 5 to 45 s between them",
        target: Target::AtLeast(24_000.0),
        unit: Unit::PerSecond,
        measured_by: R1_COMMAND,
        evidence: Evidence::Run(R1_FIVE_MINUTES, per_second),
    },
    Promise {
        id: "r1-ab",
        topic: Topic::Speed,
        about: Some(About::R1),
        text: "R1: `ab -n 100000 -c 10 -k` while 600,000 connections are held",
        target: Target::AtLeast(31_405.0),
        unit: Unit::PerSecond,
        measured_by: R1_COMMAND,
        evidence: Evidence::Ab(R1, |ab| ab.requests_per_second),
    },
    Promise {
        id: "r1-ab-failed",
        topic: Topic::Speed,
        about: Some(About::R1),
        text: "R1: requests of `ab` that failed",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: R1_COMMAND,
        evidence: Evidence::Ab(R1, |ab| ab.failed as f64),
    },
    Promise {
        id: "r1-ab-nginx",
        topic: Topic::Speed,
        about: Some(About::R1),
        text: "R1: the same, divided by what nginx does in the same run",
        target: Target::AtLeast(1.0),
        unit: Unit::Ratio,
        measured_by: R1_COMMAND,
        evidence: Evidence::AbBesideNginx(R1),
    },
    Promise {
        id: "r2-rate",
        topic: Topic::Speed,
        about: Some(About::R2),
        text: "R2: texts answered per second on 600,000 WebSockets",
        target: Target::AtLeast(24_000.0),
        unit: Unit::PerSecond,
        measured_by: R2_COMMAND,
        evidence: Evidence::Run(R2, per_second),
    },
    Promise {
        id: "r2-p99",
        topic: Topic::Speed,
        about: Some(About::R2),
        text: "R2: 99 % of the texts answered within",
        target: Target::Below(100.0),
        unit: Unit::Millis,
        measured_by: R2_COMMAND,
        evidence: Evidence::Run(R2, p99_ms),
    },
    Promise {
        id: "r4-connections",
        topic: Topic::Speed,
        about: Some(About::R4),
        text: "R4: HTTP connections with a think time of 8 s, 90 % within 3 s, errors under 0.1 %",
        target: Target::None,
        unit: Unit::Count,
        measured_by: "scripts/concurrency-search",
        evidence: Evidence::Most(Needs {
            idle: &["8-8", "4-12", "0-16"],
            p90_ms_max: Some(3000.0),
            faults_per_answer_max: Some(0.001),
            ..Needs::of(KEEP_ALIVE, 1)
        }),
    },
    echo("echo-32", "Echo of 32 B on 64 connections: messages per second", ECHO_32),
    echo("echo-1k", "Echo of 1 KB on 64 connections: messages per second", ECHO_1K),
    echo_cpu("echo-32-cpu", "Echo of 32 B: messages per server-CPU-second", ECHO_32),
    echo_cpu("echo-1k-cpu", "Echo of 1 KB: messages per server-CPU-second", ECHO_1K),
    echo_p99("echo-32-p99", "Echo of 32 B: time for 99 % of the messages", ECHO_32),
    echo_p99("echo-1k-p99", "Echo of 1 KB: time for 99 % of the messages", ECHO_1K),
];

/// Beside the best peer of the same run, as all that follow.
const fn echo(id: &'static str, text: &'static str, needs: Needs) -> Promise {
    Promise {
        id,
        topic: Topic::Speed,
        about: None,
        text,
        target: Target::AtLeast(1.0),
        unit: Unit::Ratio,
        measured_by: ECHO_COMMAND,
        evidence: Evidence::Peers(needs, per_second, compare::Better::More),
    }
}

const fn echo_cpu(id: &'static str, text: &'static str, needs: Needs) -> Promise {
    Promise {
        evidence: Evidence::Peers(needs, per_cpu_second, compare::Better::More),
        ..echo(id, text, needs)
    }
}

const fn echo_p99(id: &'static str, text: &'static str, needs: Needs) -> Promise {
    Promise {
        target: Target::AtMost(1.0),
        evidence: Evidence::Peers(needs, p99_ms, compare::Better::Less),
        ..echo(id, text, needs)
    }
}
