//! `murre-report verdict`: the newest record of a file beside the published figures, and whether it
//! keeps Murre's promises.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::claims::{About, Evidence, Promise, abs_beside};
use crate::figures::{Unit, with_unit};
use crate::promises::PROMISES;
use crate::published;
use crate::records::kinds::Content;
use crate::records::{Line, OURS, Records, Run, short_commit};
use murre_record::Outcome;

/// Shows the newest record of a file beside the published figures and judges the promises.
///
/// Of a search for the most connections it is the greatest step that kept the criterion. Lines of `ab` that were written while it ran belong to it. Exits with 1 if a promise is missed
/// or the record cannot show it.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Which published run it reproduces
    #[arg(long = "run", value_enum, value_name = "NAME")]
    about: About,

    /// Records, one a line
    file: PathBuf,
}

/// The tables, and the promises that are missed.
struct Verdict {
    text: String,
    missed: Vec<String>,
}

/// Prints the verdict. Returns whether every promise is kept.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut records = Records::default();
    let name = arguments.file.display();
    records.read(&arguments.file).with_context(|| format!("cannot read {name}"))?;
    let records = newest(arguments.about, records)
        .with_context(|| format!("{name} holds no record of {OURS}"))?;
    let verdict = judge(arguments.about, &records);
    print!("{}", verdict.text);
    verdict.missed.iter().for_each(|missed| eprintln!("murre-report: missed: {missed}"));
    Ok(verdict.missed.is_empty())
}

/// The record of ours that is judged, and all lines of `ab`.
fn newest(about: About, records: Records) -> Option<Records> {
    let is_ours = |line: &Line| matches!(&line.content, Content::Run(run) if run.label == OURS);
    let last = &records.lines.iter().rfind(|line| is_ours(line))?.place;
    let searched = PROMISES.iter().find(|promise| {
        promise.about == Some(about) && matches!(promise.evidence, Evidence::Most(_))
    });
    let found = searched.and_then(|promise| promise.measure(&records));
    let judged = found.map_or_else(|| last.clone(), |measured| measured.places[0].clone());
    let mut lines = records.lines;
    lines.retain(|line| line.place == judged || matches!(line.content, Content::Ab(_)));
    Some(Records { lines, warnings: records.warnings })
}

fn judge(about: About, records: &Records) -> Verdict {
    let (place, run) = records.runs().next_back().expect("`newest` keeps one");
    let mut verdict = Verdict { text: String::new(), missed: Vec::new() };
    if run.outcome != Outcome::Passed {
        verdict.missed.push(format!("the run did not pass: {}", run.reasons.join("; ")));
    }
    let published = published::RUNS.iter().find(|published| published.about == about);
    let published = published.expect("every run that can be named is in the table");
    let commit = short_commit(run.commit.as_deref());
    verdict.text += &format!("{}\n  {}\n", published.title, published.machine);
    verdict.text += &format!(
        "this run: {}, {}:{}, commit {commit}\n  {}, {} cores, kernel {}\n\n",
        run.started, place.file, place.line, run.machine.cpu, run.machine.cores, run.machine.kernel,
    );
    let abs = abs_beside(records, place, run, OURS);
    let mut figures = vec![["", "published", "this run"].map(str::to_owned)];
    for figure in published.figures {
        let none = if figure.unit == Unit::Count { "-" } else { "not measured" };
        figures.push(figure.cells(figure.of(run, &abs), none));
    }
    verdict.text += &aligned(&figures);

    let mut promises = vec![["promise", "target", "this run", ""].map(str::to_owned)];
    for promise in PROMISES.iter().filter(|promise| promise.about == Some(about)) {
        promises.push(verdict.judge(promise, run, records));
    }
    verdict.text += "\n";
    verdict.text += &aligned(&promises);
    verdict
}

impl Verdict {
    fn judge(&mut self, promise: &Promise, run: &Run, records: &Records) -> [String; 4] {
        let target = promise.target.text(promise.unit);
        let row = |value: String, word: &str| [promise.text.to_owned(), target, value, word.into()];
        let unmet = promise.needs().unmet(run);
        if let (Some(why), Evidence::Run(_, value)) = (&unmet, promise.evidence) {
            self.missed.push(format!("{}: not shown: {why}", promise.id));
            let value = value(run).map_or("-".to_owned(), |value| with_unit(value, promise.unit));
            return row(value, "not shown");
        }
        let Some(measured) = promise.measure(records) else {
            let why = unmet.unwrap_or_else(|| "the record does not say".to_owned());
            self.missed.push(format!("{}: not shown: {why}", promise.id));
            return row("-".to_owned(), "not shown");
        };
        let value = with_unit(measured.value, promise.unit);
        if promise.target.is_kept(measured.value) {
            return row(value, "kept");
        }
        let wanted = promise.target.text(promise.unit);
        self.missed.push(format!("{}: {value}, promised {wanted}", promise.id));
        row(value, "MISSED")
    }
}

/// Columns as wide as their widest cell; the first to the left, the last as well where it is a
/// word about the others.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| wide(column).unwrap_or_default());
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &match column {
                0 => format!("  {cell:<width$}"),
                3 => format!("  {cell}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
