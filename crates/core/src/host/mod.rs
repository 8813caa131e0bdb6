//! The limits of this machine, and the number of shards that follows from them.

mod error;

use std::io;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::retry::{RETRY_MAX, is_shortage, retry};
use crate::ring::setup::Tier;
use crate::ring::{KernelRing, RingConfig, probe};

pub use crate::ring::{Descriptors, Io};
pub use error::HostError;

/// The settings that were asked for. `None` leaves the choice to [`plan`].
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Largest number of connections of the process.
    pub max_conns: Option<u32>,
    /// Number of shards, each a thread.
    pub shards: Option<usize>,
    /// Where sockets live.
    pub descriptors: Option<Descriptors>,
    /// Interface of the kernel.
    pub io: Option<Io>,
}

/// The settings in force, and the reasons for them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Interface of the kernel.
    pub io: Io,
    /// The reason for it, in words.
    pub io_reason: String,
    /// Where sockets live.
    pub descriptors: Descriptors,
    /// The reason for it, in words.
    pub descriptors_reason: String,
    /// Number of shards, each a thread.
    pub shards: usize,
    /// Largest number of connections of one shard.
    pub conns_per_shard: u32,
    /// Processors that the shards are spread over.
    pub cores: usize,
}

impl Plan {
    /// Largest number of connections of the process.
    pub fn max_conns(&self) -> u32 {
        self.conns_per_shard.saturating_mul(self.shards as u32)
    }
}

/// Descriptors that a process needs beside its connections: rings, libraries, the control plane.
const RESERVED_FILES: u64 = 256;
/// Largest number of connections if none is given and the limit on open files is higher.
const CONNS_DEFAULT: u64 = 1_000_000;
/// The largest table of files that a ring can have (IORING_MAX_FIXED_FILES, since 5.15).
const TABLE_MAX: u64 = 1 << 20;

/// Decides how many shards hold how many connections, on which interface of the kernel and on which
/// descriptors. Raises the soft limit on open files to the hard one.
///
/// If the interface was left open, this chooses io_uring, or epoll where the kernel refuses io_uring
/// or has no room for the rings of all shards.
///
/// # Errors
/// [`HostError`] if the machine cannot do what is asked for.
pub fn plan(wanted: &Wanted) -> Result<Plan, HostError> {
    if wanted.max_conns == Some(0) {
        return Err(HostError::Zero("the number of connections"));
    }
    if wanted.shards == Some(0) {
        return Err(HostError::Zero("the number of shards"));
    }
    let asked_for = || "asked for".to_owned();
    match wanted.io {
        // This must not try io_uring: a seccomp profile may kill a process that does.
        Some(Io::Epoll) => plan_on(Io::Epoll, asked_for(), wanted),
        Some(Io::UringPlain) => {
            try_uring(|| probe::round_trip(Tier::Plain))?;
            plan_on(Io::UringPlain, asked_for(), wanted)
        }
        Some(Io::Uring) => plan_on_uring(wanted),
        None => match plan_on_uring(wanted) {
            Err(HostError::UringRefused(error)) => {
                plan_on(Io::Epoll, format!("io_uring is refused: {error}"), wanted)
            }
            Err(HostError::NoRoom { error, .. }) => {
                let reason = format!(
                    "no room for io_uring: {error}; raise the limits on locked memory ('ulimit -l') \
                     and on open files ('ulimit -n')"
                );
                plan_on(Io::Epoll, reason, wanted)
            }
            planned => planned,
        },
    }
}

fn plan_on_uring(wanted: &Wanted) -> Result<Plan, HostError> {
    let tier = try_uring(probe::best_tier)?;
    plan_on(Io::Uring, tier.describe().into(), wanted)
}

/// Runs a probe of one ring.
fn try_uring<T>(probe: impl FnMut() -> io::Result<T>) -> Result<T, HostError> {
    retry(RETRY_MAX, is_shortage, probe).map_err(|error| match is_shortage(&error) {
        true => HostError::NoRoom { io: Io::Uring, rings: 1, error },
        // EPERM by `kernel.io_uring_disabled` (6.6) and by containers' seccomp profiles, ENOSYS by
        // others and by kernels without it, EINVAL by those that are too old, EACCES by SELinux.
        false => HostError::UringRefused(error),
    })
}

/// The plan for one interface of the kernel.
fn plan_on(io: Io, io_reason: String, wanted: &Wanted) -> Result<Plan, HostError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let files = raise_file_limit();
    let room = files.saturating_sub(RESERVED_FILES).max(1);
    let conns = wanted.max_conns.unwrap_or(room.min(CONNS_DEFAULT) as u32);
    let enough = u64::from(conns) <= room;
    let direct_works = || match io {
        Io::Epoll => Err(io::Error::other(format!("epoll has none: {io_reason}"))),
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
            direct_works().map_err(HostError::NoDirect)?;
            (Descriptors::Direct, "asked for".into())
        }
        None if enough => {
            (Descriptors::Normal, format!("{conns} connections fit {files} open files"))
        }
        None => match direct_works() {
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
    let ring = RingConfig { io, descriptors, max_conns: conns_per_shard, ..RingConfig::default() };
    KernelRing::check_room(&ring, shards).map_err(|error| HostError::NoRoom {
        io,
        rings: shards,
        error,
    })?;
    Ok(Plan { io, io_reason, descriptors, descriptors_reason, shards, conns_per_shard, cores })
}

/// As many shards as tables are needed, the same number on every core.
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

/// Raises the soft limit on open files to the hard one. Returns the limit in force.
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

    /// The error names the largest value that would work.
    #[test]
    fn too_many_connections_for_normal_descriptors() {
        let wanted = Wanted {
            max_conns: Some(u32::MAX),
            descriptors: Some(Descriptors::Normal),
            ..Wanted::default()
        };
        let error = plan(&wanted).expect_err("no machine has 4 billion descriptors");
        assert!(matches!(error, HostError::TooFewDescriptors { .. }));
        assert!(error.to_string().contains("raise the limit"), "{error}");
    }
}
