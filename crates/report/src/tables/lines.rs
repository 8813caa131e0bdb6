//! The newest lines of one kind, and the section that shows them.

use crate::records::{Content, Line, Records, short_commit};
use crate::tables::machines;
use crate::tables::markdown::link;

/// The lines of a kind in the newest file that has some, as far as they are of one commit.
pub(crate) fn newest<'r, T>(
    records: &'r Records,
    kind: fn(&'r Content) -> Option<&'r T>,
) -> Vec<(&'r Line, &'r T)> {
    let lines = records.lines.iter().filter_map(|line| Some((line, kind(&line.content)?)));
    let mut lines: Vec<_> = lines.collect();
    let of = |line: &'r Line| (&line.place.file, line.stamp.commit.as_ref());
    if let Some(&(last, _)) = lines.last() {
        lines.retain(|(line, _)| of(line) == of(last));
    }
    lines
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
        let machine = machines::name(machine);
        from += &format!(", [{machine}](machines/{machine}.json)");
    }
    format!("### {title}\n\n{what} {from}.\n\n{table}\n")
}
