//! `murre-load report`: everything in bench-results that is not a record, made from the records.
//!
//! ```text
//!   records/*.jsonl ─▶ README.md          claims, comparisons           readme
//!                   ├▶ machines/*.json    where the records are from    machines
//!                   ├▶ plots/*.svg, *.png over_time, memory_picture, latency_picture, peers_picture
//!                   │                      └▶ canvas ─▶ svg, png
//!                   └▶ SPECIFICATION.md   between its markers           specification
//! ```
//!
//! The same records give the same bytes, on every machine: nothing here reads a clock, a setting
//! or a font of the system.

mod axis;
mod canvas;
mod forms;
mod latency_picture;
mod machines;
mod markdown;
mod memory_picture;
mod memory_rows;
mod over_time;
mod peers_picture;
mod png;
mod readme;
mod specification;
mod svg;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use self::canvas::Canvas;
use self::latency_picture::Heading;
use crate::claims::p99_ms;
use crate::cli::Scenario;
use crate::compare::{self, Group};
use crate::records::{Place, Records, Run};

/// Makes bench-results' README, pictures and machines again from its records.
///
/// Also fills the tables of SPECIFICATION.md, between its markers. What it cannot read it names on
/// stderr and leaves out.
#[derive(Args, Debug)]
pub(crate) struct ReportArguments {
    /// The directory that holds records/
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    dir: PathBuf,

    /// Where promises are quoted [default: SPECIFICATION.md beside DIR, if it is there]
    #[arg(long, value_name = "FILE")]
    specification: Option<PathBuf>,

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
    let beside = directory.parent().map(|parent| parent.join("SPECIFICATION.md"));
    let specification = arguments.specification.clone().or(beside.filter(|path| path.exists()));
    let mut outside = BTreeMap::new();
    if let Some(path) = specification {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let filled = specification::filled(&text, &records)
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

fn pictures(records: &Records) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let mut add = |name: &str, canvas| pictures.push(Picture { name: name.to_owned(), canvas });
    let rows = memory_rows::rows(records);
    if rows.iter().any(|row| row.ours) {
        add("memory-per-connection", memory_picture::stacked(&rows));
        add("user-space-per-connection", memory_picture::user_space(&rows));
    }
    for scenario in HELD {
        if let Some((place, run)) = greatest(records, scenario) {
            add(&format!("{}-over-time", scenario_name(scenario)), over_time::picture(place, run));
        }
    }
    let groups = compare::groups(records.runs());
    let headings = headings(records, &groups);
    if !headings.is_empty() {
        add("latency", latency_picture::picture(&headings));
    }
    let echoes: Vec<_> =
        groups.iter().filter(|group| group.scenario() == Scenario::WsEcho).collect();
    if !echoes.is_empty() {
        add("echo-beside-peers", peers_picture::picture(&echoes));
    }
    pictures
}

/// The scenarios that are about holding many connections.
const HELD: [Scenario; 3] = [Scenario::HttpKeepalive, Scenario::WsUpper, Scenario::WsIdle];

fn scenario_name(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::HttpKeepalive => "http-keepalive",
        Scenario::WsUpper => "ws-upper",
        Scenario::WsIdle => "ws-idle",
        Scenario::WsEcho => "ws-echo",
    }
}

/// Our run with the most connections; of several the newest.
fn greatest(records: &Records, scenario: Scenario) -> Option<(&Place, &Run)> {
    let ours = records.runs().filter(|(_, run)| run.is_ours() && run.scenario == scenario);
    ours.max_by_key(|(place, run)| (run.connections(), &run.started, *place))
}

/// The greatest run of each kind, and every newest comparison.
fn headings<'r>(records: &'r Records, groups: &[Group<'r>]) -> Vec<Heading<'r>> {
    let held = HELD.iter().filter_map(|&scenario| greatest(records, scenario));
    let mut headings: Vec<Heading<'r>> = held
        .filter(|(_, run)| run.latency_us.count > 0)
        .map(|(_, run)| Heading { work: run.work(), runs: vec![run] })
        .collect();
    for group in groups.iter().filter(|group| group.scenario() == Scenario::WsEcho) {
        let middle = group.servers.iter().filter_map(|server| {
            let mut rounds: Vec<&'r Run> = server.rounds.iter().map(|(_, run)| *run).collect();
            rounds.retain(|run| run.latency_us.count > 0);
            rounds.sort_by(|one, other| p99_ms(one).partial_cmp(&p99_ms(other)).expect("numbers"));
            rounds.get(rounds.len() / 2).copied()
        });
        headings.push(Heading { work: group.work.clone(), runs: middle.collect() });
    }
    headings
}
