//! `murre token`: makes and checks tokens on the command line.

mod check;
mod make;
#[cfg(test)]
mod tests;

use clap::Subcommand;

/// The commands of `murre token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, signed with a secret or a private key, and print it
    Make(Box<make::Make>),
    /// Check a token as the server would, and print what it grants. Exit code 1 if it is bad
    Check(Box<check::Check>),
}

impl TokenCommand {
    /// Obeys the command. Returns the text for the standard output, and what is wrong, if something is.
    pub(crate) fn run(self) -> (String, Option<String>) {
        match self {
            TokenCommand::Make(make) => match make.token() {
                Ok(token) => (token + "\n", None),
                Err(problem) => (String::new(), Some(problem)),
            },
            TokenCommand::Check(check) => check.report(),
        }
    }
}
