//! bench-results/README.md.

use super::forms;
use super::markdown::{link, links, table};
use super::memory_rows::{self, Row};
use super::{HELD, Picture, greatest, machines};
use crate::claims::{self, OURS, Target};
use crate::cli::Scenario;
use crate::compare::{self, Group};
use crate::figures::{Spread, Unit, grouped, short, with_unit};
use crate::promises::PROMISES;
use crate::published::{self, Figure, PublishedRun};
use crate::records::{Content, Place, Records, Run, short_commit};

pub(super) fn readme(records: &Records, pictures: &[Picture]) -> String {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## Claims\n\n";
    text += CLAIMS;
    text += &claims(records);
    text += "\n### The records behind them\n\n";
    text += &behind(records);
    text += "\n## Beside what others have published\n\n";
    text += &shown(pictures, "memory-per-connection");
    text += &shown(pictures, "user-space-per-connection");
    text += &memory(records);
    for run in &published::RUNS {
        text += &reproduced(run, records);
    }
    for scenario in HELD {
        text += &shown(pictures, &format!("{}-over-time", super::scenario_name(scenario)));
    }
    text += &shown(pictures, "latency");
    text += &peers(records, pictures);
    text += &forms::section(records);
    text += &method(records);
    text += "## Machines\n\n";
    text += &machines_table(records);
    text
}

fn shown(pictures: &[Picture], name: &str) -> String {
    let picture = pictures.iter().find(|picture| picture.name == name);
    picture.map_or(String::new(), |picture| {
        format!("![{}](plots/{name}.svg)\n\n", picture.canvas.title)
    })
}

// ---- claims ----

fn claims(records: &Records) -> String {
    let rows: Vec<_> = PROMISES
        .iter()
        .map(|promise| {
            let target = promise.target.text(promise.unit);
            let (value, word, record) = match promise.measure(records) {
                Some(measured) => {
                    let value = with_unit(measured.value, promise.unit);
                    let word = match promise.target {
                        Target::None => "",
                        target if target.is_kept(measured.value) => "kept",
                        _ => "**missed**",
                    };
                    (value, word, links(&measured.places, ""))
                }
                None => (String::new(), "pending", String::new()),
            };
            vec![promise.text.to_owned(), value, target, word.to_owned(), record]
        })
        .collect();
    table(&["claim", "value>", "promise>", "", "record"], &rows)
}

/// Every line that a claim is computed from, with how it came about.
fn behind(records: &Records) -> String {
    let measured = PROMISES.iter().filter_map(|promise| promise.measure(records));
    let mut places: Vec<Place> = measured.flat_map(|measured| measured.places).collect();
    places.sort();
    places.dedup();
    let row = |place: &Place| -> Option<Vec<String>> {
        let line = records.lines.iter().find(|line| line.place == *place)?;
        Some(match &line.content {
            Content::Run(run) => {
                let commit = short_commit(run.commit.as_deref());
                let command = repeatable(run.command.as_deref().unwrap_or("not recorded"));
                let machine = machines::name(&run.machine);
                vec![
                    link(place, ""),
                    run.started.clone(),
                    format!("`{command}`"),
                    commit,
                    format!("[{machine}](machines/{machine}.json)"),
                    run.machine.kernel.clone(),
                ]
            }
            Content::Ab(ab) => {
                let command = format!("`{}`", ab.command);
                let same = "as the run beside it".to_owned();
                vec![
                    link(place, ""),
                    ab.started.clone(),
                    command,
                    same.clone(),
                    same,
                    String::new(),
                ]
            }
            _ => return None,
        })
    };
    let rows: Vec<_> = places.iter().filter_map(row).collect();
    if rows.is_empty() {
        return "None yet.\n".to_owned();
    }
    table(&["record", "started", "command", "commit", "machine", "kernel"], &rows)
}

