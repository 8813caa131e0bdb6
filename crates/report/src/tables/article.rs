//! The comparison of 2012, step by step: ours beside the four that were published, as a table and as a
//! picture.

use crate::figures::{Unit, grouped, rounded, with_unit};
use crate::needs::Needs;
use crate::promises::R3;
use crate::published::{PUBSUB, PubSubServer};
use crate::records::{RecordPlace, Records, Run, is_ours};
use crate::tables::markdown::{link, table};

/// Of each number of connections the newest run of ours, the fewest first.
pub(crate) fn steps(records: &Records) -> Vec<(&RecordPlace, &Run)> {
    let needs = Needs { conns: (1, u64::MAX), ..R3 };
    let ours = records.runs().filter(|(_, run)| is_ours(run) && needs.unmet(run).is_none());
    let mut steps: Vec<_> = ours.filter(|(_, run)| run.hold.is_some()).collect();
    steps.sort_by_key(|(place, run)| (run.connections(), &run.started, *place));
    steps.reverse();
    steps.dedup_by_key(|(_, run)| run.connections());
    steps.reverse();
    steps
}

/// The article's columns of all steps, beside the others' figures for as many connections.
pub(crate) fn section(records: &Records) -> String {
    let steps = steps(records);
    if steps.is_empty() {
        return String::new();
    }
    let mut headings = vec![
        "connections>",
        "connected>",
        "average response>",
        "average size>",
        "messages>",
        "messages per second>",
        "wall time>",
        "faults>",
    ];
    let published = PUBSUB.each_ref().map(|server| format!("{}>", server.name));
    headings.extend(published.iter().map(String::as_str));
    headings.push("record");
    let rows: Vec<_> = steps.iter().map(|(place, run)| row(place, run)).collect();
    let ends: Vec<_> =
        PUBSUB.iter().map(|server| format!("{} {}", server.name, server.end)).collect();
    format!(
        "Each step of ours, as its authors tabulated theirs; beside it the messages per second that \
         they have published. {}.\n\n{}\n",
        ends.join("; "),
        table(&headings, &rows)
    )
}

fn row(place: &RecordPlace, run: &Run) -> Vec<String> {
    let last = run.article.as_ref().and_then(|article| article.rows.last());
    let of = |value: Option<f64>, unit| value.map_or(String::new(), |value| with_unit(value, unit));
    let hold = run.hold.as_ref();
    let mut cells = vec![
        grouped(run.connections()),
        last.map_or(String::new(), |row| grouped(row.connected)),
        of(last.map(|row| row.average_response_ms), Unit::Millis),
        of(last.map(|row| row.average_bytes), Unit::Bytes),
        of(hold.map(|hold| hold.requests as f64), Unit::Count),
        of(hold.map(|hold| hold.requests_per_second), Unit::Count),
        of(hold.map(|hold| hold.seconds), Unit::Seconds),
        grouped(run.faults()),
    ];
    cells.extend(PUBSUB.iter().map(|server| published(server, run.connections() as f64)));
    cells.push(link(place, ""));
    cells
}

/// A server's figure for so many connections, if it was published.
fn published(server: &PubSubServer, connections: f64) -> String {
    let [first, last] = server.points;
    let even = first.1 == last.1 && (first.0..=last.0).contains(&connections);
    match server.points.iter().find(|point| point.0 == connections) {
        Some(point) => rounded(point.1),
        None if even => rounded(first.1),
        None => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::records::Line;

    pub(crate) fn records(steps: &[(u64, f64)]) -> Records {
        let records = Records::fixture();
        let (_, run) = records.runs().find(|(_, run)| is_ours(run)).expect("one");
        let mut run = run.clone();
        run.scenario = murre_record::Scenario::Pubsub;
        run.parameters.payload = 1400;
        run.parameters.rate = None;
        let line = |(index, &(conns, rate)): (usize, &(u64, f64))| {
            let mut run = run.clone();
            (run.parameters.conns, run.connect.connections) = (conns, conns);
            run.started = format!("2026-12-01T00:00:{index:02}Z");
            run.hold.as_mut().expect("held").requests_per_second = rate;
            let place = RecordPlace { file: "2026-12-01-pubsub.jsonl".to_owned(), line: index + 1 };
            Line::of(place, run)
        };
        let lines = steps.iter().enumerate().map(line).collect();
        Records { lines, warnings: Vec::new() }
    }

    /// Shows the order of steps, that a later run of one replaces an earlier, and which published
    /// figure is beside which.
    #[test]
    fn the_newest_run_of_each_step_is_beside_the_published() {
        let records = records(&[(1000, 9e4), (25_000, 8e4), (500, 7e4), (1000, 9.5e4)]);
        let connections: Vec<_> =
            steps(&records).iter().map(|(at, run)| (run.connections(), at.line)).collect();
        assert_eq!(connections, [(500, 3), (1000, 4), (25_000, 2)]);
        let section = section(&records);
        let rows: Vec<_> = section.lines().filter(|line| line.contains("jsonl#L")).collect();
        assert!(
            rows[0].contains("| 70,000 |") && rows[0].contains("|  |  | 950 | 930 |"),
            "{section}"
        );
        assert!(
            rows[1].contains("| 95,000 |") && rows[1].contains("| 5,000 | 4,252 | 950 | 930 |")
        );
        assert!(rows[2].contains("| 80,000 |") && rows[2].contains("| 5,000 |  |  |  |"));
        assert_eq!(super::section(&Records::default()), "");
    }
}
