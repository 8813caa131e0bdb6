//! Figures of other systems, published by their authors, or measured by us before there were records.
//! Figures that were not published are `None`.

use crate::claims::{self, About};
use crate::figures::{Spread, Unit, with_unit};
use crate::needs::Needs;
use crate::promises::{KEPT_IDLE, R3, R4, R5, R5_NODES, TWO_MILLION, UP_TO_A_MILLION, UPPER};
use crate::records::kinds::Ab;
use crate::records::{OURS, RecordPlace, Records, Run, is_ours};
use crate::values;
use murre_record::Outcome;

/// A published run that is reproduced.
pub(crate) struct PublishedRun {
    pub(crate) about: About,
    /// Conditions for a run of ours beside it, of any size.
    pub(crate) needs: Needs,
    pub(crate) title: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) figures: &'static [Figure],
}

impl PublishedRun {
    /// The run of ours that stands beside it: the one with the most connections, of several the
    /// newest. One that did not pass does only while there is no other.
    pub(crate) fn reproduced<'r>(
        &self,
        records: &'r Records,
    ) -> Option<(&'r RecordPlace, &'r Run)> {
        if self.about == About::R4 {
            return claims::most(records, &self.needs);
        }
        let runs =
            records.runs().filter(|(_, run)| is_ours(run) && self.needs.unmet(run).is_none());
        runs.max_by_key(|(place, run)| {
            (run.outcome == Outcome::Passed, run.connections(), &run.started, *place)
        })
    }
}

/// One figure of it, and the same of a run of ours.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) published: Option<f64>,
    pub(crate) unit: Unit,
    ours: Ours,
}

/// Where our side of a figure comes from.
enum Ours {
    Run(fn(&Run) -> Option<f64>),
    /// And which of several rounds.
    Ab(fn(&Ab) -> f64, fn(&Spread) -> f64),
}

impl Figure {
    /// Our side of it.
    pub(crate) fn of(&self, run: &Run, abs: &[(&RecordPlace, &Ab)]) -> Option<f64> {
        match self.ours {
            Ours::Run(value) => value(run),
            Ours::Ab(value, pick) => {
                let rounds = abs.iter().map(|(_, ab)| value(ab)).collect();
                Spread::of(rounds).map(|spread| pick(&spread))
            }
        }
    }

    /// Its name, as it was published, and as `ours` is; `none` where that was not measured.
    pub(crate) fn cells(&self, ours: Option<f64>, none: &str) -> [String; 3] {
        let cell = |value: Option<f64>, none: &str| {
            value.map_or(none.to_owned(), |value| with_unit(value, self.unit))
        };
        [self.name.to_owned(), cell(self.published, "not published"), cell(ours, none)]
    }
}

const fn figure(
    name: &'static str,
    published: Option<f64>,
    unit: Unit,
    ours: fn(&Run) -> Option<f64>,
) -> Figure {
    Figure { name, published, unit, ours: Ours::Run(ours) }
}

const fn of_ab(
    name: &'static str,
    published: Option<f64>,
    unit: Unit,
    ours: fn(&Ab) -> f64,
    pick: fn(&Spread) -> f64,
) -> Figure {
    Figure { name, published, unit, ours: Ours::Ab(ours, pick) }
}

const MEDIAN: fn(&Spread) -> f64 = |rounds| rounds.median;
const MOST: fn(&Spread) -> f64 = |rounds| rounds.max;

const fn connections(published: Option<f64>) -> Figure {
    figure("connections", published, Unit::Count, |run| Some(run.connections() as f64))
}

const fn reached_in(published: Option<f64>) -> Figure {
    figure("reached in", published, Unit::Seconds, values::connect_seconds)
}

const CONNECTS: Figure =
    figure("connects per second", None, Unit::PerSecond, values::connects_per_second);
const FAULTS: Figure = figure("faults", None, Unit::Count, values::faults);
const P99: Figure = figure("99 % answered within", None, Unit::Millis, values::p99_ms);

const fn user(published: Option<f64>) -> Figure {
    figure("user space per connection", published, Unit::Bytes, values::user_bytes)
}

