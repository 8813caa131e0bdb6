//! bench-results/README.md.

use super::markdown::{link, links, table};
use super::memory_rows::{self, Row};
use super::{HELD, Picture, greatest, machines};
use crate::claims::{self, OURS, PROMISES, Target};
use crate::cli::Scenario;
use crate::compare::{self, Group};
use crate::figures::{Spread, Unit, grouped, short, with_unit};
use crate::published::{self, Figure, Ours, PublishedRun};
use crate::records::{Content, Place, Records, Run};

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
    text += &forms(records);
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
                let commit = run.commit.as_deref().unwrap_or("unknown");
                let command = repeatable(run.command.as_deref().unwrap_or("not recorded"));
                let machine = machines::name(&run.machine);
                vec![
                    link(place, ""),
                    run.started.clone(),
                    format!("`{command}`"),
                    format!("{commit:.12}"),
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
        ["per idle connection", "user space>", "of ours>", "all in>", "of ours>", "source"];
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
    text += &format!(" Here: {}, {}.\n\n", run.work(), link(place, ""));
    let ab = records.lines.iter().rev().find_map(|line| match &line.content {
        Content::Ab(ab) if ab.label == OURS && line.place.file == place.file => Some(ab),
        _ => None,
    });
    let row = |figure: &Figure| {
        let ours = match figure.ours {
            Ours::Run(value) => value(run),
            Ours::Ab(value) => ab.map(value),
        };
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
    text + &table(&["", "published>", "Murre>", "of theirs>"], &rows) + "\n"
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

// ---- forms ----

/// Decisions that were made by measuring one form against another.
fn forms(records: &Records) -> String {
    let newest = |holds: fn(&Content) -> bool| {
        let lines = records.lines.iter().filter(|line| holds(&line.content));
        let file = lines.clone().map(|line| &line.place.file).max();
        lines.filter(|line| Some(&line.place.file) == file).collect::<Vec<_>>()
    };
    let mut text = String::new();
    let forms = newest(|content| matches!(content, Content::Form(_)));
    let mut names: Vec<&str> = Vec::new();
    for line in &forms {
        if let Content::Form(form) = &line.content
            && !names.contains(&&form.form[..])
        {
            names.push(&form.form);
        }
    }
    let values = |name: &str, value: fn(&crate::records::Form) -> f64| -> Vec<f64> {
        let forms = forms.iter().filter_map(|line| match &line.content {
            Content::Form(form) if form.form == name => Some(value(form)),
            _ => None,
        });
        forms.collect()
    };
    let rows: Vec<_> = names
        .iter()
        .map(|name| {
            let cpu = values(name, |form| form.echoes_per_cpu_second);
            let first = values(names[0], |form| form.echoes_per_cpu_second);
            let ratios = cpu.iter().zip(&first).map(|(own, first)| own / first).collect();
            let spread = |values, unit| {
                Spread::of(values).map_or(String::new(), |spread| spread.with_unit(unit))
            };
            let rate = values(name, |form| form.echoes_per_second);
            vec![
                (*name).to_owned(),
                spread(rate, Unit::PerSecond),
                spread(cpu, Unit::Count),
                spread(ratios, Unit::Ratio),
            ]
        })
        .collect();
    if let Some(line) = forms.first() {
        let file = link(&line.place, "");
        text += &format!("## Forms\n\n### Receiving\n\n{RECEIVING} {file} and what follows.\n\n");
        let headings =
            ["form", "echoes per second>", "per server-CPU-second>", "beside the first>"];
        text += &table(&headings, &rows);
        text += "\n";
    }
    let accepts = newest(|content| matches!(content, Content::Accept(_)));
    let rows: Vec<_> = accepts
        .iter()
        .filter_map(|line| match &line.content {
            Content::Accept(accept) => {
                let [one, two] = accept.shares.map(short);
                let cost = with_unit(accept.cpu_us, Unit::Micros);
                Some(vec![accept.accept.clone(), one, two, cost, link(&line.place, "")])
            }
            _ => None,
        })
        .collect();
    if !rows.is_empty() {
        text += &format!("### Accepting\n\n{ACCEPTING}\n\n");
        let headings = ["form", "one>", "other>", "server CPU per connection>", "record"];
        text += &format!("{}\n", table(&headings, &rows));
    }
    let masks = newest(|content| matches!(content, Content::Mask(_)));
    let rows: Vec<_> = masks
        .iter()
        .filter_map(|line| match &line.content {
            Content::Mask(mask) => {
                let [ours, naive, decode, theirs] = [
                    mask.mask_gb_per_s,
                    mask.naive_gb_per_s,
                    mask.decode_gb_per_s,
                    mask.tungstenite_decode_gb_per_s,
                ]
                .map(short);
                let bytes = grouped(mask.payload_bytes);
                Some(vec![bytes, ours, naive, decode, theirs, link(&line.place, "")])
            }
            _ => None,
        })
        .collect();
    if !rows.is_empty() {
        text += &format!("### Masks\n\n{MASKS}\n\n");
        let headings =
            ["payload, B>", "ours>", "byte by byte>", "our decoder>", "tungstenite's>", "record"];
        text += &format!("{}\n", table(&headings, &rows));
    }
    text + &method(records)
}

/// The newest check of how memory is measured.
fn method(records: &Records) -> String {
    let checks = records.lines.iter().filter_map(|line| match &line.content {
        Content::Weighed(weighed) => Some((&line.place, weighed, weighed.check.as_ref()?)),
        _ => None,
    });
    let newest = checks.max_by(|(_, one, _), (_, other, _)| one.started.cmp(&other.started));
    newest.map_or(String::new(), |(place, weighed, check)| {
        let commit = weighed.commit.as_deref().unwrap_or("unknown");
        format!(
            "## The check of how memory is measured\n\nOf {} connections with both ends on this \
             machine {} a connection were charged to the accepting end; as many sockets without \
             another end cost {} each: {}. {}, commit {commit:.12}, {}.\n\n",
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
record is pending. The table is `PROMISES` in [claims.rs](../crates/load/src/claims.rs).

";

const PEERS: &str = "\
The same client, the same cores, in turns. Each number is the median of its rounds, in brackets the
least and the greatest. A ratio is the median of the ratios of neighbouring rounds.

";

const RECEIVING: &str = "\
Echo on 64 connections of 32 B, one core for each end, the forms in turns; medians, least and
greatest. `cargo run --release --example forms`.";

const ACCEPTING: &str = "\
Which part of the connections each of two shards took, and what one cost. `cargo test --release
--package murre-core --lib accept_forms -- --ignored --nocapture`.";

const MASKS: &str = "\
10^9 bytes of payload a second, unmasked and decoded. `cargo run --release --package murre-codec
--example mask_throughput`.";
