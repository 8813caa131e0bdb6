//! The machine cannot do what it is asked for.

use std::fmt;
use std::io;

use crate::ring::Io;

/// The reason that the machine cannot do what it is asked for. Its text says what to change.
#[derive(Debug)]
pub enum HostError {
    /// io_uring was asked for, and the kernel refuses it.
    UringRefused(io::Error),
    /// Memory or descriptors do not suffice for the rings.
    NoRoom {
        /// The interface of the kernel.
        io: Io,
        /// The number of rings, one for each shard.
        rings: usize,
        /// The kernel's error.
        error: io::Error,
    },
    /// More connections were asked for than there are descriptors.
    TooFewDescriptors {
        /// Connections asked for.
        conns: u32,
        /// Connections that there are descriptors for.
        limit: u64,
        /// The reason that the rings' own tables cannot be used instead.
        no_direct: String,
    },
    /// Direct descriptors were asked for and do not work.
    NoDirect(io::Error),
    /// With direct descriptors, fewer shards were asked for than tables are needed.
    TooFewShards {
        /// Shards asked for.
        shards: usize,
        /// Shards needed.
        needed: usize,
        /// Connections that one table holds.
        per_table: u32,
    },
    /// A number was given as zero.
    Zero(&'static str),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::UringRefused(error) => write!(
                f,
                "io_uring cannot be used here ({error}): allow it with 'sysctl \
                 kernel.io_uring_disabled=0' and in the container's seccomp profile, or leave the \
                 choice to 'auto'"
            ),
            HostError::NoRoom { io: Io::Epoll, rings, error } => write!(
                f,
                "no room for {rings} shards ({error}): raise the limit on open files \
                 (LimitNOFILE= in systemd, 'ulimit -n' in a shell), or ask for fewer shards"
            ),
            HostError::NoRoom { rings, error, .. } => write!(
                f,
                "no room for {rings} shards with io_uring ({error}): raise the limits on locked memory \
                 (LimitMEMLOCK= in systemd, 'ulimit -l' in a shell) and on open files (LimitNOFILE=, \
                 'ulimit -n'), or leave the choice to 'auto'"
            ),
            HostError::TooFewDescriptors { conns, limit, no_direct } => write!(
                f,
                "{conns} connections need more open files than the hard limit allows (room for \
                 {limit}), and direct descriptors cannot be used ({no_direct}): raise the limit \
                 (LimitNOFILE= in systemd, 'ulimit -Hn' in a shell) or ask for {limit}"
            ),
            HostError::NoDirect(error) => write!(
                f,
                "direct descriptors do not work here ({error}): leave the choice to 'auto', or \
                 raise the limit on open files and use 'normal'"
            ),
            HostError::TooFewShards { shards, needed, per_table } => write!(
                f,
                "a ring's table holds {per_table} sockets here (the limit on open files), so \
                 {shards} shards are too few: ask for {needed}, or raise the limit"
            ),
            HostError::Zero(what) => write!(f, "{what} must be at least 1"),
        }
    }
}

impl std::error::Error for HostError {}
