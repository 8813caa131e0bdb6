//! The newest lines of one kind, and the section that shows them.

use crate::records::kinds::Content;
use crate::records::{Line, Records, short_commit};
use crate::tables::machines;
use crate::tables::markdown::{link, table};

/// The lines of a kind in the newest file that has some, as far as they are of one commit.
pub(crate) fn newest<'r, T>(
    records: &'r Records,
    kind: fn(&'r Content) -> Option<&'r T>,
) -> Vec<(&'r Line, &'r T)> {
    let mut lines: Vec<_> = records.of(kind).collect();
    let of = |line: &'r Line| (&line.place.file, line.stamp.commit.as_ref());
    if let Some(&(last, _)) = lines.last() {
        lines.retain(|(line, _)| of(line) == of(last));
    }
    lines
}

/// The values of those of the lines that are of one form.
pub(crate) fn values<T>(
    lines: &[(&Line, &T)],
    is_of_form: impl Fn(&T) -> bool,
    value: impl Fn(&T) -> Option<f64>,
) -> Vec<f64> {
    let own = lines.iter().filter(|(_, line)| is_of_form(line));
    own.filter_map(|(_, line)| value(line)).collect()
}

/// Each value divided by that of the same round of another form.
pub(crate) fn ratios(own: &[f64], other: &[f64]) -> Vec<f64> {
    own.iter().zip(other).map(|(own, other)| own / other).collect()
}

/// Each of the names once, in the order of their first lines.
pub(crate) fn distinct<N: PartialEq>(names: impl Iterator<Item = N>) -> Vec<N> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

/// A section with a row for each line.
pub(crate) fn each<T>(
    records: &Records,
    kind: fn(&Content) -> Option<&T>,
    (title, what): (&str, &str),
    headings: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> String {
    let lines = newest(records, kind);
    let rows: Vec<_> = lines.iter().map(|(_, line)| row(line)).collect();
    part(title, what, &lines, &table(headings, &rows))
}

/// A section: a table, its description and the origin of its lines. Empty without lines.
pub(crate) fn part<T>(title: &str, what: &str, lines: &[(&Line, &T)], table: &str) -> String {
    let Some(&(first, _)) = lines.first() else { return String::new() };
    let mut from = link(&first.place, "");
    if lines.len() > 1 {
        from += &format!(" to {}", lines[lines.len() - 1].0.place.line);
    }
    if let Some(commit) = first.stamp.commit.as_deref() {
        from += &format!(", commit {}", short_commit(Some(commit)));
    }
    if let Some(machine) = &first.stamp.machine {
        from += &format!(", {}", machines::link(machine));
    }
    format!("### {title}\n\n{what} {from}.\n\n{table}\n")
}
