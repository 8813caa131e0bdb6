//! `murre-report`: the records of `murre-load` beside published figures and Murre's promises.
//!
//! ```text
//!   records ─▶ values, compare ─▶ claims ◀─ promises, published
//!                                  ├─▶ verdict            one run
//!                                  ├─▶ files ─▶ tables, pictures
//!                                  └─▶ scale              what many connections need
//! ```
#![forbid(unsafe_code)]

mod claims;
mod compare;
mod figures;
mod files;
mod needs;
mod pictures;
mod promises;
mod published;
mod records;
mod scale;
mod tables;
mod values;
mod verdict;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Makes bench-results' README, pictures and machines again from its records.
///
/// Also fills the tables of SPECIFICATION.md and README.md beside DIR, between their markers. Lines that
/// cannot be read are named on stderr and left out.
#[derive(Debug, Parser)]
#[command(name = "murre-report", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    files: files::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verdict(verdict::Arguments),
    Scale(scale::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => files::run(&cli.files),
        Some(Command::Verdict(arguments)) => verdict::run(arguments),
        Some(Command::Scale(arguments)) => files::records(&cli.files).map(|records| {
            scale::run(arguments, &records);
            true
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("murre-report: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Shows what clap checks only when asked to.
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
