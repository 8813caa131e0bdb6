//! Tables of published figures beside ours.

use crate::claims;
use crate::figures::{Unit, short, with_unit};
use crate::published::{Figure, PublishedRun};
use crate::records::{OURS, Records, work};
use crate::tables::markdown::{link, table};
use crate::tables::memory_rows::{self, Row};

/// The cost of a connection to each system.
pub(crate) fn systems(records: &Records) -> String {
    let rows = memory_rows::rows(records);
    let ours = rows.iter().find(|row| row.ours);
    let cells = |row: &Row| {
        let times = |value: Option<f64>, own: Option<f64>| match (value, own) {
            (Some(value), Some(own)) if !row.ours => format!("{} ×", short(value / own)),
            _ => String::new(),
        };
        let user = times(row.user, ours.and_then(|ours| ours.user));
        let total = times(row.total(), ours.and_then(Row::total));
        vec![name(row), bytes(row.user), user, bytes(row.total()), total, source(row)]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let headings =
        ["per idle connection", "user space>", "times ours>", "all in>", "times ours>", "source"];
    table(&headings, &rows)
}

fn name(row: &Row) -> String {
    if row.ours { format!("**{}**", row.name) } else { row.name.clone() }
}

fn bytes(value: Option<f64>) -> String {
    value.map_or("not published".to_owned(), |bytes| with_unit(bytes, Unit::Bytes))
}

fn source(row: &Row) -> String {
    match &row.place {
        Some(place) => format!("{}; {}", link(place, ""), row.source),
        None => row.source.clone(),
    }
}

/// A published run beside ours, if there is one.
pub(crate) fn run(published: &PublishedRun, records: &Records) -> String {
    let mut text = format!("### {}\n\nThere: {}.", published.title, published.machine);
    let Some((place, run)) = published.reproduced(records) else {
        return text + " Here: pending.\n\n";
    };
    let whole = published.figures[0].published.is_none_or(|most| run.connections() as f64 >= most);
    let here = if whole { "Here" } else { "Here, as far as it has been run" };
    text += &format!(" {here}: {}, {}.\n\n", work(run), link(place, ""));
    let abs = claims::abs_beside(records, place, run, OURS);
    let row = |figure: &Figure| {
        let ours = figure.of(run, &abs);
        let ratio = figure.published.zip(ours).filter(|(theirs, _)| *theirs > 0.0);
        let ratio =
            ratio.map_or(String::new(), |(theirs, ours)| format!("{} ×", short(ours / theirs)));
        let mut cells = figure.cells(ours, "not measured").to_vec();
        cells.push(ratio);
        cells
    };
    let rows: Vec<_> = published.figures.iter().map(row).collect();
    text + &table(&["", "published>", "Murre>", "times theirs>"], &rows) + "\n"
}
