//! The server around `murre-core`: configuration, threads, the hub and the control plane.
//!
//! The binary `murre` calls [`run`]. `start` makes the threads and ends them, `routes` joins the
//! data port's paths with the `hub`, its `transports` and client `protocols`; `files` is what
//! is served from memory, `backend` asks the application, `control` runs the tasks of the control plane and `admin` the admin port.
#![forbid(unsafe_code)]
// Numbers that peers send overflow nothing: they are checked or clamped where they are read. Modules
// that compute with nothing but their own numbers say so.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod admin;
mod backend;
mod backplane;
#[allow(clippy::arithmetic_side_effects, reason = "its own counts and prices")]
mod bench;
mod config;
#[allow(clippy::arithmetic_side_effects, reason = "numbers of the kernel and of the clock")]
mod control;
#[cfg(test)]
#[path = "../../../fuzz/src/corpus.rs"]
mod corpus;
mod failure;
#[allow(clippy::arithmetic_side_effects, reason = "positions in files in memory")]
mod files;
#[allow(clippy::arithmetic_side_effects, reason = "times of the clock")]
mod http_client;
mod hub;
mod listeners;
mod log;
mod protocols;
mod routes;
mod session_log;
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
mod start;
mod token;
mod transports;
mod webhooks;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use config::{Cli, Command, ConfigError};
use failure::Failure;

/// Obeys the command line. 0 after a drain, 1 if it cannot start or go on, 2 for bad arguments.
pub fn run() -> ExitCode {
    let config = match Cli::read(env::args_os().collect()) {
        Ok(Cli { command: Command::Serve(config) }) => config,
        Ok(Cli { command: Command::Token(command) }) => return print(command.run()),
        Ok(Cli { command: Command::Sessions(command) }) => return print(command.run()),
        Err(ConfigError::Arguments(error)) => error.exit(),
        Err(error @ ConfigError::File { .. }) => return fail(&error),
    };
    let log = match log::start(config.log_format, config.log_filter.clone()) {
        Ok(log) => log,
        Err(error) => return fail(&Failure::Thread(error)),
    };
    let served = start::serve(&config);
    log.end();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// The output of a command that ends, and its problem, which makes the exit code 1.
fn print((output, problem): (String, Option<String>)) -> ExitCode {
    match (io::stdout().write_all(output.as_bytes()), problem) {
        (_, Some(problem)) => fail(&problem),
        (Err(error), None) => fail(&format!("cannot write the output: {error}")),
        (Ok(()), None) => ExitCode::SUCCESS,
    }
}

/// One line, whatever the log's format and filter.
fn fail(why: &dyn std::fmt::Display) -> ExitCode {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "murre: {why}");
    ExitCode::FAILURE
}
