//! `murre-load verdict`: the newest record of a file beside what was published, and whether it
//! keeps what Murre promises.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::claims::{About, Evidence, OURS, PROMISES, Promise};
use crate::figures::{Unit, with_unit};
use crate::published::{self, Figure, Ours};
use crate::record::Outcome;
use crate::records::{Ab, Content, Line, Records, Run};

/// Shows the newest record of a file beside the published figures and judges the promises.
///
/// Lines of `ab` that the file holds since the record of ours before it belong to it. Exits with 1
/// if a promise is missed or the record cannot show it.
#[derive(Args, Debug)]
pub(crate) struct VerdictArguments {
    /// Which published run it reproduces
    #[arg(long = "run", value_enum, value_name = "NAME")]
    about: About,

    /// Records, one a line
    file: PathBuf,
}

/// What is printed, and whether every promise is kept.
pub(crate) struct Verdict {
    pub(crate) text: String,
    pub(crate) missed: Vec<String>,
}

pub(crate) fn verdict(arguments: &VerdictArguments) -> anyhow::Result<Verdict> {
    let mut records = Records::default();
    let name = arguments.file.display();
    records.read(&arguments.file).with_context(|| format!("cannot read {name}"))?;
    let records = newest(records).with_context(|| format!("{name} holds no record of {OURS}"))?;
    Ok(judge(arguments.about, &records))
}

/// The last record of ours, and all lines of `ab` since the one before it.
fn newest(records: Records) -> Option<Records> {
    let is_ours = |line: &Line| matches!(&line.content, Content::Run(run) if run.label == OURS);
    let last = records.lines.iter().rposition(is_ours)?;
    let before = records.lines[..last].iter().rposition(is_ours);
    let mut lines = records.lines;
    lines.drain(..before.map_or(0, |before| before + 1));
    let last = last - before.map_or(0, |before| before + 1);
    let mut index = 0;
    lines.retain(|line| {
        index += 1;
        index == last + 1 || matches!(line.content, Content::Ab(_))
    });
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
    let commit = run.commit.as_deref().unwrap_or("unknown");
    verdict.text += &format!("{}\n  {}\n", published.title, published.machine);
    verdict.text += &format!(
        "this run: {}, {}:{}, commit {commit:.12}\n  {}, {} cores, kernel {}\n\n",
        run.started, place.file, place.line, run.machine.cpu, run.machine.cores, run.machine.kernel,
    );
    let mut figures = vec![["", "published", "this run"].map(str::to_owned)];
    for figure in published.figures {
        let ab = abs(records).rfind(|ab| ab.label == OURS);
        figures.push(row(figure, run, ab));
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

fn abs(records: &Records) -> impl DoubleEndedIterator<Item = &Ab> {
    records.lines.iter().filter_map(|line| match &line.content {
        Content::Ab(ab) => Some(ab),
        _ => None,
    })
}

fn row(figure: &Figure, run: &Run, ab: Option<&Ab>) -> [String; 3] {
    let ours = match figure.ours {
        Ours::Run(value) => value(run),
        Ours::Ab(value) => ab.map(value),
    };
    let cell = |value: Option<f64>, none: &str| match value {
        Some(value) => with_unit(value, figure.unit),
        None => none.to_owned(),
    };
    let none = if figure.unit == Unit::Count { "-" } else { "not measured" };
    [figure.name.to_owned(), cell(figure.published, "not published"), cell(ours, none)]
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
