//! The available memory of the machine and of each control group that bounds this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The bounds on the memory of this process. They are found at start and can be read at any time.
pub(crate) struct Bounds {
    root: PathBuf,
    groups: Vec<Group>,
}

/// One bound, in bytes, and the bytes of it that are available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bound {
    /// `machine`, or the path of a control group.
    pub(crate) of: String,
    pub(crate) bytes: u64,
    pub(crate) available_bytes: u64,
}

/// A control group of this process, and the names of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    path: PathBuf,
    version: &'static Version,
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    /// Mount points, relative to the root of the file system; the first that exists is used.
    mounts: &'static [&'static str],
    /// Files with limits in bytes. Above `memory.high` the kernel throttles allocations, so it
    /// counts as a limit.
    limits: &'static [&'static str],
    usage: &'static str,
    /// The key in `memory.stat` for pages of files that were not used lately. The kernel counts
    /// them as used, and reclaims them first.
    reclaimable: &'static str,
}

static V1: Version = Version {
    mounts: &["sys/fs/cgroup/memory"],
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

static V2: Version = Version {
    mounts: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: "inactive_file",
};

impl Bounds {
    /// Finds the bounds of this process in the files below `root`, which is `/` except in tests.
    pub(crate) fn find(root: &Path) -> Self {
        let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let groups = memberships.lines().flat_map(|line| groups(root, line)).collect();
        Bounds { root: root.into(), groups }
    }

    /// Reads the bounds. A missing file means that there is no bound.
    ///
    /// # Errors
    /// A file exists and cannot be read, for example because no descriptor is left to open it.
    pub(crate) fn read(&self) -> io::Result<Vec<Bound>> {
        let machine = read(&self.root.join("proc/meminfo"))?.and_then(|text| of_machine(&text));
        let groups = self.groups.iter().filter_map(|group| group.read().transpose());
        machine.map(Ok).into_iter().chain(groups).collect()
    }

    /// The pressure file of the innermost control group of version 2, or of the machine if the
    /// group has no such file.
    pub(crate) fn pressure_file(&self) -> Option<PathBuf> {
        let innermost = self.groups.iter().find(|group| *group.version == V2);
        let own = innermost.map(|group| group.path.join("memory.pressure"));
        own.into_iter()
            .chain([self.root.join("proc/pressure/memory")])
            .find(|file| fs::read_to_string(file).is_ok())
    }
}

/// The text of a file; `None` if it is missing.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// The bound of the machine. `MemAvailable` is the kernel's estimate of the memory that processes
/// can get without swapping (since 3.14).
fn of_machine(meminfo: &str) -> Option<Bound> {
    let bytes = |name| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    let (bytes, available_bytes) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    Some(Bound { of: "machine".into(), bytes, available_bytes })
}

/// The control groups of one line of `/proc/self/cgroup`, `HIERARCHY:CONTROLLERS:PATH`
/// (cgroups(7)), innermost first. The limits of outer groups bound this process, too. In a
/// container without its own cgroup namespace the path is the path on the host, and the container's
/// own group is at the root of the mount.
fn groups(root: &Path, membership: &str) -> Vec<Group> {
    let mut fields = membership.splitn(3, ':');
    let (Some(number), Some(controllers), Some(path)) =
        (fields.next(), fields.next(), fields.next())
    else {
        return Vec::new();
    };
    let version = match (number, controllers) {
        ("0", "") => &V2,
        (_, controllers) if controllers.split(',').any(|one| one == "memory") => &V1,
        _ => return Vec::new(),
    };
    let path = Path::new(path.trim_start_matches('/'));
    let is_there = |path: &PathBuf| path.join(version.usage).exists();
    let places = |mount: &&str| -> Vec<PathBuf> {
        let inside = path.ancestors().map(|path| root.join(mount).join(path));
        // Collecting the components removes the trailing slash of the outermost path.
        inside.map(|path| path.components().collect()).filter(is_there).collect()
    };
    let places = version.mounts.iter().map(places).find(|places| !places.is_empty());
    places.unwrap_or_default().into_iter().map(|path| Group { path, version }).collect()
}

impl Group {
    /// Reads the bound of the group; `None` if it has no limit.
    fn read(&self) -> io::Result<Option<Bound>> {
        let limits: io::Result<Vec<_>> =
            self.version.limits.iter().map(|name| self.number(name)).collect();
        let limit = limits?.into_iter().flatten().min().filter(|&bytes| bytes < UNLIMITED);
        let (Some(bytes), Some(usage)) = (limit, self.number(self.version.usage)?) else {
            return Ok(None);
        };
        let stat = read(&self.path.join("memory.stat"))?.unwrap_or_default();
        let reclaimable = stat.lines().find_map(|line| {
            line.strip_prefix(self.version.reclaimable)?.strip_prefix(' ')?.parse().ok()
        });
        // Kubernetes computes the working set of a container in the same way.
        let used = usage.saturating_sub(reclaimable.unwrap_or(0));
        let of = self.path.display().to_string();
        Ok(Some(Bound { of, bytes, available_bytes: bytes.saturating_sub(used) }))
    }

    /// The number in a file of the group; `None` if the file says `max` or is missing.
    fn number(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(read(&self.path.join(name))?.and_then(|text| text.trim().parse().ok()))
    }
}

/// Version 1 shows "no limit" as the largest number of pages that it can count, in bytes.
const UNLIMITED: u64 = 1 << 62;

/// The share of the last ten seconds in which all tasks waited for memory, in percent: `avg10` of
/// the line `full` (Documentation/accounting/psi.rst, since 4.20).
pub(crate) fn pressure(text: &str) -> Option<f64> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    full.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes the files of a machine to a new folder, and returns the folder.
    pub(in super::super) fn machine(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("murre-{}-{name}", std::process::id()));
        for (path, text) in files {
            let file = root.join(path);
            fs::create_dir_all(file.parent().expect("below the root")).expect("room");
            fs::write(file, text).expect("room");
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       24683656 kB\nMemFree:        13242340 kB\nMemAvailable:   17715308 kB\n\
         Buffers:           81212 kB\n",
    );

    fn left(root: &Path) -> Vec<(String, u64, u64)> {
        let bounds = Bounds::find(root).read().expect("every file is readable");
        let name = |of: &str| Path::new(of).strip_prefix(root).map_or(of.into(), Path::to_path_buf);
        let left = bounds.into_iter().map(|bound| {
            (name(&bound.of).display().to_string(), bound.bytes, bound.available_bytes)
        });
        let left = left.collect();
        fs::remove_dir_all(root).expect("it was there");
        left
    }

    /// In version 2, the limits of a systemd service and of the slice around it both count.
    /// Reclaimable pages of files do not count as used. The root has no limit.
    #[test]
    fn the_second_version() {
        let root = machine(
            "v2",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/system.slice/murre.service\n"),
                ("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"),
                ("sys/fs/cgroup/memory.pressure", ""),
                ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/memory.high", "8000\n"),
                ("sys/fs/cgroup/system.slice/memory.current", "6000\n"),
                ("sys/fs/cgroup/system.slice/murre.service/memory.max", "5000\n"),
                ("sys/fs/cgroup/system.slice/murre.service/memory.high", "max\n"),
                ("sys/fs/cgroup/system.slice/murre.service/memory.current", "4500\n"),
                (
                    "sys/fs/cgroup/system.slice/murre.service/memory.stat",
                    "anon 3000\nfile 1500\ninactive_file 1000\nactive_file 500\n",
                ),
            ],
        );
        assert_eq!(
            left(&root),
            [
                ("machine".into(), 24_683_656 * 1024, 17_715_308 * 1024),
                ("sys/fs/cgroup/system.slice/murre.service".into(), 5000, 1500),
                ("sys/fs/cgroup/system.slice".into(), 8000, 2000),
            ]
        );
    }

    /// In a container with its own cgroup namespace, the group at the root is found.
    #[test]
    fn a_container() {
        let root = machine(
            "container",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/memory.max", "1000\n"),
                ("sys/fs/cgroup/memory.current", "1200\n"),
            ],
        );
        assert_eq!(left(&root)[1..], [("sys/fs/cgroup".into(), 1000, 0)]);
    }

    /// The groups of version 1 are found, with its file names, its mount and its number for "no
    /// limit", on a host and in a container that sees the path of the host.
    #[test]
    fn the_first_version() {
        let files = |usage| {
            [
                MEMINFO,
                ("proc/self/cgroup", "12:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", usage),
                ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100\n"),
            ]
        };
        let mut host = files("700\n").to_vec();
        host.extend([
            ("sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes", "800\n"),
            ("sys/fs/cgroup/memory/docker/1f/memory.usage_in_bytes", "500\n"),
        ]);
        let seen = left(&machine("v1-host", &host));
        assert_eq!(seen[1..], [("sys/fs/cgroup/memory/docker/1f".into(), 800, 300)]);

        let mut inside = files("700\n");
        inside[2].1 = "900\n";
        let seen = left(&machine("v1-inside", &inside));
        assert_eq!(seen[1..], [("sys/fs/cgroup/memory".into(), 900, 300)]);
    }

    /// Missing and malformed files give no bounds.
    #[test]
    fn nothing_to_read() {
        assert_eq!(left(&machine("empty", &[("proc/nothing", "")])), []);
        let strange = [
            ("proc/meminfo", "MemTotal: many kB\n"),
            ("proc/self/cgroup", "0\n:::\n0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "\n"),
            ("sys/fs/cgroup/a/memory.current", "-5\n"),
        ];
        assert_eq!(left(&machine("strange", &strange)), []);
    }

    /// The bounds of the machine that runs the test can be read.
    #[test]
    fn here() {
        let bounds = Bounds::find(Path::new("/")).read().expect("they are readable");
        assert!(bounds.iter().all(|bound| bound.available_bytes <= bound.bytes), "{bounds:?}");
        assert_eq!(bounds[0].of, "machine");
    }

    /// The pressure file of the control group takes precedence over that of the machine; neither
    /// may exist.
    #[test]
    fn whose_pressure() {
        let own = "sys/fs/cgroup/a/memory.pressure";
        let group =
            [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.current", "1\n"), (own, "")];
        let machines = ("proc/pressure/memory", "");
        for (name, files, expected) in [
            ("both", &[&group[..], &[machines]].concat(), Some(own)),
            ("machine", &[&group[..2], &[machines]].concat(), Some(machines.0)),
            ("neither", &group[..2].to_vec(), None),
        ] {
            let root = machine(name, files);
            let file = Bounds::find(&root).pressure_file();
            assert_eq!(file, expected.map(|path| root.join(path)), "{name}");
            fs::remove_dir_all(&root).expect("it was there");
        }
    }

    /// The pressure comes from the line `full`; a text without a valid number gives none.
    #[test]
    fn pressure_is_read() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=123\n\
                    full avg10=3.25 avg60=0.50 avg300=0.00 total=45\n";
        assert_eq!(pressure(text), Some(3.25));
        for nothing in ["", "some avg10=1.0 total=1\n", "full avg60=1.0\n", "full avg10=x\n"] {
            assert_eq!(pressure(nothing), None, "{nothing:?}");
        }
    }
}
