//! A process that may lock little memory, which the rings of io_uring count as since Linux 6.14.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use murre_core::host::{self, HostError, Io, Plan, Wanted};
use murre_core::ring::{KernelRing, RingConfig};

const NAME: &str = "rings_without_locked_memory_are_on_epoll";
/// Kibibytes of locked memory for which a process on its own tests.
const LIMIT: &str = "MURRE_TEST_LOCKED_KIB";

/// Where the limit on locked memory has no room for the rings of all shards, the choice falls on
/// epoll, also if only the second ring has no room. Whoever asks for io_uring gets the remedy.
#[test]
fn rings_without_locked_memory_are_on_epoll() {
    if let Some(limit) = env::var_os(LIMIT) {
        return with_limit(limit.to_str().expect("digits"));
    }
    for limit in ["0", "200"] {
        let test = env::current_exe().expect("a path");
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l $1 && exec \"$2\" --exact \"$3\" --nocapture", "sh", limit]);
        command.arg(test).arg(NAME).env(LIMIT, limit);
        // The limit is not for root.
        if fs::metadata("/proc/self").expect("a process").uid() == 0 {
            command.uid(65_534).gid(65_534);
        }
        let output = command.output().expect("a shell");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn plan(io: Option<Io>, shards: usize) -> Result<Plan, HostError> {
    host::plan(&Wanted { io, shards: Some(shards), conns_max: Some(100), ..Wanted::default() })
}

fn with_limit(limit: &str) {
    let alone = plan(None, 1).expect("one shard or the other way");
    let many = plan(None, 64).expect("64 shards or the other way");
    if many.io == Io::Uring {
        // Before 6.14.
        return println!("not here: rings need no locked memory");
    }
    assert_eq!(many.io, Io::Epoll, "{}", many.io_reason);
    match limit {
        // The smallest ring takes more.
        "0" => assert_eq!(alone.io, Io::Epoll),
        // One ring takes about 130 KiB.
        _ => assert_eq!(alone.io, Io::Uring, "{}", alone.io_reason),
    }
    for reason in [&many.io_reason, &plan(Some(Io::Uring), 64).expect_err("no room").to_string()] {
        assert!(reason.starts_with("no room for "), "{reason}");
        assert!(reason.contains("'ulimit -l'"), "{reason}");
    }
    for _ in 0..many.shards {
        let config = RingConfig { io: many.io, conns_max: 100, ..RingConfig::default() };
        KernelRing::new(config).expect("planned");
    }
    // What the plan has tried is closed by the kernel in a moment: its ring is there all the same.
    let config = RingConfig { io: alone.io, conns_max: 100, ..RingConfig::default() };
    KernelRing::new(config).expect("planned");
    println!("{limit} KiB: {}", many.io_reason);
}
