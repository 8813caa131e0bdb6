//! What Murre promises. This table is the only one: `report` fills SPECIFICATION.md and
//! bench-results/README.md from it, `verdict` judges by it.

use crate::claims::{About, Evidence, Needs, Promise, Target, Topic, Topics};
use crate::compare;
use crate::figures::Unit;
use crate::records::Run;
use crate::values::{
    abuse_faults, abuse_p99, beside_p99_ms, connect_seconds, connects_per_cpu_second,
    connects_per_second, cpu_us, faults, fixed_bytes_per_shard, idle_cpu_us, last_delivery_p99_ms,
    p99_ms, per_cpu_second, per_second, soak_left, storm_back_seconds, storm_faults, storm_memory,
    storm_p99_ms, total_bytes, user_bytes,
};
use murre_record::Scenario;

const IDLE: &[Scenario] = &[Scenario::WsIdle];
/// After a text every 25 s a WebSocket is as idle as one that has said nothing.
const QUIET: &[Scenario] = &[Scenario::WsIdle, Scenario::WsUpper];
const KEEP_ALIVE: &[Scenario] = &[Scenario::HttpKeepalive];
pub(crate) const UPPER: &[Scenario] = &[Scenario::WsUpper];
const ECHO: &[Scenario] = &[Scenario::WsEcho];
const PUBSUB: &[Scenario] = &[Scenario::Pubsub];
const FANOUT: &[Scenario] = &[Scenario::Fanout];

/// By http-kit's text, and by its code.
pub(crate) const KEPT_IDLE: Needs = Needs { idle: &["5-45", "10-100"], ..Needs::of(KEEP_ALIVE, 1) };
const R1: Needs = Needs { conns: (600_000, u64::MAX), ..KEPT_IDLE };
const R1_FIVE_MINUTES: Needs = Needs { hold_seconds: 299.0, idle: &["5-45"], ..R1 };
const R2: Needs = Needs::of(UPPER, 600_000);
/// The larger of the article's two sizes, as fast as the server can, up to as many connections.
pub(crate) const R3: Needs =
    Needs { payload: Some(1400), conns: (1, 25_001), ..Needs::of(PUBSUB, 1) };
const R3_WHOLE: Needs = Needs { conns: (25_000, 25_001), ..R3 };
/// A mean of 8 s, however it varies.
pub(crate) const R4: Needs = Needs {
    idle: &["8-8", "4-12", "0-16"],
    p90_ms_max: Some(3000.0),
    faults_per_answer_max: Some(0.001),
    ..Needs::of(KEEP_ALIVE, 1)
};
/// Up to two million, which are pinged less often.
pub(crate) const UP_TO_A_MILLION: Needs = Needs { conns: (1, 2_000_000), ..Needs::of(IDLE, 1) };
const MILLION: Needs = Needs { conns: (1_000_000, 2_000_000), ..UP_TO_A_MILLION };
pub(crate) const TWO_MILLION: Needs = Needs::of(IDLE, 2_000_000);
const MILLION_TEN_MINUTES: Needs = Needs { hold_seconds: 599.0, ..MILLION };
const ECHO_64: Needs = Needs { conns: (64, 65), ..Needs::of(ECHO, 64) };
const ECHO_32: Needs = Needs { payload: Some(32), ..ECHO_64 };
const ECHO_1K: Needs = Needs { payload: Some(1024), ..ECHO_64 };
const ECHO_SCHEDULED: Needs = Needs { scheduled: true, ..ECHO_32 };
const ECHO_IDLE_BESIDE: Needs =
    Needs { payload: Some(32), conns: (18_064, 18_065), ..Needs::of(ECHO, 0) };
const FANOUT_1K: Needs = Needs {
    payload: Some(128),
    topics: Some(Topics::One),
    conns: (1_001, 1_002),
    ..Needs::of(FANOUT, 0)
};
const FANOUT_10K: Needs = Needs { conns: (10_001, 10_002), ..FANOUT_1K };
const FANOUT_500K: Needs = Needs { conns: (500_000, 600_000), scheduled: true, ..FANOUT_1K };
const SUBSCRIBED: Needs = Needs {
    conns: (100_000, 600_000),
    topics: Some(Topics::One),
    scheduled: true,
    ..Needs::of(FANOUT, 0)
};
/// A topic for each subscriber, so few that all that is asked is in the processor's cache.
const TOPICS_1K: Needs =
    Needs { conns: (1_001, 1_002), topics: Some(Topics::Own), ..Needs::of(FANOUT, 0) };