const fn all_in(published: Option<f64>) -> Figure {
    figure("all in per connection", published, Unit::Bytes, values::total_bytes)
}

/// MiB of answers a second.
fn mebibytes(run: &Run) -> Option<f64> {
    let hold = run.hold.as_ref()?;
    Some(hold.bytes_in as f64 / hold.seconds / f64::from(1 << 20))
}

fn held(run: &Run) -> Option<f64> {
    run.hold.as_ref().map(|hold| hold.seconds)
}

/// Every run that has a row in the comparison.
pub(crate) static RUNS: [PublishedRun; 8] = [
    PublishedRun {
        about: About::R1,
        needs: KEPT_IDLE,
        title: "R1: http-kit, 600,000 HTTP keep-alive connections (2013)",
        machine: "i7-2600, 4 cores, 16 GB, both ends; idle 10 to 100 s by its code, 5 to 45 by its text",
        figures: &[
            connections(Some(600_000.0)),
            reached_in(Some(183.0)),
            CONNECTS,
            figure("requests per second", Some(18_760.0), Unit::PerSecond, values::per_second),
            figure("bodies per second", Some(38.7), Unit::MebibytesPerSecond, mebibytes),
            figure("for", Some(931.0), Unit::Seconds, held),
            FAULTS,
            P99,
            of_ab(
                "`ab` beside it, requests per second",
                Some(31_405.0),
                Unit::PerSecond,
                |ab| ab.requests_per_second,
                MEDIAN,
            ),
            of_ab("`ab`, mean", Some(318.0), Unit::Micros, |ab| ab.mean_ms * 1000.0, MEDIAN),
            of_ab("`ab`, longest", Some(913.0), Unit::Millis, |ab| ab.longest_ms, MOST),
            of_ab("`ab`, failed", Some(0.0), Unit::Count, |ab| ab.failed as f64, MOST),
            user(Some(2_000.0)),
            all_in(None),
        ],
    },
    PublishedRun {
        about: About::R2,
        needs: Needs::of(UPPER, 1),
        title: "R2: Gretty, 512,000 WebSockets, a text each every 25 s (2010)",
        machine: "EC2 m1.large, 2 cores, 7.5 GB; 8 more machines as clients",
        figures: &[
            connections(Some(524_285.0)),
            reached_in(None),
            CONNECTS,
            figure("texts per second", Some(20_000.0), Unit::PerSecond, values::per_second),
            FAULTS,
            P99,
            user(Some(5_000.0)),
            all_in(None),
        ],
    },
    PublishedRun {
        about: About::R3,
        needs: R3,
        title: "R3: publish and subscribe, Node ws, Vert.x, Netty 4 beta and Atmosphere (2012)",
        machine: "the best of the four, Vert.x, 5 to 6 minutes with each number of connections",
        figures: &[
            connections(Some(25_000.0)),
            figure("messages per second", Some(5_000.0), Unit::PerSecond, values::per_second),
            // 1 to 4 ms, over all servers and steps.
            figure(
                "average response, at best",
                Some(1.0),
                Unit::Millis,
                values::average_response_ms,
            ),
            figure("average size", Some(1_400.0), Unit::Bytes, |run| {
                run.article.as_ref().map(|article| article.average_bytes)
            }),
            FAULTS,
            figure("for", Some(300.0), Unit::Seconds, held),
            user(None),
        ],
    },
    PublishedRun {
        about: About::R4,
        needs: R4,
        title: "R4: Grizzly's criterion, think time 8 s (2005)",
        machine: "no figures were published; the criterion is 90 % within 3 s, errors under 0.1 %",
        figures: &[
            connections(None),
            figure("90 % answered within", None, Unit::Millis, |run| {
                Some(run.latency_us.p90 as f64 / 1000.0)
            }),
            figure("errors", None, Unit::Percent, values::error_rate),
            figure("requests per second", None, Unit::PerSecond, values::per_second),
            FAULTS,
        ],
    },
    PublishedRun {
        about: About::R5,
        needs: R5,
        title: "R5: Phoenix channels, 800,000 clients with presence (2020)",
        machine: "10 machines with 8 GB; memory: one laptop with 4 GB, 20,000 connections in 2 GB; here \
                  both ends on one machine",
        figures: &[
            connections(Some(800_000.0)),
            figure("connections per machine", Some(80_000.0), Unit::Count, |run| {
                Some(run.connections() as f64)
            }),
            figure("processor of the machines", Some(0.45), Unit::Percent, values::server_share),
            figure(
                "processor time per connection and second",
                None,
                Unit::Micros,
                values::idle_cpu_us,
            ),
            figure("for", None, Unit::Seconds, held),
            figure("members counted at the end", None, Unit::Count, |run| {
                Some(run.phoenix.as_ref()?.members?.clients as f64)
            }),
            FAULTS,
            P99,
            user(Some(100_000.0)),
            all_in(None),
        ],
    },
    PublishedRun {
        about: About::R5Nodes,
        needs: R5_NODES,
        title: "R5 on several nodes: Phoenix channels, 800,000 clients with presence and sessions (2020)",
        machine: "10 machines with 8 GB; here 3 nodes, NATS, PostgreSQL and the clients on one machine",
        figures: &[
            connections(Some(800_000.0)),
            figure("connections per machine", Some(80_000.0), Unit::Count, |run| {
                Some(run.connections() as f64)
            }),
            figure("processor of the machines", Some(0.45), Unit::Percent, values::steady_share),
            figure(
                "processor time per connection and second",
                None,
                Unit::Micros,
                values::steady_cpu_us,
            ),
            figure("members counted at the end", None, Unit::Count, |run| {
                Some(run.phoenix.as_ref()?.members?.clients as f64)
            }),
            figure("users online at the end, by the session log", None, Unit::Count, |run| {
                Some(run.nodes.as_ref()?.sessions?.online as f64)
            }),
            figure("whose session had no end", None, Unit::Count, |run| {
                Some(run.nodes.as_ref()?.sessions?.unbroken as f64)
            }),
            figure("clients of the killed node", None, Unit::Count, |run| {
                Some(run.nodes.as_ref()?.ended.first()?.lost as f64)
            }),
            figure("until they were back", None, Unit::Seconds, |run| {
                values::back_seconds(run, "killed")
            }),
            figure("clients of the drained node", None, Unit::Count, |run| {
                Some(run.nodes.as_ref()?.ended.get(1)?.lost as f64)
            }),
            figure("until they were back", None, Unit::Seconds, |run| {
                values::back_seconds(run, "drained")
            }),
            FAULTS,
            figure("99 % answered within, steady", None, Unit::Millis, values::steady_p99_ms),
            user(Some(100_000.0)),
            all_in(None),
        ],
    },
    PublishedRun {
        about: About::Idle1m,
        needs: UP_TO_A_MILLION,
        title: "1,000,000 idle WebSockets",
        machine: "the best published of each: uWebSockets.js 2019 (all in, 995,000), greatws 2024 \
                  (user space), Centrifugo 2026 (processor time)",
        figures: &[
            connections(Some(1_000_000.0)),
            reached_in(None),
            CONNECTS,
            figure("for", None, Unit::Seconds, held),
            FAULTS,
            figure(
                "processor time per connection and second",
                Some(2.3),
                Unit::Micros,
                values::idle_cpu_us,
            ),
            user(Some(448.0)),
            all_in(Some(4_700.0)),
        ],
    },
    PublishedRun {
        about: About::Idle2m,
        needs: TWO_MILLION,
        title: "2,000,000 idle WebSockets",
        machine: "Phoenix channels 2015, 40 cores, 128 GB (WhatsApp 2012: 2.3M of 23 KB); here \
                  with a ping every 300 s",
        figures: &[
            connections(Some(2_000_000.0)),
            reached_in(None),
            figure("for", None, Unit::Seconds, held),
            FAULTS,
            user(None),
            all_in(Some(42_000.0)),
        ],
    },
];

