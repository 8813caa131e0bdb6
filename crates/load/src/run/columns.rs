//! The columns of the comparison of 2012: what its load tester printed every 15 seconds. All are of the
//! time since all connections were up.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use murre_record::Row;

use crate::engine::score::Totals;

/// The lines of a run under way.
pub(crate) struct Columns {
    connections: u64,
    begun: Instant,
    before: Totals,
    next: Instant,
    rows: Vec<Row>,
}

impl Columns {
    /// The time begins.
    pub(crate) fn new(connections: u64, begun: Instant, before: Totals) -> Columns {
        Columns { connections, begun, before, next: begun + EVERY, rows: Vec::new() }
    }

    /// A line, if it is time for one.
    pub(crate) fn sample(&mut self, now: Instant, totals: &Totals) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next += EVERY;
        Some(self.add(now, totals))
    }

    /// The last line, and all of them.
    pub(crate) fn finish(mut self, now: Instant, totals: &Totals) -> Vec<Row> {
        self.add(now, totals);
        self.rows
    }

    fn add(&mut self, now: Instant, totals: &Totals) -> String {
        let messages = totals.answered - self.before.answered;
        let seconds = now.saturating_duration_since(self.begun).as_secs_f64();
        let average = |sum: u64| sum as f64 / messages.max(1) as f64;
        let row = Row {
            connections: self.connections,
            connected: totals.ready,
            average_response_ms: average(totals.response_us - self.before.response_us) / 1000.0,
            average_bytes: average(totals.message_bytes - self.before.message_bytes),
            messages,
            messages_per_second: messages as f64 / seconds.max(0.001),
            wall_seconds: seconds,
        };
        self.rows.push(row);
        let text = cells(&row);
        if self.rows.len() == 1 { format!("{}\n{text}", headings()) } else { text }
    }
}

/// All lines as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = headings() + "\n";
    for row in rows {
        table += &cells(row);
        table.push('\n');
    }
    table
}

/// All lines as comma-separated values.
pub(crate) fn csv(rows: &[Row]) -> String {
    let mut csv = HEADINGS.map(|(name, _)| name.replace(' ', "_")).join(",") + "\n";
    for row in rows {
        csv += &values(row).join(",");
        csv.push('\n');
    }
    csv
}

fn headings() -> String {
    let mut line = String::new();
    for (name, width) in HEADINGS {
        // Writing to a string does not fail.
        let _ = write!(line, "{name:>width$}");
    }
    line
}

fn cells(row: &Row) -> String {
    let mut line = String::new();
    for ((_, width), value) in HEADINGS.iter().zip(values(row)) {
        let _ = write!(line, "{value:>width$}");
    }
    line
}

fn values(row: &Row) -> [String; 7] {
    [
        row.connections.to_string(),
        row.connected.to_string(),
        format!("{:.3}", row.average_response_ms),
        format!("{:.0}", row.average_bytes),
        row.messages.to_string(),
        format!("{:.0}", row.messages_per_second),
        format!("{:.1}", row.wall_seconds),
    ]
}

/// Averages of the ten highest and of the ten lowest values, in milliseconds.
pub(crate) fn extremes(histogram: &Histogram<u64>) -> (f64, f64) {
    let recorded = || histogram.iter_recorded();
    let values: Vec<_> = recorded()
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect();
    (ten(values.iter().rev()), ten(values.iter()))
}

fn ten<'v>(values: impl Iterator<Item = &'v (u64, u64)>) -> f64 {
    let (mut sum, mut count) = (0, 0);
    for (value, times) in values {
        let taken = (*times).min(10 - count);
        sum += value * taken;
        count += taken;
        if count == 10 {
            break;
        }
    }
    sum as f64 / count.max(1) as f64 / 1000.0
}

const EVERY: Duration = Duration::from_secs(15);

/// With their widths.
const HEADINGS: [(&str, usize); 7] = [
    ("connections", 11),
    ("connected", 11),
    ("average response ms", 21),
    ("average bytes", 15),
    ("messages", 12),
    ("messages per second", 21),
    ("wall seconds", 14),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::times::empty_histogram;

    /// Shows every column, that a line comes every 15 s, and that the last one comes at the end.
    #[test]
    fn lines_are_of_the_time_since_all_were_connected() {
        let begun = Instant::now();
        let totals = |ready, answered, response_us, message_bytes| Totals {
            ready,
            answered,
            response_us,
            message_bytes,
            ..Totals::default()
        };
        let mut columns = Columns::new(500, begun, totals(500, 10, 0, 0));
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(columns.sample(at(14), &totals(500, 20, 0, 0)), None);
        let text =
            columns.sample(at(15), &totals(499, 1510, 3_000_000, 2_100_000)).expect("a line");
        let words: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(words, ["500", "499", "2.000", "1400", "1500", "100", "15.0"]);
        assert_eq!(columns.sample(at(16), &totals(499, 1600, 0, 0)), None);
        let rows = columns.finish(at(20), &totals(499, 2010, 4_000_000, 2_800_000));
        assert_eq!((rows.len(), rows[1].messages, rows[1].wall_seconds), (2, 2000, 20.0));
        assert_eq!(table(&rows).lines().count(), 3);
        let csv = csv(&rows);
        assert!(csv.starts_with("connections,connected,average_response_ms,"), "{csv}");
        assert!(csv.ends_with("\n500,499,2.000,1400,2000,100,20.0\n"), "{csv}");
    }

    /// Shows that ten values are taken from each end, also where one value is there often, and what
    /// becomes of fewer.
    #[test]
    fn extremes_are_of_ten() {
        let mut histogram = empty_histogram();
        assert_eq!(extremes(&histogram), (0.0, 0.0));
        (1..=4).for_each(|value| histogram.record(value * 100).expect("in range"));
        assert_eq!(extremes(&histogram), (0.25, 0.25));
        histogram.record_n(1000, 100).expect("in range");
        histogram.record_n(2000, 5).expect("in range");
        let (highest, lowest) = extremes(&histogram);
        assert!((highest - 1.5).abs() < 0.01 && (lowest - 0.7).abs() < 0.01, "{highest} {lowest}");
    }
}
