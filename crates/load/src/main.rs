//! `murre-load`: opens many connections to a server, holds them, asks, and checks every answer.
//!
//! ```text
//!   cli ─▶ run ─▶ plan            what does not fit is found before the run
//!           ├───▶ crew            one thread per shard: the server's own ring and codec,
//!           │      └─▶ fleet      as a client; connects at the pace asked for, and again (comeback)
//!           │      │    └─▶ http_keepalive, ws ─▶ ws_upper, ws_idle, ws_echo, storm
//!           │      │         │              └─▶ channel ─▶ pubsub, quotes, fanout, churn,
//!           │      │         │                            request_reply
//!           │      │         └─▶ score            counts and latencies
//!           │      └─▶ visitors ─▶ visit ◀─ abuse, soak: those who come and go
//!           ├───▶ memory, machine                 what it costs, and where
//!           └───▶ progress, columns, record       for people; for other tools
//!
//!   records ─▶ claims ─▶ verdict      one run beside the published ones and the promises
//!                   └──▶ report       READMEs, pictures, SPECIFICATION's tables
//!   memory ──▶ memory_tool            any server weighed; memory_check: the method checked
//!   machine ─▶ stamp                  where the lines of other programs are from
//! ```
#![forbid(unsafe_code)]

mod abuse;
mod act;
mod args;
mod attribution;
mod bell;
mod channel;
mod churn;
mod claims;
mod cli;
mod client;
mod columns;
mod comeback;
mod command;
mod compare;
mod crew;
mod fanout;
mod figures;
mod fleet;
mod http_keepalive;
mod machine;
mod mark;
mod memory;
mod memory_check;
mod memory_tool;
mod plan;
mod progress;
mod promises;
mod published;
mod pubsub;
mod quotes;
mod reading;
mod record;
mod records;
mod report;
mod request_reply;
mod run;
mod scenario;
mod score;
mod slab;
mod soak;
mod stamp;
mod stats;
mod storm;
mod verdict;
mod visit;
mod visitors;
mod ws;
mod ws_echo;
mod ws_idle;
mod ws_upper;

use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::cli::Cli;
use crate::command::{Command, Tool};
use crate::record::{Outcome, Sink};

fn main() -> ExitCode {
    let command = Command::parse();
    let done = match (command.tool, command.run) {
        (Some(tool), _) => use_tool(&tool),
        (None, Some(cli)) => {
            if let Err(message) = cli.check() {
                Command::command().error(ErrorKind::ValueValidation, message).exit();
            }
            load(cli)
        }
        // Neither was given: clap has said so.
        (None, None) => Command::command().print_help().map(|()| false).map_err(Into::into),
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

/// Gives whether all is as it should be.
fn use_tool(tool: &Tool) -> anyhow::Result<bool> {
    match tool {
        Tool::Memory(arguments) => memory_tool::memory(arguments),
        Tool::Report(arguments) => {
            let report = report::report(arguments)?;
            report.warnings.iter().for_each(|warning| eprintln!("murre-load: {warning}"));
            let word = if report.only_checked { "not as the records say" } else { "made again" };
            report.changed.iter().for_each(|path| eprintln!("{word}: {}", path.display()));
            Ok(report.changed.is_empty() || !report.only_checked)
        }
        Tool::Stamp => stamp::stamp().map(|()| true),
        Tool::Verdict(arguments) => {
            let verdict = verdict::verdict(arguments)?;
            print!("{}", verdict.text);
            verdict.missed.iter().for_each(|missed| eprintln!("murre-load: missed: {missed}"));
            Ok(verdict.missed.is_empty())
        }
    }
}

fn load(cli: Cli) -> anyhow::Result<bool> {
    let out = cli.out.clone();
    let name = || out.as_ref().map_or("stdout".to_owned(), |path| path.display().to_string());
    let mut sink =
        Sink::open(out.as_deref()).with_context(|| format!("cannot write to {}", name()))?;
    let record = run::run(cli)?;
    if let Some(memory) = &record.memory {
        eprint!("{}", memory.table());
    }
    if let Some(article) = &record.article {
        eprint!("{}", columns::table(&article.rows));
    }
    sink.write(&record).with_context(|| format!("cannot write the record to {}", name()))?;
    if record.outcome != Outcome::Passed {
        eprintln!("murre-load: failed: {}", record.reasons.join("; "));
    }
    Ok(record.outcome == Outcome::Passed)
}