/// A command without what is different every time.
fn repeatable(command: &str) -> String {
    let mut kept = Vec::new();
    let mut words = command.split(' ');
    while let Some(word) = words.next() {
        if matches!(word, "--server-pid" | "--out") {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

// ---- published ----

fn memory(records: &Records) -> String {
    let rows = memory_rows::rows(records);
    let ours = rows.iter().find(|row| row.ours);
    let cells = |row: &Row| {
        let bytes = |value: Option<f64>| {
            value.map_or("not published".to_owned(), |bytes| with_unit(bytes, Unit::Bytes))
        };
        let times = |value: Option<f64>, own: Option<f64>| match (value, own) {
            (Some(value), Some(own)) if !row.ours => format!("{} ×", short(value / own)),
            _ => String::new(),
        };
        let source = match &row.place {
            Some(place) => format!("{}; {}", link(place, ""), row.source),
            None => row.source.clone(),
        };
        let name = if row.ours { format!("**{}**", row.name) } else { row.name.clone() };
        let user = times(row.user, ours.and_then(|ours| ours.user));
        let total = times(row.total(), ours.and_then(Row::total));
        vec![name, bytes(row.user), user, bytes(row.total()), total, source]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let headings =
        ["per idle connection", "user space>", "times ours>", "all in>", "times ours>", "source"];
    format!("{}\n", table(&headings, &rows))
}

/// A published run beside our newest of the same kind, if there is one.
fn reproduced(published: &PublishedRun, records: &Records) -> String {
    let scenario = match published.about {
        claims::About::R1 | claims::About::R4 => Scenario::HttpKeepalive,
        claims::About::R2 => Scenario::WsUpper,
        claims::About::Idle1m => Scenario::WsIdle,
    };
    let able = |needs: &claims::Needs| {
        let runs = records.runs().filter(|(_, run)| run.is_ours() && needs.unmet(run).is_none());
        runs.max_by_key(|(place, run)| (run.connections(), run.started.clone(), *place))
    };
    // R4's records are other runs of the scenario of R1: its own promise says which.
    let run = match published.about {
        claims::About::R4 => {
            let own = PROMISES.iter().find(|promise| promise.about == Some(claims::About::R4));
            own.and_then(|promise| able(promise.needs()))
        }
        _ => greatest(records, scenario),
    };
    let mut text = format!("### {}\n\nThere: {}.", published.title, published.machine);
    let Some((place, run)) = run else { return text + " Here: pending.\n\n" };
    let whole = published.figures[0].published.is_none_or(|most| run.connections() as f64 >= most);
    let here = if whole { "Here" } else { "Here, as far as it has been run" };
    text += &format!(" {here}: {}, {}.\n\n", run.work(), link(place, ""));
    let abs = claims::abs_beside(records, place, run, OURS);
    let row = |figure: &Figure| {
        let ours = figure.of(run, &abs);
        let cell = |value: Option<f64>, none: &str| {
            value.map_or(none.to_owned(), |value| with_unit(value, figure.unit))
        };
        let ratio = figure.published.zip(ours).filter(|(theirs, _)| *theirs > 0.0);
        let ratio =
            ratio.map_or(String::new(), |(theirs, ours)| format!("{} ×", short(ours / theirs)));
        vec![
            figure.name.to_owned(),
            cell(figure.published, "not published"),
            cell(ours, "not measured"),
            ratio,
        ]
    };
    let rows: Vec<_> = published.figures.iter().map(row).collect();
    text + &table(&["", "published>", "Murre>", "times theirs>"], &rows) + "\n"
}

// ---- peers ----

fn peers(records: &Records, pictures: &[Picture]) -> String {
    let groups = compare::groups(records.runs());
    if groups.is_empty() {
        return String::new();
    }
    let mut text = format!("## Beside peers\n\n{PEERS}{}", shown(pictures, "echo-beside-peers"));
    for group in &groups {
        text += &format!("### {}\n\n{}\n", super::over_time::capital(&group.work), compared(group));
    }
    text
}

type Measure = (&'static str, Unit, fn(&Run) -> Option<f64>);

/// What is compared of a scenario.
fn measures(scenario: Scenario) -> &'static [Measure] {
    const RATE: Measure = ("answers per second>", Unit::PerSecond, claims::per_second);
    const CPU: Measure = ("per server-CPU-second>", Unit::Count, claims::per_cpu_second);
    const P99: Measure = ("99 % within>", Unit::Millis, claims::p99_ms);
    const USER: Measure = ("user space>", Unit::Bytes, claims::user_bytes);
    const TOTAL: Measure = ("all in>", Unit::Bytes, claims::total_bytes);
    const CONNECTS: Measure = ("connects per server-CPU-second>", Unit::Count, |run| {
        run.connect.connections_per_server_cpu_second
    });
    match scenario {
        Scenario::WsEcho => &[RATE, CPU, P99],
        Scenario::WsIdle => &[USER, TOTAL, CONNECTS],
        Scenario::HttpKeepalive | Scenario::WsUpper => &[RATE, CPU, P99, USER, TOTAL],
    }
}

fn compared(group: &Group<'_>) -> String {
    let ours = &group.servers[0];
    let measures = measures(group.scenario());
    let mut headings = vec!["server", "rounds>"];
    for (name, ..) in measures {
        headings.extend([*name, "ours / theirs>"]);
    }
    headings.push("records");
    let rows: Vec<_> = group
        .servers
        .iter()
        .map(|server| {
            let mut cells = vec![server.label.to_owned(), server.rounds.len().to_string()];
            for (_, unit, value) in measures {
                let spread = |spread: Option<Spread>, unit| {
                    spread.map_or(String::new(), |spread| spread.with_unit(unit))
                };
                cells.push(spread(server.spread(*value), *unit));
                cells.push(match server.label {
                    OURS => String::new(),
                    _ => spread(ours.beside(server, *value), Unit::Ratio),
                });
            }
            cells.push(link(server.rounds[0].0, ""));
            cells
        })
        .collect();
    table(&headings, &rows)
}

/// The newest check of how memory is measured.
fn method(records: &Records) -> String {
    let checks = records.lines.iter().filter_map(|line| match &line.content {
        Content::Weighed(weighed) => Some((&line.place, weighed, weighed.check.as_ref()?)),
        _ => None,
    });
    let newest = checks.max_by(|(_, one, _), (_, other, _)| one.started.cmp(&other.started));
    newest.map_or(String::new(), |(place, weighed, check)| {
        let commit = short_commit(weighed.commit.as_deref());
        format!(
            "## The check of how memory is measured\n\nOf {} connections with both ends on this \
             machine {} a connection were charged to the accepting end; as many sockets without \
             another end cost {} each: {}. {}, commit {commit}, {}.\n\n",
            grouped(check.pairs),
            with_unit(check.attributed_bytes, Unit::Bytes),
            with_unit(check.alone_bytes, Unit::Bytes),
            if check.agrees { "they agree" } else { "**they do not agree**" },
            link(place, ""),
            weighed.started,
        )
    })
}

// ---- machines ----

fn machines_table(records: &Records) -> String {
    let mut machines: Vec<_> = records.runs().map(|(_, run)| &run.machine).collect();
    machines.sort();
    machines.dedup();
    let rows: Vec<_> = machines
        .iter()
        .map(|machine| {
            let name = machines::name(machine);
            vec![
                format!("[{name}](machines/{name}.json)"),
                machine.cpu.clone(),
                machine.cores.to_string(),
                format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30)),
                machine.kernel.clone(),
                machine.virtualisation.clone().unwrap_or_default(),
                grouped(machine.open_files_max),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "None yet.\n".to_owned();
    }
    let headings =
        ["machine", "processor", "cores>", "memory>", "kernel", "virtualised by", "open files>"];
    table(&headings, &rows)
}

// ---- what is said around the tables ----

const INTRODUCTION: &str = "\
# Measured

<!-- Made by `murre-load report` from the records. Changes made here by hand are lost. -->

A number is a record: one line of JSON in `records/`, written by the program that measured and never
changed afterwards. It holds the command, the commit, the machine with its kernel and settings, every
count, the times of the answers, memory by kind, and connections and requests for each second. This
page, `machines/` and `plots/` are made from the records by `murre-load report`; `murre-load report
--check` says whether they still are.

How memory is measured, and how far it can be off, is said at the top of
[memory.rs](../crates/load/src/memory.rs). Both ends were on one machine unless a record says
otherwise: each number holds the load generator's work beside the server's.
";

const CLAIMS: &str = "\
Of each the newest record that can show it; a newer one that is worse replaces it. A claim without a
record is pending. The table is `PROMISES` in
[promises.rs](../crates/load/src/promises.rs).

";

const PEERS: &str = "\
The same client, the same cores, in turns. Each number is the median of its rounds, in brackets the
least and the greatest. A ratio is the median of the ratios of neighbouring rounds.

";