/// A server in the article of 2012.
pub(crate) struct PubSubServer {
    pub(crate) name: &'static str,
    /// Connections, and messages per second with them; between two of them the article says nothing
    /// or that it was even.
    pub(crate) points: [(f64, f64); 2],
    /// The reason for its limit.
    pub(crate) end: &'static str,
}

/// The best first. The smallest step had 500 connections.
pub(crate) static PUBSUB: [PubSubServer; 4] = [
    PubSubServer {
        name: "Vert.x",
        points: [(1_000.0, 5_000.0), (25_000.0, 5_000.0)],
        end: "4,056 to 5,374, then out of memory",
    },
    PubSubServer {
        name: "Node ws",
        points: [(1_000.0, 4_252.0), (24_000.0, 240.0)],
        end: "falling from 1,000 on",
    },
    PubSubServer {
        name: "Netty 4 beta",
        points: [(500.0, 950.0), (6_500.0, 950.0)],
        end: "crashes at 6,500",
    },
    PubSubServer {
        name: "Atmosphere",
        points: [(500.0, 930.0), (3_500.0, 930.0)],
        end: "stops at 3,500",
    },
];

/// The cost of a connection to a system.
pub(crate) struct System {
    pub(crate) name: &'static str,
    /// Bytes of user space; `heap` where only that was published.
    pub(crate) user: Option<f64>,
    /// With the kernel's part.
    pub(crate) total: Option<f64>,
    pub(crate) source: &'static str,
    /// Its label in records. As soon as one has its memory, the record stands for it.
    pub(crate) peer: Option<&'static str>,
}

