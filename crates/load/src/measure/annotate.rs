//! `murre-load annotate`: adds to lines of JSON where they are from.
//!
//! Benches that know nothing but their numbers write through it into a file of records.

use std::io::{BufRead, stdin};
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::measure::machine::{self, machine};
use crate::sink::Sink;

pub(crate) fn run() -> anyhow::Result<()> {
    let (commit, machine) = (machine::commit(), machine());
    for (index, line) in stdin().lock().lines().enumerate() {
        let mut object: Map<String, Value> = serde_json::from_str(&line?)
            .with_context(|| format!("line {} is not an object of JSON", index + 1))?;
        object.insert("started".to_owned(), machine::utc(SystemTime::now()).into());
        object.insert("commit".to_owned(), json!(commit));
        object.insert("machine".to_owned(), json!(machine));
        Sink::Stdout.write(&object).context("cannot write the record")?;
    }
    Ok(())
}
