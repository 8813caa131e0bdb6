//! `murre-load`: opens many connections to a server, holds them, asks, and checks every answer.
//!
//! ```text
//!   cli ─▶ run ─▶ plan            what does not fit is found before the run
//!           ├───▶ crew            one thread per shard: the server's own ring and codec,
//!           │      └─▶ fleet      as a client; connects at the pace asked for
//!           │           └─▶ http_keepalive, ws ─▶ ws_upper, ws_idle, ws_echo
//!           │                └─▶ score            counts and latencies
//!           ├───▶ memory, machine                 what it costs, and where
//!           └───▶ progress, record                for people; for other tools
//! ```
#![forbid(unsafe_code)]

mod args;
mod attribution;
mod cli;
mod client;
mod crew;
mod fleet;
mod http_keepalive;
mod machine;
mod mark;
mod memory;
mod plan;
mod progress;
mod reading;
mod record;
mod run;
mod scenario;
mod score;
mod slab;
mod ws;
mod ws_echo;
mod ws_idle;
mod ws_upper;

use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::cli::Cli;
use crate::record::{Outcome, Record, Sink};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(message) = cli.check() {
        Cli::command().error(ErrorKind::ValueValidation, message).exit();
    }
    match load(cli) {
        Ok(record) if record.outcome == Outcome::Passed => ExitCode::SUCCESS,
        Ok(record) => {
            eprintln!("murre-load: failed: {}", record.reasons.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("murre-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(cli: Cli) -> anyhow::Result<Record> {
    let out = cli.out.clone();
    let name = || out.as_ref().map_or("stdout".to_owned(), |path| path.display().to_string());
    let mut sink =
        Sink::open(out.as_deref()).with_context(|| format!("cannot write to {}", name()))?;
    let record = run::run(cli)?;
    if let Some(memory) = &record.memory {
        eprint!("{}", memory.table());
    }
    sink.write(&record).with_context(|| format!("cannot write the record to {}", name()))?;
    Ok(record)
}
