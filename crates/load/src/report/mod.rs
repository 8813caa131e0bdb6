//! `murre-load report`: everything in bench-results that is not a record, made from the records.
//!
//! ```text
//!   records/*.jsonl ─▶ README.md          claims, comparisons           readme, beside, peers, forms
//!                   ├▶ machines/*.json    where the records are from    machines
//!                   ├▶ plots/*.svg, *.png over_time, memory_picture, latency_picture, peers_picture,
//!                   │                     article
//!                   │                      └▶ frame ─▶ canvas ─▶ svg, png
//!                   └▶ ../SPECIFICATION.md, ../README.md: between their markers   fill
//! ```
//!
//! The same records give the same bytes, on every machine: nothing here reads a clock, a setting
//! or a font of the system.

mod article;
mod axis;
mod beside;
mod canvas;
mod fill;
mod forms;
mod frame;
mod latency_picture;
mod machines;
mod markdown;
mod memory_picture;
mod memory_rows;
mod over_time;
mod peers;
mod peers_picture;
mod png;
mod readme;
mod receive_forms;
mod svg;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use self::canvas::Canvas;
use self::latency_picture::Heading;
use self::peers_picture::Measure;
use crate::claims::{self, About};
use crate::cli::Scenario;
use crate::compare::{self, Group};
use crate::published;
use crate::records::{Records, Run};

/// Makes bench-results' README, pictures and machines again from its records.
///
/// Also fills the tables of SPECIFICATION.md and README.md beside DIR, between their markers. What
/// it cannot read it names on stderr and leaves out.
#[derive(Args, Debug)]
pub(crate) struct ReportArguments {
    /// The directory that holds records/
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    dir: PathBuf,

    /// Writes nothing; exits with 1 and names the files that are not what the records say
    #[arg(long)]
    check: bool,
}

/// What was done, or would have been.
pub(crate) struct Report {
    pub(crate) warnings: Vec<String>,
    /// Files written or removed; with --check, those that would have been.
    pub(crate) changed: Vec<PathBuf>,
    /// Whether this is an error.
    pub(crate) only_checked: bool,
}

