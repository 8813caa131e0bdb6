//! The arguments that every scenario takes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use murre_core::host::{Descriptors, Io};
use serde::Serialize;

use crate::cli::args::{self, Cpus, Targets};

/// What every scenario takes.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub(crate) struct Common {
    /// Where to connect: HOST:PORT, several with commas, ranges as 127.0.0.1-31:8000. With several nodes, each
    /// part between commas is one
    #[arg(long, value_name = "HOST:PORT[,...]")]
    pub(crate) target: Targets,

    /// Connections
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conns: u32,

    /// Request target [default: / for http-keepalive, /upper for ws-upper and abuse, /echo for ws-idle,
    /// ws-echo and storm, otherwise /ws]
    #[arg(long)]
    pub(crate) path: Option<String>,

    /// Connects per second, all threads together; 0 is as fast as possible
    #[arg(long, value_name = "N/s", default_value = "0", value_parser = args::rate)]
    pub(crate) connect_rate: f64,

    /// How long to hold all connections
    #[arg(long, default_value = "120s", value_parser = args::duration)]
    #[serde(serialize_with = "args::seconds")]
    pub(crate) duration: Duration,

    /// Appends the record to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Names the measured server or build in the record
    #[arg(long, value_name = "TEXT", default_value = "murre")]
    pub(crate) label: String,

    /// Connections that may fail; a wrong answer always fails the run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_errors: u64,

    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Source addresses to spread connections over
    #[arg(long, value_name = "ADDR[,...]", value_delimiter = ',', value_parser = args::source)]
    pub(crate) source: Vec<IpAddr>,

    /// Where our sockets live: in the process (limited by RLIMIT_NOFILE) or in the rings
    #[arg(long, value_enum, default_value_t)]
    pub(crate) descriptors: DescriptorsChoice,

    /// The kernel interface for our sockets
    #[arg(long, value_enum, default_value_t)]
    pub(crate) io: IoChoice,

    /// Threads [default: one per core, more if descriptors require it]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,

    /// Cores to pin the threads to, in turns: 1 or 0,2-3
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<Cpus>,

    /// The server's process, if it is on this machine: its memory and processor time are measured. Of several
    /// nodes the processor time of all, and the memory of the last one
    #[arg(long, value_name = "PID[,...]", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) server_pid: Vec<i32>,

    /// Where the server's sockets live; auto looks at the size of its descriptor table
    #[arg(long, value_enum, default_value_t)]
    pub(crate) server_descriptors: DescriptorsChoice,

    /// How long an answer, or a handshake, may take
    #[arg(long, default_value = "30s", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    pub(crate) timeout: Duration,
}

impl Common {
    /// The process whose memory is measured.
    pub(crate) fn server(&self) -> Option<i32> {
        self.server_pid.last().copied()
    }
}

/// `auto`, or one of the kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DescriptorsChoice {
    #[default]
    Auto,
    Normal,
    Direct,
}

impl DescriptorsChoice {
    pub(crate) fn wanted(self) -> Option<Descriptors> {
        match self {
            DescriptorsChoice::Auto => None,
            DescriptorsChoice::Normal => Some(Descriptors::Normal),
            DescriptorsChoice::Direct => Some(Descriptors::Direct),
        }
    }
}

/// `auto`, or one of the forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IoChoice {
    #[default]
    Auto,
    Uring,
    /// What Linux 5.10 has
    UringPlain,
    /// Without io_uring
    Epoll,
}

impl IoChoice {
    pub(crate) fn wanted(self) -> Option<Io> {
        match self {
            IoChoice::Auto => None,
            IoChoice::Uring => Some(Io::Uring),
            IoChoice::UringPlain => Some(Io::UringPlain),
            IoChoice::Epoll => Some(Io::Epoll),
        }
    }
}
