//! `murre-load memory`: the accounting of `memory.rs` by itself, for servers with
//! other clients than murre-load's, or with clients on other machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args;
use murre_record::{Machine, Memory};
use serde::Serialize;

use crate::cli::common::DescriptorsChoice;
use crate::measure::attribution::Ends;
use crate::measure::machine::{self, machine};
use crate::measure::memory;
use crate::measure::memory_check::{self, Check};
use crate::measure::reading::Reading;
use crate::sink::Sink;

/// Weighs a running server: what each of its connections costs, in user space and in the kernel.
///
/// Save a baseline before the first connection, weigh against it when all are idle. Nothing else
/// on the machine should open or close many sockets in between; growth that does not add up is named and
/// not counted. Without a baseline only user space is known, fixed cost included.
#[derive(Args, Debug)]
pub(crate) struct MemoryArguments {
    /// The server's process
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), required_unless_present = "check")]
    pid: Option<i32>,

    /// Connections that the server holds, or will hold; with --check the number to open
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        default_value_if("check", "true", "5000"),
        required_unless_present_any = ["check", "save_baseline"]
    )]
    conns: Option<u64>,

    /// Where the server's sockets live; auto looks at the size of its descriptor table
    #[arg(long, value_enum, default_value_t)]
    server_descriptors: DescriptorsChoice,

    /// The state before the first connection, saved with --save-baseline
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Saves the state before the first connection
    #[arg(long, value_name = "FILE", conflicts_with = "baseline")]
    save_baseline: Option<PathBuf>,

    /// The clients are on this machine too, and are murre-load's
    #[arg(long)]
    both_ends: bool,

    /// Where those clients' sockets live
    #[arg(long, value_name = "KIND", value_enum, default_value = "normal", requires = "both_ends")]
    client_descriptors: DescriptorsChoice,

    /// Checks the method instead, on sockets of its own, whose number is known; exits with 1 if
    /// it is more than 5 % off
    #[arg(long, conflicts_with_all = ["pid", "baseline", "save_baseline", "both_ends"])]
    check: bool,

    /// Appends a record to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Which server is weighed, for the record
    #[arg(long, value_name = "TEXT", default_value = "murre")]
    label: String,
}

/// The line for a file of records.
#[derive(Serialize)]
struct Weighed<'m> {
    tool: &'static str,
    label: &'m str,
    version: &'static str,
    commit: Option<String>,
    started: String,
    command: String,
    machine: Machine,
    memory: Option<&'m Memory>,
    check: Option<&'m Check>,
}

/// Runs the command. Returns whether a check agreed.
pub(crate) fn run(arguments: &MemoryArguments) -> anyhow::Result<bool> {
    if arguments.check {
        return check(arguments);
    }
    let Some(pid) = arguments.pid else { bail!("--pid is needed") };
    let now = Reading::take(pid).with_context(|| format!("process {pid} cannot be measured"))?;
    if let Some(path) = &arguments.save_baseline {
        let json = serde_json::to_vec(&now)?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(true);
    }
    let Some(conns) = arguments.conns else { bail!("--conns is needed") };
    let Some(path) = &arguments.baseline else {
        if arguments.out.is_some() {
            bail!("a record without --baseline would say nothing of the kernel's part");
        }
        println!(
            "at most {:.1} B of user space per connection, the fixed cost in it; the rest is known \
             with --baseline, saved before the first connection",
            now.server.pss_bytes as f64 / conns as f64
        );
        return Ok(true);
    };
    let before = baseline(path)?;
    let kind = |choice: DescriptorsChoice| choice.wanted().unwrap_or(now.server_kind(conns));
    let ends = Ends {
        client: arguments.both_ends.then(|| kind(arguments.client_descriptors)),
        client_in_epoll: false,
        server: kind(arguments.server_descriptors),
    };
    let memory = memory::between(&before, &now, conns, ends);
    print!("{}{}", memory::table(&memory), memory::caches(&memory));
    write(arguments, Some(&memory), None)?;
    Ok(true)
}

fn baseline(path: &Path) -> anyhow::Result<Reading> {
    let name = path.display();
    let text = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{name} is no baseline: write one with --save-baseline"))
}

fn check(arguments: &MemoryArguments) -> anyhow::Result<bool> {
    let pairs = arguments.conns.unwrap_or_default();
    let check = memory_check::run(pairs)?;
    println!("{check}");
    write(arguments, None, Some(&check))?;
    Ok(check.agrees)
}

fn write(
    arguments: &MemoryArguments,
    memory: Option<&Memory>,
    check: Option<&Check>,
) -> anyhow::Result<()> {
    let Some(path) = &arguments.out else { return Ok(()) };
    let weighed = Weighed {
        tool: "murre-load memory",
        label: &arguments.label,
        version: env!("CARGO_PKG_VERSION"),
        commit: machine::commit(),
        started: machine::utc(SystemTime::now()),
        command: machine::command(),
        machine: machine(),
        memory,
        check,
    };
    let sink = Sink::open(Some(path)).and_then(|mut sink| sink.write(&weighed));
    sink.with_context(|| format!("cannot write the record to {}", path.display()))
}
