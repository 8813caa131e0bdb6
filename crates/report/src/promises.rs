//! The promises of Murre. This table is the only one: murre-report fills SPECIFICATION.md and
//! bench-results/README.md from it, `murre-report verdict` judges by it.

use crate::claims::Evidence::{Ab, AbBesideNginx, Beside, Most, Peers, Run};
use crate::claims::Target::{self, AtLeast, AtMost, Below};
use crate::claims::{About, Promise, Topic};
use crate::compare::Better::{Less, More};
use crate::figures::Unit;
use crate::needs::{Channels, Needs};
use crate::values::{
    abuse_faults, abuse_p99, back_seconds, backend_beside_ms, backend_faults, backend_seconds,
    beside_p99_ms, connect_seconds, connects_per_cpu_second, connects_per_second, cpu_us, faults,
    fixed_bytes_per_shard, idle_cpu_us, last_delivery_p99_ms, nodes_faults, p99_ms, per_cpu_second,
    per_second, phoenix_faults, presence_beside_ms, presence_faults, soak_left, steady_cpu_us,
    steady_p99_ms, storm_back_seconds, storm_faults, storm_memory, storm_p99_ms, total_bytes,
    user_bytes,
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
    channels: Some(Channels::One),
    conns: (1_001, 1_002),
    ..Needs::of(FANOUT, 0)
};
const FANOUT_10K: Needs = Needs { conns: (10_001, 10_002), ..FANOUT_1K };
const FANOUT_500K: Needs = Needs { conns: (500_000, 600_000), scheduled: true, ..FANOUT_1K };
const SUBSCRIBED: Needs = Needs {
    conns: (100_000, 600_000),
    channels: Some(Channels::One),
    scheduled: true,
    ..Needs::of(FANOUT, 0)
};
/// A channel for each subscriber, so few that all of them fit the processor's cache.
const CHANNELS_1K: Needs =
    Needs { conns: (1_001, 1_002), channels: Some(Channels::Own), ..Needs::of(FANOUT, 0) };
const CHANNELS_100K: Needs = Needs { conns: (100_001, 100_002), ..CHANNELS_1K };
const ABUSE: Needs = Needs { scheduled: true, ..Needs::of(&[Scenario::Abuse], 100) };
const SOAK: Needs =
    Needs { scheduled: true, hold_seconds: 599.0, ..Needs::of(&[Scenario::Soak], 0) };
/// With 100 connections that ping beside.
const BACKEND: Needs = Needs { conns: (2_100, 2_101), ..Needs::of(&[Scenario::Backend], 0) };
const PHOENIX: &[Scenario] = &[Scenario::Phoenix];
const PHOENIX_100K: Needs =
    Needs { conns: (100_000, 600_000), channels: Some(Channels::One), ..Needs::of(PHOENIX, 0) };
/// Each client with a user of its own, counted as a member of its topic.
pub(crate) const R5: Needs = Needs { users: true, ..Needs::of(PHOENIX, 1) };
const R5_TEN_MINUTES: Needs = Needs { conns: (500_000, u64::MAX), hold_seconds: 599.0, ..R5 };
/// On three nodes, two of which end.
pub(crate) const R5_NODES: Needs = Needs { nodes: true, ..R5 };
const R5_NODES_500K: Needs = Needs { conns: (500_000, u64::MAX), ..R5_NODES };
const MEMBERS: Needs = Needs {
    conns: (101_000, 110_000),
    hold_seconds: 59.0,
    users: true,
    scheduled: true,
    ..Needs::of(&[Scenario::Presence], 0)
};
/// All in one channel, which is large.
const MEMBERS_OF_ONE: Needs = Needs { channels: Some(Channels::One), ..MEMBERS };
/// Of channels so small that all members are told of each change.
const MEMBERS_OF_1K: Needs = Needs { channels: Some(Channels::Number(1_000)), ..MEMBERS };
const STORM: Needs = Needs::of(&[Scenario::Storm], 200_000);
const IDLE_18K: Needs = Needs { conns: (18_000, 18_001), ..Needs::of(IDLE, 0) };
const KEEP_ALIVE_18K: Needs = Needs { conns: (18_000, 18_001), ..Needs::of(KEEP_ALIVE, 0) };

