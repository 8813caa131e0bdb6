//! Everything in bench-results that is not a record, made from the records.
//!
//! ```text
//!   records/*.jsonl ─▶ README.md             tables::readme
//!                   ├▶ machines/*.json       tables::machines
//!                   ├▶ plots/*.svg, *.png    pictures
//!                   └▶ ../SPECIFICATION.md, ../README.md, ../docs/scale.md: between their markers   tables::fill
//! ```
//!
//! The same records give the same bytes, on every machine: nothing here reads a clock, a setting
//! or a font of the system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::pictures::{self, png, svg};
use crate::records::Records;
use crate::tables::{fill, machines, readme};

/// Where the records are.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory that holds records/
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    dir: PathBuf,

    /// Writes nothing; exits with 1 and names the files that differ from what the records say
    #[arg(long)]
    check: bool,
}

/// Makes the files, or checks them. Returns whether a check found none that differs.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let directory = &arguments.dir;
    let records = records(arguments)?;
    let mut files = made_from(&records, directory);
    let beside = fill::FILLED.map(|name| directory.with_file_name(name));
    for path in beside.into_iter().filter(|path| path.exists()) {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let filled = fill::filled(&text, &records)
            .with_context(|| format!("cannot fill {}", path.display()))?;
        files.insert(path, filled.into_bytes());
    }
    let mut changed = stale(directory, &files)?;
    if !arguments.check {
        for path in &changed {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for (path, bytes) in &files {
        if fs::read(path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        changed.push(path.clone());
        if !arguments.check {
            write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    records.warnings.iter().for_each(|warning| eprintln!("murre-report: {warning}"));
    let word = if arguments.check { "differs from the records" } else { "made again" };
    changed.iter().for_each(|path| eprintln!("{word}: {}", path.display()));
    Ok(changed.is_empty() || !arguments.check)
}

/// Reads all records.
pub(crate) fn records(arguments: &Arguments) -> anyhow::Result<Records> {
    let source = arguments.dir.join("records");
    Records::read_all(&source)
        .with_context(|| format!("cannot read the records in {}", source.display()))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

/// Pictures and machines that no record speaks of any more.
fn stale(directory: &Path, made: &BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for (folder, kinds) in [("machines", &["json"][..]), ("plots", &["svg", "png"])] {
        // Missing before the first report.
        let Ok(entries) = fs::read_dir(directory.join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            let kind = path.extension().unwrap_or_default().to_string_lossy();
            if kinds.contains(&&*kind) && !made.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

/// Every file in the directory that follows from the records.
fn made_from(records: &Records, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut add = |name: String, bytes| files.insert(directory.join(name), bytes);
    let pictures = pictures::all(records);
    for picture in &pictures {
        add(format!("plots/{}.svg", picture.name), svg::svg(&picture.canvas).into_bytes());
        add(format!("plots/{}.png", picture.name), png::png(&picture.canvas));
    }
    for (name, json) in machines::files(records) {
        add(format!("machines/{name}.json"), json);
    }
    add("README.md".to_owned(), readme::readme(records, &pictures).into_bytes());
    files
}
