//! bench-results/README.md.

use crate::claims::{About, Target};
use crate::figures::{Unit, grouped, with_unit};
use crate::pictures::{ARTICLE_PICTURE, Picture, over_time_name, shown};
use crate::promises::PROMISES;
use crate::published;
use crate::records::kinds::{Content, kind};
use crate::records::{RecordPlace, Records, short_commit};
use crate::tables::markdown::{link, links, table};
use crate::tables::{article, beside, forms, machines, peers};

pub(crate) fn readme(records: &Records, pictures: &[Picture]) -> String {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## Claims\n\n";
    text += CLAIMS;
    text += &claims(records);
    text += "\n### The records behind them\n\n";
    text += &behind(records);
    text += "\n## Beside what others have published\n\n";
    text += &shown(pictures, "memory-per-connection");
    text += &shown(pictures, "user-space-per-connection");
    text += &format!("{}\n", beside::systems(records));
    for run in &published::RUNS {
        text += &beside::run(run, records);
        if run.about == About::R3 {
            text += &shown(pictures, ARTICLE_PICTURE);
            text += &article::section(records);
        }
        text += &shown(pictures, over_time_name(run.about));
    }
    text += &shown(pictures, "latency");
    text += &peers::section(records, pictures);
    text += &forms::section(records);
    text += &method(records);
    text += "## Machines\n\n";
    text += &machines_table(records);
    text
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
    let mut places: Vec<RecordPlace> = measured.flat_map(|measured| measured.places).collect();
    places.sort();
    places.dedup();
    let row = |place: &RecordPlace| -> Option<Vec<String>> {
        let line = records.lines.iter().find(|line| line.place == *place)?;
        Some(match &line.content {
            Content::Run(run) => {
                let commit = short_commit(run.commit.as_deref());
                let command = repeatable(run.command.as_deref().unwrap_or("not recorded"));
                vec![
                    link(place, ""),
                    run.started.clone(),
                    format!("`{command}`"),
                    commit,
                    machines::link(&run.machine),
                    run.machine.kernel.clone(),
                ]
            }
            Content::Ab(ab) => {
                let (command, same) = (format!("`{}`", ab.command), "as the run beside it");
                let [commit, machine] = [same, same].map(str::to_owned);
                vec![link(place, ""), ab.started.clone(), command, commit, machine, String::new()]
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

/// A command without the arguments that differ in each run.
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

/// The newest check of how memory is measured.
fn method(records: &Records) -> String {
    let weighed = records.of(kind!(Weighed));
    let checks = weighed.filter_map(|(line, of)| Some((&line.place, of, of.check.as_ref()?)));
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
    let mut machines: Vec<_> = records.machines().collect();
    machines.sort();
    machines.dedup();
    let rows: Vec<_> = machines
        .iter()
        .map(|machine| {
            vec![
                machines::link(machine),
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

// ---- text around the tables ----

const INTRODUCTION: &str = "\
# Measured

<!-- Made by `murre-report` from the records. Changes made here by hand are lost. -->

A number is a record: one line of JSON in `records/`, written by the program that measured and never
changed afterwards. It holds the command, the commit, the machine with its kernel and settings, every
count, the times of the answers, memory by kind, and connections and requests for each second. This
page, `machines/` and `plots/` are made from the records by `murre-report`; `murre-report --check`
says whether they still are.

How memory is measured, and how far it can be off, is said at the top of
[memory.rs](../crates/load/src/measure/memory.rs). Both ends were on one machine unless a record says
otherwise: each number holds the load generator's work beside the server's.
";

const CLAIMS: &str = "\
Of each the newest record that can show it; a newer one that is worse replaces it. A claim without a
record is pending. The table is `PROMISES` in
[promises.rs](../crates/report/src/promises.rs).

";
