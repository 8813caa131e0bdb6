//! Which core each shard runs on.

use std::io;
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::ring::Io;

/// Whether shards are pinned, each to a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// Where the shards take all cores that the process may use. With fewer shards, or under a quota
    /// of CPU time, the scheduler places them: several servers on one machine would otherwise share
    /// the first cores and leave the others idle.
    #[default]
    Auto,
    /// Always: to the allowed cores in turn, from the first.
    Always,
    /// Never.
    Never,
}

impl Pin {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Pin::Auto => "auto",
            Pin::Always => "always",
            Pin::Never => "never",
        }
    }
}

/// A core for each shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// By shard: the allowed cores in turn.
    pub cores: Vec<usize>,
    /// Whether the shards are pinned to these cores. If not, the scheduler places their threads.
    pub pinned: bool,
}

impl Placement {
    /// Places `shards` shards on the cores that the calling thread may use (`sched_getaffinity(2)`).
    ///
    /// # Errors
    /// None that a running process sees.
    pub fn new(pin: Pin, shards: usize) -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let allowed: Vec<usize> =
            (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect();
        // This counts the quota of the control group, too (`cpu.max`), rounded down.
        let usable = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self::on(&allowed, usable, pin, shards))
    }

    fn on(allowed: &[usize], usable: usize, pin: Pin, shards: usize) -> Self {
        let pinned = match pin {
            Pin::Auto => shards >= allowed.len() && usable >= allowed.len(),
            Pin::Always => true,
            Pin::Never => false,
        };
        Placement { cores: allowed.iter().copied().cycle().take(shards).collect(), pinned }
    }

    /// The shards of each thread, by number: on io_uring, the shards of one core share a thread.
    pub(super) fn threads(&self, io: Io) -> Vec<Vec<usize>> {
        let mut threads: Vec<Vec<usize>> = Vec::new();
        for (index, core) in self.cores.iter().enumerate() {
            let same = |shards: &&mut Vec<usize>| self.cores[shards[0]] == *core;
            match threads.iter_mut().find(same) {
                Some(shards) if io != Io::Epoll => shards.push(index),
                _ => threads.push(vec![index]),
            }
        }
        threads
    }

    /// The number of shards that share a thread at most.
    pub fn shards_of_thread(&self, io: Io) -> usize {
        self.threads(io).iter().map(Vec::len).max().unwrap_or(1)
    }

    /// The core that shard `index` is pinned to.
    pub fn core(&self, index: usize) -> Option<usize> {
        self.pinned.then(|| self.cores[index])
    }
}

/// Keeps the calling thread on `core`. Called before the thread allocates: its memory is then near
/// the core.
pub(super) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards are pinned where they take all cores and no quota is in force, or by choice.
    #[test]
    fn shards_are_pinned_where_they_take_all_cores() {
        let four = [0, 1, 2, 3];
        for (allowed, usable, pin, shards, pinned) in [
            (&four[..], 4, Pin::Auto, 4, true),
            (&four, 4, Pin::Auto, 6, true),
            (&four, 4, Pin::Auto, 1, false),
            (&four, 4, Pin::Auto, 3, false),
            (&four, 1, Pin::Auto, 4, false),
            (&[2][..], 1, Pin::Auto, 1, true),
            (&four, 1, Pin::Always, 1, true),
            (&four, 4, Pin::Never, 4, false),
        ] {
            let placement = Placement::on(allowed, usable, pin, shards);
            assert_eq!(placement.pinned, pinned, "{allowed:?} {usable} {pin:?} {shards}");
            assert_eq!(placement.cores.len(), shards);
        }
        let placement = Placement::on(&[1, 5], 2, Pin::Auto, 3);
        assert_eq!(placement.cores, [1, 5, 1]);
        assert_eq!(placement.core(1), Some(5));
        assert_eq!(placement.threads(Io::Uring), [vec![0, 2], vec![1]]);
        assert_eq!(placement.threads(Io::Epoll), [[0], [1], [2]]);
        assert_eq!(placement.shards_of_thread(Io::Uring), 2);
        assert_eq!(Placement::on(&four, 4, Pin::Never, 2).core(1), None);
    }
}