const fn told(
    name: &'static str,
    user: Option<f64>,
    total: Option<f64>,
    source: &'static str,
) -> System {
    System { name, user, total, source, peer: None }
}

const fn measured(peer: &'static str, name: &'static str, user: f64, total: f64) -> System {
    let source = "measured by us before there were records: 18,000 connections, kernel 6.18";
    System { name, user: Some(user), total: Some(total), source, peer: Some(peer) }
}

/// Ordered by user space per connection.
pub(crate) static SYSTEMS: [System; 15] = [
    measured("uwebsockets", "uWebSockets, C++", 251.0, 4_306.0),
    told("greatws, Go", Some(448.0), None, "its authors, 2024, 1M WebSockets, RSS"),
    told(
        "uWebSockets.js",
        Some(500.0),
        Some(4_700.0),
        "its authors, 2019, 995,000 on an 8 GB laptop, Node included",
    ),
    measured("nginx", "nginx, HTTP keep-alive", 529.0, 4_605.0),
    told("Netty", Some(1_700.0), None, "its authors, 2015"),
    told(
        "http-kit, HTTP keep-alive",
        Some(2_000.0),
        None,
        "its author, 2013, 600,000 connections, heap",
    ),
    told("Gretty on Netty", Some(5_000.0), None, "its author, 2010, 524,285 WebSockets, heap"),
    measured("node-ws", "Node ws", 5_800.0, 10_071.0),
    measured("fastwebsockets", "fastwebsockets on tokio", 6_296.0, 10_385.0),
    measured("tokio-tungstenite", "tokio-tungstenite, 4 KB buffer", 6_881.0, 10_952.0),
    measured("netty", "Netty 4.1", 9_483.0, 13_591.0),
    told("Centrifugo, tuned", Some(10_900.0), Some(15_000.0), "its authors, 2026, 1M"),
    measured("gorilla", "gorilla, Go", 17_705.0, 21_817.0),
    told("WhatsApp, Erlang", None, Some(23_000.0), "its authors, 2012, 2.3M"),
    told("Phoenix channels", None, Some(42_000.0), "its authors, 2015, 2M"),
];

/// A server of a comparison without its settings: those with the least memory end with `-lean`.
pub(crate) fn peer(label: &str) -> &str {
    label.strip_suffix("-lean").unwrap_or(label)
}

/// The display name of the server with this label.
pub(crate) fn peer_name(label: &str) -> String {
    let name = match peer(label) {
        OURS => "Murre",
        "nginx" => "nginx, HTTP",
        "node-ws" => "Node ws",
        "uwebsockets" => "uWebSockets, C++",
        other => other,
    };
    format!("{name}{}", if label.ends_with("-lean") { LEAN } else { "" })
}

/// The suffix of their names.
const LEAN: &str = ", lean";
