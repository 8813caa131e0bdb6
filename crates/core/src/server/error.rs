//! Why a server could not start or go on.

use std::fmt;
use std::io;

use crate::host::HostError;

/// Why a [`Server`](crate::Server) could not start, or ended otherwise than by a drain.
#[derive(Debug)]
pub enum ServerError {
    /// The host does not allow what was asked for.
    Host(HostError),
    /// The kernel refused a thread, or a call about one.
    Thread(io::Error),
    /// A shard could not start: the kernel refused its ring.
    Shard {
        /// Which shard.
        index: usize,
        /// What the kernel said.
        error: io::Error,
    },
    /// A thread of shards ended before the drain, or during the drain by an error or a panic. Its
    /// connections are lost.
    ThreadEnded {
        /// The name of the thread.
        name: String,
        /// The error, or the message of the panic.
        why: String,
    },
    /// The program has ended the server by [`ServerHandle::fail`](crate::ServerHandle::fail).
    Failed(String),
    /// A second signal during the drain, more than a second after the first.
    Interrupted,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Host(error) => error.fmt(f),
            ServerError::Thread(error) => write!(f, "cannot start a thread: {error}"),
            ServerError::Shard { index, error } => {
                write!(f, "shard {index} cannot start: {error}")
            }
            ServerError::ThreadEnded { name, why } => {
                write!(f, "thread {name} ended: {why}; ending, as its connections are lost")
            }
            ServerError::Failed(why) => f.write_str(why),
            ServerError::Interrupted => f.write_str("second signal while draining: ended at once"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServerError::Host(error) => Some(error),
            ServerError::Thread(error) | ServerError::Shard { error, .. } => Some(error),
            ServerError::ThreadEnded { .. } | ServerError::Failed(_) | ServerError::Interrupted => {
                None
            }
        }
    }
}
