//! Why the process ends with an error, each with the remedy.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use murre_core::host::HostError;

use crate::files::FilesError;

/// Why the server could not start, or could not go on.
#[derive(Debug)]
pub(crate) enum Failure {
    Host(HostError),
    Files(FilesError),
    /// What is wrong with a setting of the channels, and what helps.
    Channels(String),
    Listen {
        flag: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
    Shard {
        index: usize,
        error: io::Error,
    },
    Thread(io::Error),
    ShardEnded {
        index: usize,
        why: String,
    },
    ControlEnded {
        why: String,
    },
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Host(error) => error.fmt(f),
            Failure::Files(error) => error.fmt(f),
            Failure::Channels(why) => f.write_str(why),
            Failure::Listen { flag, address, error } => {
                write!(f, "cannot listen on {address} ({flag}): {error}; {}", listen_remedy(error))
            }
            Failure::Shard { index, error } => write!(
                f,
                "shard {index} cannot start: {error}; {}",
                match error.kind() {
                    io::ErrorKind::OutOfMemory =>
                        "raise the limit of locked memory (ulimit -l) or lower --max-conns",
                    _ => "lower --shards or --max-conns, or try --io uring-plain or --io epoll",
                }
            ),
            Failure::Thread(error) => {
                write!(
                    f,
                    "cannot start a thread: {error}; raise the limit of processes (ulimit -u)"
                )
            }
            Failure::ShardEnded { index, why } => {
                write!(f, "shard {index} ended: {why}; ending, as its connections are lost")
            }
            Failure::ControlEnded { why } => {
                write!(
                    f,
                    "the control plane ended: {why}; ending, as nothing would watch over memory"
                )
            }
            Failure::Interrupted => f.write_str("second signal while draining: ended at once"),
        }
    }
}

fn listen_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop what uses it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address that this machine has",
        io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
        }
        _ => "choose another address",
    }
}
