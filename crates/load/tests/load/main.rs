//! Runs the binary: scenarios against small servers in this process, which are right or make one mistake,
//! and the tools.

mod backend;
mod channels;
mod hub;
mod members;
mod phoenix;
mod scenarios;
mod serve;
mod server;
mod tools;

use std::process::{Command, Output};

use serde_json::Value;

/// How a run of the binary ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Ended { code: output.status.code(), stdout, stderr }
    }
}

impl Ended {
    fn record(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no record ({error}): {}", self.stderr))
    }

    /// Checks the exit code, and that stderr contains `what`.
    #[track_caller]
    fn says(&self, code: i32, what: &str) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(self.stderr.contains(what), "no `{what}` in: {}", self.stderr);
    }
}

/// The binary with these arguments. Its records name `test` as their commit.
fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_murre-load"));
    command.args(arguments.split_whitespace()).env("MURRE_COMMIT", "test");
    command
}

/// Runs the binary to its end.
fn run(arguments: &str) -> Ended {
    command(arguments).output().expect("murre-load starts").into()
}

/// Runs a scenario that passes, and returns its record.
#[track_caller]
fn passes(arguments: &str) -> Value {
    let ended = run(arguments);
    ended.says(0, "thoughput: ");
    let record = ended.record();
    assert_eq!((&record["outcome"], &record["commit"]), (&"passed".into(), &"test".into()));
    assert!(record["hold"]["requests"].as_u64() > Some(0), "{record}");
    record
}

/// Runs a scenario that fails: the exit code is 1, and the reason contains `why`.
#[track_caller]
fn fails(arguments: &str, why: &str) -> Value {
    let ended = run(arguments);
    ended.says(1, why);
    let record = ended.record();
    assert_eq!(record["outcome"], "failed");
    record
}