const TOPICS_100K: Needs = Needs { conns: (100_001, 100_002), ..TOPICS_1K };
const ABUSE: Needs = Needs { scheduled: true, ..Needs::of(&[Scenario::Abuse], 100) };
const SOAK: Needs =
    Needs { scheduled: true, hold_seconds: 599.0, ..Needs::of(&[Scenario::Soak], 0) };
const STORM: Needs = Needs::of(&[Scenario::Storm], 200_000);
const IDLE_18K: Needs = Needs { conns: (18_000, 18_001), ..Needs::of(IDLE, 0) };
const KEEP_ALIVE_18K: Needs = Needs { conns: (18_000, 18_001), ..Needs::of(KEEP_ALIVE, 0) };

const IDLE_COMMAND: &str = "scripts/bench idle";
const HTTP_COMMAND: &str = "scripts/bench http";
const PEERS_COMMAND: &str = "scripts/compare-peers";
const R1_COMMAND: &str = "scripts/reproduce-600k";
const R2_COMMAND: &str = "scripts/reproduce-512k-websockets";
const R3_COMMAND: &str = "scripts/reproduce-pubsub-2012";
const FANOUT_COMMAND: &str = "scripts/bench fanout";
const CHANNELS_COMMAND: &str = "scripts/bench channels";
const ABUSE_COMMAND: &str = "scripts/bench abuse";
const SOAK_COMMAND: &str = "scripts/soak";
const STORM_COMMAND: &str = "scripts/bench storm";
const MILLION_COMMAND: &str = "scripts/reproduce-1m-idle";
const TWO_MILLION_COMMAND: &str = "scripts/reproduce-2m-idle";

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
        id: "user-2m",
        topic: Topic::Memory,
        about: Some(About::Idle2m),
        text: "User space per idle WebSocket, at 2,000,000",
        target: Target::AtMost(96.0),
        unit: Unit::Bytes,
        measured_by: TWO_MILLION_COMMAND,
        evidence: Evidence::Run(TWO_MILLION, user_bytes),
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
        id: "fixed-per-shard",
        topic: Topic::Memory,
        about: None,
        text: "Fixed cost for each shard: all that is there before the first connection",
        target: Target::Below(2e6),
        unit: Unit::Bytes,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(Needs::of(QUIET, 10_000), fixed_bytes_per_shard),
    },
    Promise {
        id: "user-subscribed",
        topic: Topic::Memory,
        about: None,
        text: "User space per WebSocket with a subscription, all to one channel, from 100,000 on",
        target: Target::AtMost(128.0),
        unit: Unit::Bytes,
        measured_by: FANOUT_COMMAND,
        evidence: Evidence::Run(SUBSCRIBED, user_bytes),
    },
    Promise {
        id: "user-own-channel",
        topic: Topic::Memory,
        about: None,
        text: "The same with a channel of its own, and that channel's bytes",
        target: Target::None,
        unit: Unit::Bytes,
        measured_by: CHANNELS_COMMAND,
        evidence: Evidence::Run(TOPICS_100K, user_bytes),
    },
    Promise {
        id: "storm-memory",
        topic: Topic::Memory,
        about: None,
        text: "200,000 WebSockets after storms: the server's memory, divided by that before",
        target: Target::AtMost(1.1),
        unit: Unit::Ratio,
        measured_by: STORM_COMMAND,
        evidence: Evidence::Run(STORM, storm_memory),
    },
    less(
        "peers-user",
        Topic::Memory,
        "User space per idle WebSocket at 18,000, divided by the best peer's",
        IDLE_18K,
        user_bytes,
    ),
    less(
        "peers-all-in",
        Topic::Memory,
        "All in, per idle WebSocket at 18,000, divided by the best peer's",
        IDLE_18K,
        total_bytes,
    ),
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
            Needs { hold_seconds: 119.0, conns: (100_000, u64::MAX), ..KEPT_IDLE },
            faults,
        ),
    },
    Promise {
        id: "connect-rate",
        topic: Topic::Connections,
        about: None,
        text: "100,000 WebSockets opened: per second, handshake included, both ends on 2 cores",
        target: Target::AtLeast(40_000.0),
        unit: Unit::PerSecond,
        measured_by: IDLE_COMMAND,
        evidence: Evidence::Run(
            Needs { unthrottled: true, conns: (100_000, 600_000), ..Needs::of(QUIET, 0) },
            connects_per_second,
        ),
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
        id: "r3-faults",
        topic: Topic::Connections,
        about: Some(About::R3),
        text: "R3: wrong identifiers, lost connections and other faults at 25,000 WebSockets",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: R3_COMMAND,
        evidence: Evidence::Run(R3_WHOLE, faults),
    },
    Promise {
        id: "fanout-500k-faults",
        topic: Topic::Connections,
        about: None,
        text: "Publications to 500,000 subscribers: deliveries lost, twice, out of order or wrong",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: FANOUT_COMMAND,
        evidence: Evidence::Run(FANOUT_500K, faults),
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
        id: "idle-2m-faults",
        topic: Topic::Connections,
        about: Some(About::Idle2m),
        text: "Lost connections and other faults of 2,000,000 idle WebSockets",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: TWO_MILLION_COMMAND,
        evidence: Evidence::Run(TWO_MILLION, faults),
    },
    Promise {
        id: "storm-faults",
        topic: Topic::Connections,
        about: None,
        text: "200,000 WebSockets, 99 % killed at once and back, twice: lost of those who stayed, or at the end",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: STORM_COMMAND,
        evidence: Evidence::Run(STORM, storm_faults),
    },
    Promise {
        id: "storm-back",
        topic: Topic::Connections,
        about: None,
        text: "Until all are back and have been answered, when they come at once",
        target: Target::None,
        unit: Unit::Seconds,
        measured_by: STORM_COMMAND,
        evidence: Evidence::Run(STORM, storm_back_seconds),
    },
    Promise {
        id: "abuse-faults",
        topic: Topic::Connections,
        about: None,
        text: "Well-behaved connections beside hostile ones: faults, and hostile ones that end otherwise than they must",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: ABUSE_COMMAND,
        evidence: Evidence::Run(ABUSE, abuse_faults),
    },
    Promise {
        id: "soak-left",
        topic: Topic::Connections,
        about: None,
        text: "Visitors who vanish in every way, for 10 minutes or longer: kinds of things left behind",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: SOAK_COMMAND,
        evidence: Evidence::Run(SOAK, soak_left),
    },
    Promise {
        id: "storm-p99",
        topic: Topic::Speed,
        about: None,
        text: "Meanwhile: 99 % of the pings of those who stayed answered within, in the worst act",
        target: Target::None,
        unit: Unit::Millis,
        measured_by: STORM_COMMAND,
        evidence: Evidence::Run(STORM, storm_p99_ms),
    },
    Promise {
        id: "abuse-p99",
        topic: Topic::Speed,
        about: None,
        text: "Time for 99 % of the answers to well-behaved connections, divided by that without hostile ones",
        target: Target::AtMost(2.0),
        unit: Unit::Ratio,
        measured_by: ABUSE_COMMAND,
        evidence: Evidence::Run(ABUSE, abuse_p99),
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
        evidence: Evidence::Ab(R1, |ab| ab.requests_per_second, |rounds| rounds.median),
    },
    Promise {
        id: "r1-ab-failed",
        topic: Topic::Speed,
        about: Some(About::R1),
        text: "R1: requests of `ab` that failed",
        target: Target::AtMost(0.0),
        unit: Unit::Count,
        measured_by: R1_COMMAND,
        evidence: Evidence::Ab(R1, |ab| ab.failed as f64, |rounds| rounds.max),
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
        id: "r3-rate",
        topic: Topic::Speed,
        about: Some(About::R3),
        text: "R3: messages of 1.4 KB delivered per second to 25,000 WebSockets",
        target: Target::AtLeast(100_000.0),
        unit: Unit::PerSecond,
        measured_by: R3_COMMAND,
        evidence: Evidence::Run(R3_WHOLE, per_second),
    },
    Promise {
        id: "fanout-500k-last",
        topic: Topic::Speed,
        about: None,
        text: "One message of 128 B to 500,000 subscribers: until 99 % of such are with the last",
        target: Target::None,
        unit: Unit::Millis,
        measured_by: FANOUT_COMMAND,
        evidence: Evidence::Run(FANOUT_500K, last_delivery_p99_ms),
    },
    Promise {
        id: "fanout-500k-beside",
        topic: Topic::Speed,
        about: None,
        text: "Meanwhile: 99 % of the pings of other connections answered within",
        target: Target::Below(50.0),
        unit: Unit::Millis,
        measured_by: FANOUT_COMMAND,
        evidence: Evidence::Run(FANOUT_500K, beside_p99_ms),
    },
    Promise {
        id: "topics-cost",
        topic: Topic::Speed,
        about: None,
        text: "Processor time of a publication to 1 of 100,000 channels, divided by that to 1 of 1,000",
        target: Target::None,
        unit: Unit::Ratio,
        measured_by: CHANNELS_COMMAND,
        evidence: Evidence::Beside(TOPICS_100K, TOPICS_1K, cpu_us),
    },
    more(
        "fanout-1k-cpu",
        "128 B to 1,000 subscribers: deliveries per server-CPU-second, divided by the best peer's",
        FANOUT_1K,
        per_cpu_second,
    ),
    more(
        "fanout-10k-cpu",
        "128 B to 10,000 subscribers: the same, divided by the best peer's",
        FANOUT_10K,
        per_cpu_second,
    ),
    Promise {
        id: "r4-connections",
        topic: Topic::Speed,
        about: Some(About::R4),
        text: "R4: HTTP connections with a think time of 8 s, 90 % within 3 s, errors under 0.1 %",
        target: Target::None,
        unit: Unit::Count,
        measured_by: "scripts/concurrency-search",
        evidence: Evidence::Most(R4),
    },
    more(
        "echo-32",
        "Echo of 32 B on 64 connections: messages per second, divided by the best peer's",
        ECHO_32,
        per_second,
    ),
    more(
        "echo-1k",
        "Echo of 1 KB on 64 connections: messages per second, divided by the best peer's",
        ECHO_1K,
        per_second,
    ),
    more(
        "echo-32-cpu",
        "Echo of 32 B: messages per server-CPU-second, divided by the best peer's",
        ECHO_32,
        per_cpu_second,
    ),
    more(
        "echo-1k-cpu",
        "Echo of 1 KB: messages per server-CPU-second, divided by the best peer's",
        ECHO_1K,
        per_cpu_second,
    ),
    more(
        "echo-idle-cpu",
        "Echo of 32 B beside 18,000 idle WebSockets: the same, divided by the best peer's",
        ECHO_IDLE_BESIDE,
        per_cpu_second,
    ),
    more(
        "echo-scheduled-cpu",
        "Echo of 32 B on a schedule: the same, divided by the best peer's",
        ECHO_SCHEDULED,
        per_cpu_second,
    ),
    less(
        "echo-32-p99",
        Topic::Speed,
        "Echo of 32 B: time for 99 % of the messages, divided by the best peer's",
        ECHO_32,
        p99_ms,
    ),
    less(
        "echo-1k-p99",
        Topic::Speed,
        "Echo of 1 KB: time for 99 % of the messages, divided by the best peer's",
        ECHO_1K,
        p99_ms,
    ),
    more(
        "peers-accept",
        "WebSockets opened per server-CPU-second, divided by the best peer's",
        IDLE_18K,
        connects_per_cpu_second,
    ),
    more(
        "peers-http-cpu",
        "HTTP requests per server-CPU-second on 18,000 connections, divided by the best peer's",
        KEEP_ALIVE_18K,
        per_cpu_second,
    ),
];

/// Not less than any peer, in the newest comparison.
const fn more(
    id: &'static str,
    text: &'static str,
    needs: Needs,
    value: fn(&Run) -> Option<f64>,
) -> Promise {
    Promise {
        id,
        topic: Topic::Speed,
        about: None,
        text,
        target: Target::AtLeast(1.0),
        unit: Unit::Ratio,
        measured_by: PEERS_COMMAND,
        evidence: Evidence::Peers(needs, value, compare::Better::More),
    }
}

/// Not more than any peer.
const fn less(
    id: &'static str,
    topic: Topic,
    text: &'static str,
    needs: Needs,
    value: fn(&Run) -> Option<f64>,
) -> Promise {
    Promise {
        topic,
        target: Target::AtMost(1.0),
        evidence: Evidence::Peers(needs, value, compare::Better::Less),
        ..more(id, text, needs, value)
    }
}
