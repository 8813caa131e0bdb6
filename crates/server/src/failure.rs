//! Why the process ends with an error, each with the remedy.

use std::fmt;
use std::io;

use murre_core::ServerError;
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
        address: String,
        error: io::Error,
    },
    /// A socket from the service manager cannot be used.
    Inherited(io::Error),
    Thread(io::Error),
    Server(ServerError),
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
            Failure::Inherited(error) => {
                write!(
                    f,
                    "cannot use a socket from LISTEN_FDS: {error}; correct the socket unit, or unset \
                     LISTEN_PID to listen at --listen and --admin"
                )
            }
            Failure::Server(error) => match server_remedy(error) {
                Some(remedy) => write!(f, "{error}; {remedy}"),
                None => error.fmt(f),
            },
            Failure::Thread(error) => write!(f, "cannot start a thread: {error}; {MORE_THREADS}"),
        }
    }
}

fn server_remedy(error: &ServerError) -> Option<&'static str> {
    match error {
        ServerError::Shard { error, .. } => Some(match error.kind() {
            io::ErrorKind::OutOfMemory => {
                "raise the limit of locked memory (ulimit -l) or lower --max-conns"
            }
            _ => "lower --shards or --max-conns, or try --io uring-plain or --io epoll",
        }),
        ServerError::Thread(_) => Some(MORE_THREADS),
        ServerError::Host(_)
        | ServerError::ThreadEnded { .. }
        | ServerError::Failed(_)
        | ServerError::Interrupted => None,
    }
}

const MORE_THREADS: &str = "raise the limit of processes (ulimit -u)";

fn listen_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop what uses it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address that this machine has",
        io::ErrorKind::NotFound => "make the folder first",
        io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
        }
        _ => "choose another address",
    }
}
