//! Facts for the record: machine, kernel, settings, commit, time.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use murre_record::Machine;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

/// The machine that this program is on.
pub(crate) fn machine() -> Machine {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches([' ', '\t', ':']).to_owned()
    };
    let memory = value(&meminfo, "MemTotal");
    let memory = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    let sysctl = |&name: &&'static str| {
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        Some((name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    Machine {
        cpu: value(&cpuinfo(), "model name"),
        cores: cores(),
        memory_bytes: memory.unwrap_or_default() * 1024,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| String::new(), |text| text.trim().to_owned()),
        virtualisation: virtualisation(),
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
        sysctls: SYSCTLS.iter().filter_map(sysctl).collect(),
    }
}

fn cpuinfo() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

/// Cores of the machine, whatever part of it this process may use.
pub(crate) fn cores() -> u64 {
    cpuinfo().lines().filter(|line| line.starts_with("processor")).count().max(1) as u64
}

/// A processor's flags say whether there is a hypervisor; the firmware may say which.
fn virtualisation() -> Option<String> {
    let cpuinfo = cpuinfo();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if !flags.split_whitespace().any(|flag| flag == "hypervisor") {
        return None;
    }
    let named = |name| fs::read_to_string(format!("/sys/class/dmi/id/{name}")).ok();
    let names = ["sys_vendor", "product_name"].into_iter().filter_map(named);
    let names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
    Some(if names.is_empty() { "a hypervisor without a name".to_owned() } else { names.join(" ") })
}

/// How this program was called.
pub(crate) fn command() -> String {
    let arguments = std::env::args().skip(1);
    std::iter::once(env!("CARGO_PKG_NAME").to_owned())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Settings that bound or shape a run of many connections.
const SYSCTLS: [&str; 16] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "vm.max_map_count",
];

/// The commit of the working directory, with a mark if files differ from it; or what `MURRE_COMMIT` says.
pub(crate) fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("MURRE_COMMIT") {
        return Some(commit);
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    if !output.status.success() || commit.is_empty() {
        return None;
    }
    // Records are added while measuring; anything else that differs was perhaps measured.
    let same = ["diff", "--quiet", "HEAD", "--", ":/", ":!/bench-results"];
    let same = Command::new("git").args(same).status().ok()?.success();
    Some(if same { commit } else { format!("{commit}+changes") })
}

/// `2026-11-23T05:18:00Z`
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970-01-01, by Howard Hinnant's `civil_from_days`: years begin in March, so that a
/// leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (january, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year + january, month, day)
}

/// Processor time of a process, user and system.
pub(crate) fn cpu_of(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
}

/// The command's name is in parentheses and may hold anything; numbers follow.
fn parse_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    // Fields 14 and 15 of proc_pid_stat(5); the state, field 3, is the first here.
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// `USER_HZ`, which is the same on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// Processes that ran or waited to, over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Our own processor time.
pub(crate) fn cpu_own() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let time = usage.user_time() + usage.system_time();
        Duration::from_micros(time.num_microseconds().unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the calendar at its corners.
    #[test]
    fn dates_are_right_across_leap_years() {
        let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59Z");
    }

    /// Shows that a name with spaces and parentheses does not shift the fields.
    #[test]
    fn a_process_may_have_any_name() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 9";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    /// Shows that the facts of a record are not empty where the tests run.
    #[test]
    fn this_machine_has_facts() {
        let machine = machine();
        assert!(machine.memory_bytes > 1 << 20 && machine.cores > 0);
        assert!(!machine.kernel.is_empty());
        assert!(machine.sysctls.contains_key("net.ipv4.ip_local_port_range"));
        assert!(cpu_of(std::process::id() as i32).is_some());
    }
}
