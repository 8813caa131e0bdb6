//! The section of the README about servers that did the same work as ours, in turns.

use crate::compare::{self, Group};
use crate::figures::{Spread, Unit};
use crate::pictures::{BESIDE_PEERS, Picture, frame, shown};
use crate::records::{OURS, Records, Run};
use crate::tables::markdown::{link, table};
use crate::values;
use murre_record::Outcome;
use murre_record::Scenario;

pub(crate) fn section(records: &Records, pictures: &[Picture]) -> String {
    let groups = compare::groups(records.runs());
    if groups.is_empty() {
        return String::new();
    }
    let mut text = format!("## Beside peers\n\n{PEERS}");
    for picture in BESIDE_PEERS {
        text += &shown(pictures, picture);
    }
    for group in &groups {
        text += &format!("### {}\n\n{}\n", frame::capital(&group.work), compared(group));
        text += &not_passed(group);
    }
    text
}

type Measure = (&'static str, Unit, fn(&Run) -> Option<f64>);

/// The columns of a kind of work.
fn measures(group: &Group<'_>) -> &'static [Measure] {
    const RATE: Measure = ("answers per second>", Unit::PerSecond, values::per_second);
    const CPU: Measure = ("per server-CPU-second>", Unit::Count, values::per_cpu_second);
    const DELIVERIES: Measure = ("deliveries per second>", Unit::PerSecond, values::per_second);
    const LAST: Measure =
        ("99 % with the last subscriber within>", Unit::Millis, values::last_delivery_p99_ms);
    const P99: Measure = ("99 % within>", Unit::Millis, values::p99_ms);
    const USER: Measure = ("user space>", Unit::Bytes, values::user_bytes);
    const TOTAL: Measure = ("all in>", Unit::Bytes, values::total_bytes);
    const CONNECTS: Measure =
        ("connects per second>", Unit::PerSecond, values::connects_per_second);
    const ACCEPTS: Measure =
        ("connects per server-CPU-second>", Unit::Count, values::connects_per_cpu_second);
    match group.run().scenario {
        // On a schedule all answer equally often.
        Scenario::WsEcho if group.scheduled() => &[CPU, P99],
        Scenario::WsEcho => &[RATE, CPU, P99],
        Scenario::WsIdle => &[USER, TOTAL, CONNECTS, ACCEPTS],
        Scenario::Fanout => &[DELIVERIES, CPU, LAST],
        Scenario::Pubsub | Scenario::Quotes | Scenario::RequestReply | Scenario::Churn => {
            &[RATE, CPU, P99]
        }
        Scenario::Phoenix => &[CPU, P99, USER, TOTAL],
        Scenario::Presence | Scenario::Interest => &[CPU, P99],
        Scenario::Storm
        | Scenario::Recover
        | Scenario::Backend
        | Scenario::Abuse
        | Scenario::Soak => &[P99],
        // Clients ask when their idle time is over, so the rate does not depend on the server.
        Scenario::HttpKeepalive | Scenario::WsUpper => &[CPU, P99, USER, TOTAL],
    }
}

fn compared(group: &Group<'_>) -> String {
    let ours = &group.servers[0];
    let measures = measures(group);
    let mut headings = vec!["server", "rounds>"];
    for (name, ..) in measures {
        headings.extend([*name, "ours / theirs>"]);
    }
    headings.push("first record");
    let rows: Vec<_> = group
        .servers
        .iter()
        .map(|server| {
            let bold = |text: &str| match server.label {
                OURS => format!("**{text}**"),
                _ => text.to_owned(),
            };
            let mut cells = vec![bold(server.label), server.rounds.len().to_string()];
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

/// Says which rounds had faults: their numbers are in the table all the same.
fn not_passed(group: &Group<'_>) -> String {
    let rounds = group.servers.iter().flat_map(|server| &server.rounds);
    let failed = rounds.filter(|(_, run)| run.outcome != Outcome::Passed);
    let failed: Vec<_> = failed
        .map(|(place, run)| {
            format!("{} ({}): {}", run.label, link(place, ""), run.reasons.join("; "))
        })
        .collect();
    match failed.is_empty() {
        true => String::new(),
        false => format!("Did not pass: {}.\n\n", failed.join(". ")),
    }
}

const PEERS: &str = "\
The same client, the same cores, in turns, of each kind of work the newest comparison. A number is the
median of its rounds, in brackets the least and the greatest. *Ours / theirs* is the median of the
ratios of neighbouring rounds: of rates more is better, of bytes and times less. A label that ends
with `-lean` is a peer with the settings that take the least memory.

";
