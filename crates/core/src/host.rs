//! What this machine allows, and what follows for the number of shards.

use std::fmt;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::ring::{probe, setup::Tier};

pub use crate::ring::{Descriptors, Io};

/// What is asked of the machine. `None` leaves the choice to [`plan`].
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Connections in all.
    pub conns_max: Option<u32>,
    /// Shards, which is threads.
    pub shards: Option<usize>,
    /// Where sockets live.
    pub descriptors: Option<Descriptors>,
    /// Interface of the kernel.
    pub io: Option<Io>,
}

/// What is done, and why.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Interface of the kernel.
    pub io: Io,
    /// Why that, in words.
    pub io_reason: String,
    /// Where sockets live.
    pub descriptors: Descriptors,
    /// Why there, in words.
    pub descriptors_reason: String,
    /// Shards, which is threads.
    pub shards: usize,
    /// Connections in one shard at most.
    pub conns_per_shard: u32,
    /// Processors that the shards are spread over.
    pub cores: usize,
}

impl Plan {
    /// Connections in all at most.
    pub fn conns_max(&self) -> u32 {
        self.conns_per_shard * self.shards as u32
    }
}

/// Why what is asked cannot be done here. Its text says what to do about it.
#[derive(Debug)]
pub enum HostError {
    /// io_uring is asked for and refused.
    NoUring(io::Error),
    /// There is no room for an io_uring.
    NoRoom(io::Error),
    /// More connections than descriptors.
    TooFewDescriptors {
        /// Connections asked for.
        conns: u32,
        /// Connections that there are descriptors for.
        limit: u64,
        /// Why the rings' own tables cannot be used instead.
        no_direct: String,
    },
    /// Direct descriptors were asked for and do not work.
    NoDirect(io::Error),
    /// Direct descriptors, and fewer shards than tables are needed.
    TooFewShards {
        /// Shards asked for.
        shards: usize,
        /// Shards needed.
        needed: usize,
        /// Connections that one table holds.
        per_table: u32,
    },
    /// A number that is asked for is zero.
    Nothing(&'static str),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::NoUring(error) => write!(
                f,
                "io_uring cannot be used here ({error}): allow it with 'sysctl \
                 kernel.io_uring_disabled=0' and in the container's seccomp profile, or leave the \
                 choice to 'auto'"
            ),
            HostError::NoRoom(error) => write!(
                f,
                "there is no room for an io_uring ({error}): raise the limit on locked memory \
                 ('ulimit -l') and on open files ('ulimit -n'), or use epoll ('--io epoll')"
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
            HostError::Nothing(what) => write!(f, "{what} must be at least 1"),
        }
    }
}

impl std::error::Error for HostError {}

/// Descriptors that a process needs beside its connections: rings, libraries, the control plane.
const RESERVED_FILES: u64 = 256;
/// Connections when nobody says how many and the limit on open files is higher.
const CONNS_DEFAULT: u64 = 1_000_000;
/// The largest table of files that a ring can have (IORING_MAX_FIXED_FILES, since 5.15).
const TABLE_MAX: u64 = 1 << 20;

