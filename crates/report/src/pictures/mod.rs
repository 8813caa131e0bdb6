//! The pictures of bench-results: each is a list of shapes, written as SVG and as PNG.
//!
//! ```text
//!   article, latency, memory, over_time, peers ─▶ frame, axis ─▶ canvas ─▶ svg, png
//! ```

mod article;
pub(crate) mod axis;
pub(crate) mod canvas;
pub(crate) mod frame;
mod latency;
mod memory;
mod over_time;
mod peers;
pub(crate) mod png;
pub(crate) mod svg;

use murre_record::Scenario;

use self::canvas::Canvas;
use self::latency::Heading;
use self::peers::Measure;
use crate::claims::About;
use crate::compare::{self, Group};
use crate::published;
use crate::records::{Records, Run, work};
use crate::tables::article::steps;
use crate::tables::memory_rows;
use crate::values;

/// One picture, with the section of the README that shows it.
pub(crate) struct Picture {
    pub(crate) name: String,
    pub(crate) canvas: Canvas,
}

/// The line of the README that shows a picture, if there is one of that name.
pub(crate) fn shown(pictures: &[Picture], name: &str) -> String {
    let picture = pictures.iter().find(|picture| picture.name == name);
    picture.map_or(String::new(), |picture| {
        format!("![{}](plots/{name}.svg)\n\n", picture.canvas.title)
    })
}

pub(crate) fn all(records: &Records) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let mut add = |name: &str, canvas| pictures.push(Picture { name: name.to_owned(), canvas });
    let rows = memory_rows::rows(records);
    if rows.iter().any(|row| row.ours) {
        add("memory-per-connection", memory::stacked(&rows));
        add("user-space-per-connection", memory::user_space(&rows));
    }
    let mut held = Vec::new();
    for published in &published::RUNS {
        if let Some((place, run)) = published.reproduced(records) {
            add(over_time_name(published.about), over_time::picture(place, run));
            held.push(Heading { work: work(run), runs: vec![run] });
        }
    }
    held.retain(|heading| heading.runs[0].latency_us.count > 0);
    if !held.is_empty() {
        add("latency", latency::picture("How long answers take", &held));
    }

    let steps = steps(records);
    if !steps.is_empty() {
        add(ARTICLE_PICTURE, article::picture(&steps));
    }

    let groups = compare::groups(records.runs());
    let of = |scenario, fits: fn(&Group<'_>) -> bool| -> Vec<_> {
        groups.iter().filter(|group| group.run().scenario == scenario && fits(group)).collect()
    };
    let idle = of(Scenario::WsIdle, |_| true);
    let closed =
        of(Scenario::WsEcho, |group| !group.scheduled() && group.run().parameters.idle_conns == 0);
    let among =
        of(Scenario::WsEcho, |group| !group.scheduled() && group.run().parameters.idle_conns > 0);
    let fanout = of(Scenario::Fanout, |group| !group.scheduled());
    let scheduled = of(Scenario::WsEcho, |group| group.scheduled());
    let echo: [Measure; 2] = [
        ("messages per second", values::per_second),
        ("messages per second of server CPU time", values::per_cpu_second),
    ];
    let deliveries: [Measure; 2] = [
        ("deliveries per second", values::per_second),
        ("deliveries per second of server CPU time", values::per_cpu_second),
    ];
    let accepting: [Measure; 2] = [
        ("connects per second, handshake included", values::connects_per_second),
        ("connects per second of server CPU time", values::connects_per_cpu_second),
    ];
    for (name, title, groups, panels) in [
        (BESIDE_PEERS[0], "Echo beside other servers", &closed, echo),
        (BESIDE_PEERS[1], "Echo among idle connections, beside other servers", &among, echo),
        (BESIDE_PEERS[2], "Accepting WebSockets beside other servers", &idle, accepting),
        (BESIDE_PEERS[4], "One message to many, beside other servers", &fanout, deliveries),
    ] {
        if !groups.is_empty() {
            add(name, peers::picture(title, groups, panels));
        }
    }
    // On a schedule a slow server is asked as often as a fast one: only then times compare.
    let timed = if scheduled.is_empty() { &closed } else { &scheduled };
    if !timed.is_empty() {
        let headings: Vec<_> = timed.iter().map(|group| middles(group)).collect();
        let title = "How long answers take, beside other servers";
        add(BESIDE_PEERS[3], latency::picture(title, &headings));
    }
    pictures
}

/// The name of the picture of connections and requests over the time of a run.
pub(crate) fn over_time_name(about: About) -> &'static str {
    match about {
        About::R1 => "http-keepalive-over-time",
        About::R2 => "ws-upper-over-time",
        About::R4 => "concurrency-search-over-time",
        About::R3 => "pubsub-over-time",
        About::R5 => "phoenix-over-time",
        About::R5Nodes => "phoenix-nodes-over-time",
        About::Idle1m => "ws-idle-over-time",
        About::Idle2m => "ws-idle-2m-over-time",
    }
}

/// The name of the picture of the article's steps.
pub(crate) const ARTICLE_PICTURE: &str = "pubsub-2012";

/// Of each server the round in the middle.
fn middles<'r>(group: &Group<'r>) -> Heading<'r> {
    let middle = group.servers.iter().filter_map(|server| {
        let mut rounds: Vec<&'r Run> = server.rounds.iter().map(|(_, run)| *run).collect();
        rounds.retain(|run| run.latency_us.count > 0);
        rounds.sort_by_key(|run| run.latency_us.p99);
        rounds.get(rounds.len() / 2).copied()
    });
    let mut runs: Vec<_> = middle.collect();
    runs.sort_by_key(|run| run.latency_us.p99);
    Heading { work: group.work.clone(), runs }
}

/// The pictures of this section, in its order.
pub(crate) const BESIDE_PEERS: [&str; 5] = [
    "echo-beside-peers",
    "echo-among-idle",
    "accepting-beside-peers",
    "latency-beside-peers",
    "fan-out-beside-peers",
];
