//! The tables in files that people write: the text between `<!-- report: NAME -->` and
//! `<!-- report end -->` is made from the records.

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::claims::{Promise, Topic};
use crate::figures::with_unit;
use crate::promises::PROMISES;
use crate::records::Records;
use crate::scale;
use crate::tables::markdown::{links, table};

/// The files beside bench-results that have such tables, if they are there.
pub(crate) const FILLED: [&str; 3] = ["README.md", "SPECIFICATION.md", "docs/scale.md"];

/// The text with its tables filled. A text without markers stays as it is.
pub(crate) fn filled(text: &str, records: &Records) -> anyhow::Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(START) {
        let (name, behind) = behind.split_once(" -->").context("a marker does not end")?;
        let (_, behind) =
            behind.split_once(END).with_context(|| format!("`{name}` has no `{END}`"))?;
        filled += before;
        filled += &format!("{START}{name} -->\n{}{END}", content(name, records)?);
        rest = behind;
    }
    Ok(filled + rest)
}

fn content(name: &str, records: &Records) -> anyhow::Result<String> {
    if let Ok(topic) = Topic::from_str(name, false) {
        return Ok(promises(topic, records));
    }
    if name == "costs" {
        return Ok(costs(records));
    }
    if name == "scale" {
        return Ok(scale::tables(&scale::Arguments::default(), records, "../bench-results/"));
    }
    bail!("no table is called `{name}`: costs, scale, memory, connections and speed are known")
}

/// The figures of the README.
fn costs(records: &Records) -> String {
    let named = COSTS.iter().map(|id| {
        let promise = PROMISES.iter().find(|promise| promise.id == *id);
        promise.expect("a promise has this id")
    });
    let rows: Vec<_> = named
        .map(|promise| {
            let (value, record) = measured(promise, records);
            vec![promise.text.to_owned(), value, record]
        })
        .collect();
    table(&["", "measured>", "record"], &rows)
}

const COSTS: [&str; 6] =
    ["user-2m", "all-in-direct", "user-subscribed", "idle-1m-cpu", "r3-rate", "echo-32"];

fn promises(topic: Topic, records: &Records) -> String {
    let about = PROMISES.iter().filter(|promise| promise.topic == topic);
    let rows: Vec<_> = about
        .map(|promise| {
            let (value, record) = measured(promise, records);
            let target = promise.target.text(promise.unit);
            let command = format!("`{}`", promise.measured_by);
            vec![promise.text.to_owned(), target, value, command, record]
        })
        .collect();
    table(&["promise", "target>", "measured>", "measured by", "record"], &rows)
}

/// The measured value of a promise, and its record.
fn measured(promise: &Promise, records: &Records) -> (String, String) {
    promise.measure(records).map_or_else(
        || ("*pending*".to_owned(), "pending".to_owned()),
        |measured| (with_unit(measured.value, promise.unit), links(&measured.places, UP)),
    )
}

/// The path from the files to the links' targets.
const UP: &str = "bench-results/";

const START: &str = "<!-- report: ";
const END: &str = "<!-- report end -->";

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that text around stays, that filling twice is filling once, and that mistakes are
    /// found.
    #[test]
    fn only_what_is_between_markers_changes() {
        let records = Records::default();
        let text = "a\n<!-- report: memory -->\nold\n<!-- report end -->\nb\n";
        let once = filled(text, &records).unwrap();
        assert!(once.starts_with("a\n<!-- report: memory -->\n| promise |"), "{once}");
        assert!(once.ends_with("<!-- report end -->\nb\n") && !once.contains("old"));
        assert_eq!(filled(&once, &records).unwrap(), once);
        assert_eq!(filled("no markers", &records).unwrap(), "no markers");
        assert!(filled("<!-- report: memory -->", &records).is_err());
        assert!(filled("<!-- report: size --><!-- report end -->", &records).is_err());
    }
}