/// Decides how many shards hold how many connections, on which descriptors. Raises the soft limit
/// on open files to the hard one.
///
/// # Errors
/// When what is asked for cannot be had.
pub fn plan(wanted: &Wanted) -> Result<Plan, HostError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let files = raise_file_limit();
    let (io, io_reason) = choose_io(wanted.io)?;
    if wanted.conns_max == Some(0) {
        return Err(HostError::Nothing("the number of connections"));
    }
    if wanted.shards == Some(0) {
        return Err(HostError::Nothing("the number of shards"));
    }
    let room = files.saturating_sub(RESERVED_FILES).max(1);
    let conns = wanted.conns_max.unwrap_or(room.min(CONNS_DEFAULT) as u32);
    let enough = u64::from(conns) <= room;
    let no_direct = || match io {
        Io::Epoll => Err(io::Error::other("they are io_uring's")),
        Io::UringPlain => Err(io::Error::other("5.10 has none")),
        Io::Uring => probe::direct_descriptors(),
    };
    let (descriptors, descriptors_reason) = match wanted.descriptors {
        Some(Descriptors::Normal) if !enough => {
            let no_direct = "normal ones are asked for".into();
            return Err(HostError::TooFewDescriptors { conns, limit: room, no_direct });
        }
        Some(Descriptors::Normal) => (Descriptors::Normal, "asked for".into()),
        Some(Descriptors::Direct) => {
            no_direct().map_err(HostError::NoDirect)?;
            (Descriptors::Direct, "asked for".into())
        }
        None if enough => {
            (Descriptors::Normal, format!("{conns} connections fit {files} open files"))
        }
        None => match no_direct() {
            Ok(()) => {
                let reason = format!("{conns} connections do not fit {files} open files");
                (Descriptors::Direct, reason)
            }
            Err(error) => {
                let no_direct = error.to_string();
                return Err(HostError::TooFewDescriptors { conns, limit: room, no_direct });
            }
        },
    };
    let shards = match descriptors {
        Descriptors::Normal => wanted.shards.unwrap_or(cores),
        Descriptors::Direct => shards_direct(conns, files.min(TABLE_MAX), wanted.shards, cores)?,
    };
    let conns_per_shard = conns.div_ceil(shards as u32);
    Ok(Plan { io, io_reason, descriptors, descriptors_reason, shards, conns_per_shard, cores })
}

/// As many shards as tables are needed, in equal numbers on every core.
fn shards_direct(
    conns: u32,
    per_table: u64,
    wanted: Option<usize>,
    cores: usize,
) -> Result<usize, HostError> {
    let needed = u64::from(conns).div_ceil(per_table) as usize;
    match wanted {
        Some(shards) if shards < needed => {
            Err(HostError::TooFewShards { shards, needed, per_table: per_table as u32 })
        }
        Some(shards) => Ok(shards),
        None => Ok(needed.next_multiple_of(cores)),
    }
}

fn choose_io(wanted: Option<Io>) -> Result<(Io, String), HostError> {
    let best = || probe::best_tier().map(|tier| (Io::Uring, tier.describe().into()));
    match wanted {
        // Nobody tries io_uring then: a profile may kill whoever does.
        Some(Io::Epoll) => Ok((Io::Epoll, "asked for".into())),
        Some(Io::Uring) => best().map_err(no_uring),
        Some(Io::UringPlain) => probe::round_trip(Tier::Plain)
            .map(|()| (Io::UringPlain, "asked for".into()))
            .map_err(no_uring),
        None => best().or_else(|error| match no_uring(error) {
            HostError::NoUring(error) => Ok((Io::Epoll, format!("io_uring is refused: {error}"))),
            no_room => Err(no_room),
        }),
    }
}

/// What it means that not even the plain forms of io_uring work. For want of memory or descriptors
/// they may work the next time, so that is no reason to do without.
fn no_uring(error: io::Error) -> HostError {
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN) => HostError::NoRoom(error),
        // EPERM by `kernel.io_uring_disabled` (6.6) and by containers' seccomp profiles, ENOSYS by
        // others and by kernels without it, EINVAL by those that are too old, EACCES by SELinux.
        _ => HostError::NoUring(error),
    }
}

/// Raises the soft limit on open files to the hard one, and gives what is in force then.
fn raise_file_limit() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit of 20,000 open files and 100,000 connections need six tables on two cores.
    #[test]
    fn tables_are_counted() {
        assert_eq!(shards_direct(100_000, 20_000, None, 2).expect("possible"), 6);
        assert_eq!(shards_direct(100_000, 20_000, Some(5), 2).expect("possible"), 5);
        assert_eq!(shards_direct(1000, 20_000, None, 4).expect("possible"), 4);
        let error = shards_direct(100_000, 20_000, Some(4), 2).expect_err("too few");
        assert!(error.to_string().contains("ask for 5"), "{error}");
    }

    /// What is asked for and cannot be had is said with the number that can.
    #[test]
    fn too_many_connections_for_normal_descriptors() {
        let wanted = Wanted {
            conns_max: Some(u32::MAX),
            descriptors: Some(Descriptors::Normal),
            ..Wanted::default()
        };
        let error = plan(&wanted).expect_err("nobody has 4 billion descriptors");
        assert!(matches!(error, HostError::TooFewDescriptors { .. }));
        assert!(error.to_string().contains("raise the limit"), "{error}");
    }
}
