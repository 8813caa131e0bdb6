//! What others have published, as their authors did, and what was measured of them beside us
//! before there were records. Figures that nobody published are `None`.

use crate::claims::{self, About};
use crate::figures::{Spread, Unit};
use crate::records::{Ab, Place, Run};

/// A published run that is reproduced.
pub(crate) struct PublishedRun {
    pub(crate) about: About,
    pub(crate) title: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) figures: &'static [Figure],
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
    pub(crate) fn of(&self, run: &Run, abs: &[(&Place, &Ab)]) -> Option<f64> {
        match self.ours {
            Ours::Run(value) => value(run),
            Ours::Ab(value, pick) => {
                let rounds = abs.iter().map(|(_, ab)| value(ab)).collect();
                Spread::of(rounds).map(|spread| pick(&spread))
            }
        }
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

const fn connections(published: Option<f64>) -> Figure {
    figure("connections", published, Unit::Count, |run| Some(run.connections() as f64))
}

const fn reached_in(published: Option<f64>) -> Figure {
    figure("reached in", published, Unit::Seconds, |run| Some(run.connect.seconds))
}

const CONNECTS: Figure = figure("connects per second", None, Unit::PerSecond, |run| {
    Some(run.connect.connections_per_second)
});
const FAULTS: Figure = figure("faults", None, Unit::Count, |run| Some(run.faults() as f64));
const P99: Figure = figure("99 % answered within", None, Unit::Millis, claims::p99_ms);

const fn user(published: Option<f64>) -> Figure {
    figure("user space per connection", published, Unit::Bytes, claims::user_bytes)
}

const fn all_in(published: Option<f64>) -> Figure {
    figure("all in per connection", published, Unit::Bytes, claims::total_bytes)
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
pub(crate) static RUNS: [PublishedRun; 4] = [
    PublishedRun {
        about: About::R1,
        title: "R1: http-kit, 600,000 HTTP keep-alive connections (2013)",
        machine: "i7-2600, 4 cores, 16 GB, both ends; idle 10 to 100 s by its code, 5 to 45 by its text",
        figures: &[
            connections(Some(600_000.0)),
            reached_in(Some(183.0)),
            CONNECTS,
            figure("requests per second", Some(18_760.0), Unit::PerSecond, claims::per_second),
            figure("bodies per second", Some(38.7), Unit::MebibytesPerSecond, mebibytes),
            figure("for", Some(931.0), Unit::Seconds, held),
            FAULTS,
            P99,
            of_ab(
                "`ab` beside it, requests per second",
                Some(31_405.0),
                Unit::PerSecond,
                |ab| ab.requests_per_second,
                |rounds| rounds.median,
            ),
            of_ab(
                "`ab`, mean",
                Some(318.0),
                Unit::Micros,
                |ab| ab.mean_ms * 1000.0,
                |rounds| rounds.median,
            ),
            of_ab(
                "`ab`, longest",
                Some(913.0),
                Unit::Millis,
                |ab| ab.longest_ms,
                |rounds| rounds.max,
            ),
            of_ab(
                "`ab`, failed",
                Some(0.0),
                Unit::Count,
                |ab| ab.failed as f64,
                |rounds| rounds.max,
            ),
            user(Some(2_000.0)),
            all_in(None),
        ],
    },
    PublishedRun {
        about: About::R2,
        title: "R2: Gretty, 512,000 WebSockets, a text each every 25 s (2010)",
        machine: "EC2 m1.large, 2 cores, 7.5 GB; 8 more machines as clients",
        figures: &[
            connections(Some(524_285.0)),
            reached_in(None),
            CONNECTS,
            figure("texts per second", Some(20_000.0), Unit::PerSecond, claims::per_second),
            FAULTS,
            P99,
            user(Some(5_000.0)),
            all_in(None),
        ],
    },
    PublishedRun {
        about: About::R4,
        title: "R4: Grizzly's criterion, think time 8 s (2005)",
        machine: "no figures were published; the criterion is 90 % within 3 s, errors under 0.1 %",
        figures: &[
            connections(None),
            figure("90 % answered within", None, Unit::Millis, |run| {
                Some(run.latency_us.p90 as f64 / 1000.0)
            }),
            figure("errors", None, Unit::Percent, claims::error_rate),
            figure("requests per second", None, Unit::PerSecond, claims::per_second),
            FAULTS,
        ],
    },
    PublishedRun {
        about: About::Idle1m,
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
                claims::idle_cpu_us,
            ),
            user(Some(448.0)),
            all_in(Some(4_700.0)),
        ],
    },
];

/// What one connection costs a system.
pub(crate) struct System {
    pub(crate) name: &'static str,
    /// Bytes of user space; `heap` where only that was published.
    pub(crate) user: Option<f64>,
    /// With the kernel's part.
    pub(crate) total: Option<f64>,
    pub(crate) source: &'static str,
}

const BESIDE: &str = "measured by us, 18,000 connections, kernel 6.18";

/// By what a connection costs in user space.
pub(crate) static SYSTEMS: [System; 15] = [
    System { name: "uWebSockets, C++", user: Some(251.0), total: Some(4_306.0), source: BESIDE },
    System {
        name: "greatws, Go",
        user: Some(448.0),
        total: None,
        source: "its authors, 2024, 1M WebSockets, RSS",
    },
    System {
        name: "uWebSockets.js",
        user: Some(500.0),
        total: Some(4_700.0),
        source: "its authors, 2019, 995,000 on an 8 GB laptop, Node included",
    },
    System {
        name: "nginx, HTTP keep-alive",
        user: Some(529.0),
        total: Some(4_605.0),
        source: BESIDE,
    },
    System { name: "Netty", user: Some(1_700.0), total: None, source: "its authors, 2015" },
    System {
        name: "http-kit, HTTP keep-alive",
        user: Some(2_000.0),
        total: None,
        source: "its author, 2013, 600,000, heap",
    },
    System {
        name: "Gretty on Netty",
        user: Some(5_000.0),
        total: None,
        source: "its author, 2010, 524,285, heap",
    },
    System { name: "Node ws", user: Some(5_800.0), total: Some(10_071.0), source: BESIDE },
    System {
        name: "fastwebsockets on tokio",
        user: Some(6_296.0),
        total: Some(10_385.0),
        source: BESIDE,
    },
    System {
        name: "tokio-tungstenite, 4 KB buffer",
        user: Some(6_881.0),
        total: Some(10_952.0),
        source: BESIDE,
    },
    System { name: "Netty 4.1", user: Some(9_483.0), total: Some(13_591.0), source: BESIDE },
    System {
        name: "Centrifugo, tuned",
        user: Some(10_900.0),
        total: Some(15_000.0),
        source: "its authors, 2026, 1M",
    },
    System { name: "gorilla, Go", user: Some(17_705.0), total: Some(21_817.0), source: BESIDE },
    System {
        name: "WhatsApp, Erlang",
        user: None,
        total: Some(23_000.0),
        source: "its authors, 2012, 2.3M",
    },
    System {
        name: "Phoenix channels",
        user: None,
        total: Some(42_000.0),
        source: "its authors, 2015, 2M",
    },
];