const IDLE_COMMAND: &str = "scripts/bench idle";
const HTTP_COMMAND: &str = "scripts/bench http";
const PEERS_COMMAND: &str = "scripts/compare-peers";
const R1_COMMAND: &str = "scripts/reproduce-600k";
const R2_COMMAND: &str = "scripts/reproduce-512k-websockets";
const R3_COMMAND: &str = "scripts/reproduce-pubsub-2012";
const R5_COMMAND: &str = "scripts/reproduce-phoenix-node";
const R5_NODES_COMMAND: &str = "scripts/reproduce-phoenix";
const PHOENIX_COMMAND: &str = "scripts/bench phoenix";
const PRESENCE_COMMAND: &str = "scripts/bench presence";
const FANOUT_COMMAND: &str = "scripts/bench fanout";
const CHANNELS_COMMAND: &str = "scripts/bench channels";
const BACKEND_COMMAND: &str = "scripts/bench backend";
const ABUSE_COMMAND: &str = "scripts/bench abuse";
const SOAK_COMMAND: &str = "scripts/soak";
const STORM_COMMAND: &str = "scripts/bench storm";
const MILLION_COMMAND: &str = "scripts/reproduce-1m-idle";
const TWO_MILLION_COMMAND: &str = "scripts/reproduce-2m-idle";

/// A table of promises. A row is an id, the section of SPECIFICATION.md, the published run that it is
/// about if there is one, and the text; then the target, its unit, the command that measures it, and the
/// evidence.
macro_rules! promises {
    ($($id:literal: $topic:ident $(of $about:ident)?, $text:literal,
        $target:expr, $unit:ident, $command:expr, $evidence:expr;)*) => {
        &[$(Promise {
            id: $id,
            topic: Topic::$topic,
            about: promises!(@about $($about)?),
            text: $text,
            target: $target,
            unit: Unit::$unit,
            measured_by: $command,
            evidence: $evidence,
        }),*]
    };
    (@about) => { None };
    (@about $about:ident) => { Some(About::$about) };
}