pub(crate) fn report(arguments: &ReportArguments) -> anyhow::Result<Report> {
    let directory = &arguments.dir;
    let source = directory.join("records");
    let records = Records::read_all(&source)
        .with_context(|| format!("cannot read the records in {}", source.display()))?;
    let mut files = made_from(&records);
    let beside = fill::FILLED.map(|name| directory.with_file_name(name));
    let mut outside = BTreeMap::new();
    for path in beside.into_iter().filter(|path| path.exists()) {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let filled = fill::filled(&text, &records)
            .with_context(|| format!("cannot fill {}", path.display()))?;
        outside.insert(path, filled.into_bytes());
    }
    outside.extend(
        std::mem::take(&mut files).into_iter().map(|(name, bytes)| (directory.join(name), bytes)),
    );
    let mut changed = stale(directory, &outside)?;
    if !arguments.check {
        for path in &changed {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for (path, bytes) in &outside {
        if fs::read(path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        changed.push(path.clone());
        if !arguments.check {
            write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(Report { warnings: records.warnings, changed, only_checked: arguments.check })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

/// Pictures and machines that no record speaks of any more.
fn stale(directory: &Path, made: &BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for (folder, kinds) in [("machines", &["json"][..]), ("plots", &["svg", "png"])] {
        // Missing before the first report.
        let Ok(entries) = fs::read_dir(directory.join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            let kind = path.extension().unwrap_or_default().to_string_lossy();
            if kinds.contains(&&*kind) && !made.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

/// Every file that follows from the records, by its name in their directory.
fn made_from(records: &Records) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let pictures = pictures(records);
    for picture in &pictures {
        let name = format!("plots/{}", picture.name);
        files.insert(format!("{name}.svg"), svg::svg(&picture.canvas).into_bytes());
        files.insert(format!("{name}.png"), png::png(&picture.canvas));
    }
    for (name, json) in machines::files(records) {
        files.insert(format!("machines/{name}.json"), json);
    }
    let readme = readme::readme(records, &pictures);
    files.insert("README.md".to_owned(), readme.into_bytes());
    files
}

/// One picture, with the section of the README that shows it.
struct Picture {
    name: String,
    canvas: Canvas,
}

/// The line of the README that shows a picture, if there is one of that name.
fn shown(pictures: &[Picture], name: &str) -> String {
    let picture = pictures.iter().find(|picture| picture.name == name);
    picture.map_or(String::new(), |picture| {
        format!("![{}](plots/{name}.svg)\n\n", picture.canvas.title)
    })
}

fn pictures(records: &Records) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let mut add = |name: &str, canvas| pictures.push(Picture { name: name.to_owned(), canvas });
    let rows = memory_rows::rows(records);
    if rows.iter().any(|row| row.ours) {
        add("memory-per-connection", memory_picture::stacked(&rows));
        add("user-space-per-connection", memory_picture::user_space(&rows));
    }
    let mut held = Vec::new();
    for published in &published::RUNS {
        if let Some((place, run)) = published.reproduced(records) {
            add(over_time_name(published.about), over_time::picture(place, run));
            held.push(Heading { work: run.work(), runs: vec![run] });
        }
    }
    held.retain(|heading| heading.runs[0].latency_us.count > 0);
    if !held.is_empty() {
        add("latency", latency_picture::picture("How long answers take", &held));
    }

    let steps = article::steps(records);
    if !steps.is_empty() {
        add(ARTICLE_PICTURE, article::picture(&steps));
    }

    let groups = compare::groups(records.runs());
    let of = |scenario, fits: fn(&Group<'_>) -> bool| -> Vec<_> {
        groups.iter().filter(|group| group.scenario() == scenario && fits(group)).collect()
    };
    let idle = of(Scenario::WsIdle, |_| true);
    let closed = of(Scenario::WsEcho, |group| !group.scheduled() && group.idle_beside() == 0);
    let among = of(Scenario::WsEcho, |group| !group.scheduled() && group.idle_beside() > 0);
    let fanout = of(Scenario::Fanout, |group| !group.scheduled());
    let scheduled = of(Scenario::WsEcho, |group| group.scheduled());
    let echo: [Measure; 2] = [
        ("messages per second", claims::per_second),
        ("messages per second of server CPU time", claims::per_cpu_second),
    ];
    let deliveries: [Measure; 2] = [
        ("deliveries per second", claims::per_second),
        ("deliveries per second of server CPU time", claims::per_cpu_second),
    ];
    let accepting: [Measure; 2] = [
        ("connects per second, handshake included", claims::connects_per_second),
        ("connects per second of server CPU time", claims::connects_per_cpu_second),
    ];
    for (name, title, groups, panels) in [
        (peers::PICTURES[0], "Echo beside other servers", &closed, echo),
        (peers::PICTURES[1], "Echo among idle connections, beside other servers", &among, echo),
        (peers::PICTURES[2], "Accepting WebSockets beside other servers", &idle, accepting),
        (peers::PICTURES[4], "One message to many, beside other servers", &fanout, deliveries),
    ] {
        if !groups.is_empty() {
            add(name, peers_picture::picture(title, groups, panels));
        }
    }
    // On a schedule a slow server is asked as often as a fast one: only then times compare.
    let timed = if scheduled.is_empty() { &closed } else { &scheduled };
    if !timed.is_empty() {
        let headings: Vec<_> = timed.iter().map(|group| middles(group)).collect();
        let title = "How long answers take, beside other servers";
        add(peers::PICTURES[3], latency_picture::picture(title, &headings));
    }
    pictures
}

/// What the picture of connections and requests over the time of a run is called.
fn over_time_name(about: About) -> &'static str {
    match about {
        About::R1 => "http-keepalive-over-time",
        About::R2 => "ws-upper-over-time",
        About::R4 => "concurrency-search-over-time",
        About::R3 => "pubsub-over-time",
        About::Idle1m => "ws-idle-over-time",
        About::Idle2m => "ws-idle-2m-over-time",
    }
}

/// What the picture of the article's steps is called.
const ARTICLE_PICTURE: &str = "pubsub-2012";

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
