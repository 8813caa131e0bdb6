//! `murre-load`: opens many connections to a server, holds them, asks, and checks every answer.
//!
//! ```text
//!   cli ─▶ run ─▶ engine       one thread per shard: the server's own ring and codec, as a client
//!           │      └─▶ client       virtual clients over HTTP, WebSockets and channels
//!           │            └─▶ scenarios   the work of each connection, its checks and its numbers
//!           └───▶ measure      memory, processor time and the machine
//! ```
#![forbid(unsafe_code)]

mod cli;
mod client;
mod engine;
mod measure;
mod run;
mod scenarios;
mod sink;

use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use murre_record::Outcome;

use crate::cli::{Cli, Job, Task};
use crate::sink::Sink;

fn main() -> ExitCode {
    let done = match Cli::parse().command.task() {
        Task::Run(job) => {
            if let Err(message) = job.check() {
                Cli::command().error(ErrorKind::ValueValidation, message).exit();
            }
            load(*job)
        }
        Task::Memory(arguments) => measure::memory_tool::run(&arguments),
        Task::Annotate => measure::annotate::run().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("murre-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a scenario. Returns whether it passed.
fn load(job: Job) -> anyhow::Result<bool> {
    let out = job.common.out.clone();
    let name = || out.as_ref().map_or("stdout".to_owned(), |path| path.display().to_string());
    let mut sink =
        Sink::open(out.as_deref()).with_context(|| format!("cannot write to {}", name()))?;
    let record = run::run(job)?;
    if let Some(memory) = &record.memory {
        eprint!("{}", measure::memory::table(memory));
    }
    if let Some(article) = &record.article {
        eprint!("{}", run::columns::table(&article.rows));
    }
    sink.write(&record).with_context(|| format!("cannot write the record to {}", name()))?;
    if record.outcome != Outcome::Passed {
        eprintln!("murre-load: failed: {}", record.reasons.join("; "));
    }
    Ok(record.outcome == Outcome::Passed)
}
