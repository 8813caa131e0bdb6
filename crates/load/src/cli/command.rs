//! What `murre-load` can be told to do: run a scenario, or one of the tools that go with records.

use clap::{Parser, Subcommand};

use crate::cli::Cli;
use crate::measure::memory_tool::MemoryArguments;

/// Opens many connections to a server, checks every answer, and writes a record of the run.
///
/// Exits with 0 only if every answer was right, all connections were reached at once and no more
/// of them failed than --max-errors; with 1 otherwise, the reason on stderr; with 2 for bad
/// arguments.
#[derive(Debug, Parser)]
#[command(name = "murre-load", version)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) tool: Option<Tool>,

    #[command(flatten)]
    pub(crate) run: Option<Cli>,
}

/// What is not a scenario.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    Memory(MemoryArguments),
    /// Adds time, commit and machine to each line of JSON on stdin, and prints it
    Stamp,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn command(arguments: &str) -> Result<Command, clap::Error> {
        Command::try_parse_from(arguments.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        // Shows what clap checks only when asked to.
        Command::command().debug_assert();
    }

    #[test]
    fn a_first_word_is_a_scenario_or_a_tool() {
        // Shows that tools do not ask for a scenario's arguments, nor take them.
        let run = command("murre-load ws-idle --target 127.0.0.1:80 --conns 3").unwrap();
        assert!(run.tool.is_none() && run.run.is_some());
        let tool = command("murre-load stamp").unwrap();
        assert!(matches!(tool.tool, Some(Tool::Stamp)) && tool.run.is_none());
        for wrong in ["", "stamp --conns 3", "ws-idle --target 127.0.0.1:80", "nonsense"] {
            assert!(command(&format!("murre-load {wrong}")).is_err(), "{wrong}");
        }
    }
}