/// Every promise.
pub(crate) static PROMISES: &[Promise] = promises! {
    "user-100k": Memory, "User space per idle WebSocket, at 100,000",
        AtMost(96.0), Bytes, IDLE_COMMAND,
        Run(Needs { conns: (100_000, 600_000), ..Needs::of(IDLE, 0) }, user_bytes);
    "user-600k": Memory of R2, "User space per WebSocket, at 600,000",
        AtMost(96.0), Bytes, R2_COMMAND,
        Run(Needs { conns: (600_000, 1_000_000), ..Needs::of(QUIET, 0) }, user_bytes);
    "user-1m": Memory of Idle1m, "User space per idle WebSocket, at 1,000,000",
        AtMost(96.0), Bytes, MILLION_COMMAND, Run(MILLION, user_bytes);
    "user-2m": Memory of Idle2m, "User space per idle WebSocket, at 2,000,000",
        AtMost(96.0), Bytes, TWO_MILLION_COMMAND, Run(TWO_MILLION, user_bytes);
    "all-in-normal": Memory, "All in, per idle WebSocket on a normal descriptor, from 10,000 on",
        AtMost(4220.0), Bytes, IDLE_COMMAND,
        Run(Needs { descriptors: Some("normal"), ..Needs::of(IDLE, 10_000) }, total_bytes);
    "all-in-direct": Memory, "All in, per idle WebSocket on a direct descriptor, from 100,000 on",
        AtMost(4250.0), Bytes, IDLE_COMMAND,
        Run(Needs { descriptors: Some("direct"), ..Needs::of(IDLE, 100_000) }, total_bytes);
    "all-in-1m": Memory of Idle1m,
        "All in, per idle WebSocket, at 1,000,000 (30 B less on normal descriptors)",
        AtMost(4250.0), Bytes, MILLION_COMMAND,
        Run(MILLION, |run| {
            let normal = run.memory.as_ref()?.server_descriptors == "normal";
            Some(total_bytes(run)? + if normal { 30.0 } else { 0.0 })
        });
    "client-bytes": Memory,
        "User space per idle connection of the load generator, by the sizes of its parts",
        AtMost(128.0), Bytes, IDLE_COMMAND,
        Run(Needs::of(IDLE, 10_000), |run| { Some(run.client.bytes_per_connection as f64) });
    "fixed-per-shard": Memory,
        "Fixed cost for each shard: all that is there before the first connection",
        Below(2e6), Bytes, IDLE_COMMAND, Run(Needs::of(QUIET, 10_000), fixed_bytes_per_shard);
    "user-subscribed": Memory,
        "User space per WebSocket with a subscription, all to one channel, from 100,000 on",
        AtMost(128.0), Bytes, FANOUT_COMMAND, Run(SUBSCRIBED, user_bytes);
    "user-own-channel": Memory, "The same with a channel of its own, and that channel's bytes",
        Target::None, Bytes, CHANNELS_COMMAND, Run(CHANNELS_100K, user_bytes);
    "phoenix-user": Memory,
        "User space per idle Phoenix connection that has joined a topic, all the same, at 100,000",
        AtMost(128.0), Bytes, PHOENIX_COMMAND, Run(PHOENIX_100K, user_bytes);
    "r5-user": Memory of R5,
        "R5: the same with a user, a member of the topic, at 500,000",
        Target::None, Bytes, R5_COMMAND, Run(R5_TEN_MINUTES, user_bytes);
    "storm-memory": Memory,
        "200,000 WebSockets after storms: the server's memory, divided by that before",
        AtMost(1.1), Ratio, STORM_COMMAND, Run(STORM, storm_memory);
    "peers-user": Memory, "User space per idle WebSocket at 18,000, divided by the best peer's",
        AtMost(1.0), Ratio, PEERS_COMMAND, Peers(IDLE_18K, user_bytes, Less);
    "peers-all-in": Memory, "All in, per idle WebSocket at 18,000, divided by the best peer's",
        AtMost(1.0), Ratio, PEERS_COMMAND, Peers(IDLE_18K, total_bytes, Less);
    "idle-100k-faults": Connections,
        "Faults among 100,000 WebSockets of one process that may open 20,000 files",
        AtMost(0.0), Count, IDLE_COMMAND,
        Run(Needs { open_files_max: Some(20_000), ..Needs::of(IDLE, 100_000) }, faults);
    "http-100k-faults": Connections,
        "Wrong bodies and lost connections of 100,000 HTTP connections in 2 minutes",
        AtMost(0.0), Count, HTTP_COMMAND,
        Run(Needs { hold_seconds: 119.0, conns: (100_000, u64::MAX), ..KEPT_IDLE }, faults);
    "connect-rate": Connections,
        "100,000 WebSockets opened: per second, handshake included, both ends on 2 cores",
        AtLeast(40_000.0), PerSecond, IDLE_COMMAND,
        Run(Needs { unthrottled: true, conns: (100_000, 600_000), ..Needs::of(QUIET, 0) },
            connects_per_second);
    "r1-reached": Connections of R1,
        "R1: until 600,000 HTTP connections are up, each with its first answer",
        Below(60.0), Seconds, R1_COMMAND, Run(R1, connect_seconds);
    "r1-faults": Connections of R1,
        "R1: wrong bodies, lost connections and other faults in 5 minutes",
        AtMost(0.0), Count, R1_COMMAND, Run(R1_FIVE_MINUTES, faults);
    "r2-faults": Connections of R2,
        "R2: wrong texts, lost connections and other faults at 600,000 WebSockets",
        AtMost(0.0), Count, R2_COMMAND, Run(R2, faults);
    "r3-faults": Connections of R3,
        "R3: wrong identifiers, lost connections and other faults at 25,000 WebSockets",
        AtMost(0.0), Count, R3_COMMAND, Run(R3_WHOLE, faults);
    "r5-faults": Connections of R5,
        "R5: 500,000 Phoenix clients of one node for 10 minutes: faults, and members miscounted",
        AtMost(0.0), Count, R5_COMMAND, Run(R5_TEN_MINUTES, phoenix_faults);
    "r5-nodes-faults": Connections of R5Nodes,
        "R5: 500,000 Phoenix clients or more on 3 nodes, one killed, one drained: faults, and members or sessions miscounted",
        AtMost(0.0), Count, R5_NODES_COMMAND, Run(R5_NODES_500K, nodes_faults);
    "r5-nodes-killed": Connections of R5Nodes,
        "R5: until the clients of the killed node are back on others, each with its topic",
        Target::None, Seconds, R5_NODES_COMMAND, Run(R5_NODES_500K, |run| back_seconds(run, "killed"));
    "r5-nodes-drained": Connections of R5Nodes,
        "R5: the same for the drained node, which closes some 2,500 a second",
        Target::None, Seconds, R5_NODES_COMMAND, Run(R5_NODES_500K, |run| back_seconds(run, "drained"));
    "presence-large": Connections,
        "100,000 members of one channel, 1,000 joins and 1,000 leaves a second: faults, and wrong counts",
        AtMost(0.0), Count, PRESENCE_COMMAND, Run(MEMBERS_OF_ONE, presence_faults);
    "presence-small": Connections,
        "1,000 channels of 100 members, 1,000 changes a second: faults, and changes missing or wrong",
        AtMost(0.0), Count, PRESENCE_COMMAND, Run(MEMBERS_OF_1K, presence_faults);
    "fanout-500k-faults": Connections,
        "Publications to 500,000 subscribers: deliveries lost, twice, out of order or wrong",
        AtMost(0.0), Count, FANOUT_COMMAND, Run(FANOUT_500K, faults);
    "idle-1m-faults": Connections of Idle1m,
        "Lost connections and other faults of 1,000,000 idle WebSockets in 10 minutes",
        AtMost(0.0), Count, MILLION_COMMAND, Run(MILLION_TEN_MINUTES, faults);
    "idle-2m-faults": Connections of Idle2m,
        "Lost connections and other faults of 2,000,000 idle WebSockets",
        AtMost(0.0), Count, TWO_MILLION_COMMAND, Run(TWO_MILLION, faults);
    "storm-faults": Connections,
        "200,000 WebSockets, 99 % killed at once and back, twice: lost connections that stayed, or lost at the end",
        AtMost(0.0), Count, STORM_COMMAND, Run(STORM, storm_faults);
    "storm-back": Connections, "Until all are back and have been answered, when they come at once",
        Target::None, Seconds, STORM_COMMAND, Run(STORM, storm_back_seconds);
    "backend-faults": Connections,
        "2,000 WebSockets at once, about each of which an application of 20 ms is asked: lost or repeated connects, and calls beyond 256 in flight",
        AtMost(0.0), Count, BACKEND_COMMAND, Run(BACKEND, backend_faults);
    "backend-last": Connections, "Until the last of them has its session, in the slowest of ten such storms",
        Target::None, Seconds, BACKEND_COMMAND, Run(BACKEND, backend_seconds);
    "abuse-faults": Connections,
        "Well-behaved connections beside hostile ones: faults, and hostile ones with another end than they must have",
        AtMost(0.0), Count, ABUSE_COMMAND, Run(ABUSE, abuse_faults);
    "soak-left": Connections,
        "Connections that vanish in every way, for 10 minutes or longer: kinds of things left behind",
        AtMost(0.0), Count, SOAK_COMMAND, Run(SOAK, soak_left);
    "storm-p99": Speed,
        "Meanwhile: 99 % of the pings of connections that stayed answered within, in the worst phase",
        Target::None, Millis, STORM_COMMAND, Run(STORM, storm_p99_ms);
    "backend-beside": Speed,
        "Beside 2,000 such WebSockets at once: 99 % of the pings of other connections answered within",
        Below(50.0), Millis, BACKEND_COMMAND, Run(BACKEND, backend_beside_ms);
    "abuse-p99": Speed,
        "Time for 99 % of the answers to well-behaved connections, divided by that without hostile ones",
        AtMost(2.0), Ratio, ABUSE_COMMAND, Run(ABUSE, abuse_p99);
    "idle-1m-cpu": Speed of Idle1m,
        "Processor time per idle WebSocket and second, at 1,000,000 and a ping every 25 s",
        Below(1.0), Micros, MILLION_COMMAND, Run(MILLION_TEN_MINUTES, idle_cpu_us);
    "r1-rate": Speed of R1, "R1: requests per second for 5 minutes, idle 5 to 45 s between them",
        AtLeast(24_000.0), PerSecond, R1_COMMAND, Run(R1_FIVE_MINUTES, per_second);
    "r1-ab": Speed of R1, "R1: `ab -n 100000 -c 10 -k` while 600,000 connections are held",
        AtLeast(31_405.0), PerSecond, R1_COMMAND,
        Ab(R1, |ab| ab.requests_per_second, |rounds| rounds.median);
    "r1-ab-failed": Speed of R1, "R1: requests of `ab` that failed",
        AtMost(0.0), Count, R1_COMMAND, Ab(R1, |ab| ab.failed as f64, |rounds| rounds.max);
    "r1-ab-nginx": Speed of R1, "R1: the same, divided by what nginx does in the same run",
        AtLeast(1.0), Ratio, R1_COMMAND, AbBesideNginx(R1);
    "r2-rate": Speed of R2, "R2: texts answered per second on 600,000 WebSockets",
        AtLeast(24_000.0), PerSecond, R2_COMMAND, Run(R2, per_second);
    "r2-p99": Speed of R2, "R2: 99 % of the texts answered within",
        Below(100.0), Millis, R2_COMMAND, Run(R2, p99_ms);
    "r5-cpu": Speed of R5,
        "R5: processor time per Phoenix client and second, with a heartbeat every 30 s",
        Target::None, Micros, R5_COMMAND, Run(R5_TEN_MINUTES, idle_cpu_us);
    "r5-p99": Speed of R5, "R5: 99 % of the heartbeats answered within",
        Target::None, Millis, R5_COMMAND, Run(R5_TEN_MINUTES, p99_ms);
    "r5-nodes-cpu": Speed of R5Nodes,
        "R5: processor time of 3 nodes per Phoenix client and second, with a heartbeat every 30 s",
        Target::None, Micros, R5_NODES_COMMAND, Run(R5_NODES_500K, steady_cpu_us);
    "r5-nodes-p99": Speed of R5Nodes, "R5: 99 % of the heartbeats answered within, before a node ended",
        Target::None, Millis, R5_NODES_COMMAND, Run(R5_NODES_500K, steady_p99_ms);
    "presence-large-p99": Speed,
        "Beside 1,000 joins to and 1,000 leaves of a channel of 100,000 a second: 99 % of pings answered within",
        AtMost(50.0), Millis, PRESENCE_COMMAND, Run(MEMBERS_OF_ONE, presence_beside_ms);
    "presence-small-p99": Speed,
        "Beside 1,000 changes a second in 1,000 channels of 100 members: the same",
        Target::None, Millis, PRESENCE_COMMAND, Run(MEMBERS_OF_1K, presence_beside_ms);
    "r3-rate": Speed of R3, "R3: messages of 1.4 KB delivered per second to 25,000 WebSockets",
        AtLeast(100_000.0), PerSecond, R3_COMMAND, Run(R3_WHOLE, per_second);
    "fanout-500k-last": Speed,
        "One message of 128 B to 500,000 subscribers: until 99 % of such are with the last",
        Target::None, Millis, FANOUT_COMMAND, Run(FANOUT_500K, last_delivery_p99_ms);
    "fanout-500k-beside": Speed,
        "Meanwhile: 99 % of the pings of other connections answered within",
        Below(50.0), Millis, FANOUT_COMMAND, Run(FANOUT_500K, beside_p99_ms);
    "topics-cost": Speed,
        "Processor time of a publication to 1 of 100,000 channels, divided by that to 1 of 1,000",
        Target::None, Ratio, CHANNELS_COMMAND, Beside(CHANNELS_100K, CHANNELS_1K, cpu_us);
    "fanout-1k-cpu": Speed,
        "128 B to 1,000 subscribers: deliveries per server-CPU-second, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(FANOUT_1K, per_cpu_second, More);
    "fanout-10k-cpu": Speed, "128 B to 10,000 subscribers: the same, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(FANOUT_10K, per_cpu_second, More);
    "r4-connections": Speed of R4,
        "R4: HTTP connections with a think time of 8 s, 90 % within 3 s, errors under 0.1 %",
        Target::None, Count, "scripts/concurrency-search", Most(R4);
    "echo-32": Speed,
        "Echo of 32 B on 64 connections: messages per second, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_32, per_second, More);
    "echo-1k": Speed,
        "Echo of 1 KB on 64 connections: messages per second, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_1K, per_second, More);
    "echo-32-cpu": Speed,
        "Echo of 32 B: messages per server-CPU-second, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_32, per_cpu_second, More);
    "echo-1k-cpu": Speed,
        "Echo of 1 KB: messages per server-CPU-second, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_1K, per_cpu_second, More);
    "echo-idle-cpu": Speed,
        "Echo of 32 B beside 18,000 idle WebSockets: the same, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_IDLE_BESIDE, per_cpu_second, More);
    "echo-scheduled-cpu": Speed, "Echo of 32 B on a schedule: the same, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_SCHEDULED, per_cpu_second, More);
    "echo-32-p99": Speed, "Echo of 32 B: time for 99 % of the messages, divided by the best peer's",
        AtMost(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_32, p99_ms, Less);
    "echo-1k-p99": Speed, "Echo of 1 KB: time for 99 % of the messages, divided by the best peer's",
        AtMost(1.0), Ratio, PEERS_COMMAND, Peers(ECHO_1K, p99_ms, Less);
    "peers-accept": Speed, "WebSockets opened per server-CPU-second, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(IDLE_18K, connects_per_cpu_second, More);
    "peers-http-cpu": Speed,
        "HTTP requests per server-CPU-second on 18,000 connections, divided by the best peer's",
        AtLeast(1.0), Ratio, PEERS_COMMAND, Peers(KEEP_ALIVE_18K, per_cpu_second, More);
};
