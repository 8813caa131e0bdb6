//! Tables and links in Markdown.

use crate::records::RecordPlace;

/// A table; columns whose heading ends with `>` are aligned to the right.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let names = headings.iter().map(|heading| heading.trim_end_matches('>'));
    let mut table = row(names);
    table +=
        &row(headings.iter().map(|heading| if heading.ends_with('>') { "--:" } else { "---" }));
    for cells in rows {
        table += &row(cells.iter().map(String::as_str));
    }
    table
}

fn row<'c>(cells: impl Iterator<Item = &'c str>) -> String {
    let mut row = String::from("|");
    for cell in cells {
        row += &format!(" {} |", cell.replace('|', "\\|"));
    }
    row + "\n"
}

/// A link to a line of a record, from the directory that is `up` of `records/`.
pub(crate) fn link(place: &RecordPlace, up: &str) -> String {
    let RecordPlace { file, line } = place;
    format!("[{}:{line}]({up}records/{file}#L{line})", file.trim_end_matches(".jsonl"))
}

/// Links to several lines.
pub(crate) fn links(places: &[RecordPlace], up: &str) -> String {
    places.iter().map(|place| link(place, up)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows alignment, and that a bar in a cell does not end it.
    #[test]
    fn tables_survive_what_cells_hold() {
        let rows = [vec!["a | b".to_owned(), "1".to_owned()]];
        let table = table(&["what", "how many>"], &rows);
        assert_eq!(table, "| what | how many |\n| --- | --: |\n| a \\| b | 1 |\n");
        let place = RecordPlace { file: "2026-01-02-echo.jsonl".to_owned(), line: 3 };
        let there = "[2026-01-02-echo:3](../records/2026-01-02-echo.jsonl#L3)";
        assert_eq!(link(&place, "../"), there);
    }
}
