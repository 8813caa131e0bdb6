//! A process with a low limit on locked memory, against which io_uring counts its rings since Linux
//! 6.14.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use murre_core::host::{self, HostError, Io, Plan, Wanted};
use murre_core::ring::{KernelRing, RingConfig};

const NAME: &str = "rings_without_locked_memory_are_on_epoll";
/// The variable that tells a child process its limit on locked memory, in KiB.
const LIMIT: &str = "MURRE_TEST_LOCKED_KIB";

/// If the limit on locked memory is too low for the rings of all shards, the server chooses epoll,
/// even if only the second ring does not fit. If the configuration demands io_uring, the error says
/// what to do.
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
        // The limit does not apply to root.
        if fs::metadata("/proc/self").expect("a process").uid() == 0 {
            command.uid(65_534).gid(65_534);
        }
        let output = command.output().expect("a shell");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn plan(io: Option<Io>, shards: usize) -> Result<Plan, HostError> {
    host::plan(&Wanted { io, shards: Some(shards), max_conns: Some(100), ..Wanted::default() })
}

fn with_limit(limit: &str) {
    let alone = plan(None, 1).expect("one shard or the other way");
    let many = plan(None, 64).expect("64 shards or the other way");
    if many.io == Io::Uring {
        // Linux before 6.14.
        return println!("not here: rings need no locked memory");
    }
    assert_eq!(many.io, Io::Epoll, "{}", many.io_reason);
    match limit {
        // The smallest ring needs more.
        "0" => assert_eq!(alone.io, Io::Epoll),
        // One ring needs about 130 KiB.
        _ => assert_eq!(alone.io, Io::Uring, "{}", alone.io_reason),
    }
    for reason in [&many.io_reason, &plan(Some(Io::Uring), 64).expect_err("no room").to_string()] {
        assert!(reason.starts_with("no room for "), "{reason}");
        assert!(reason.contains("'ulimit -l'"), "{reason}");
    }
    for _ in 0..many.shards {
        let config = RingConfig { io: many.io, max_conns: 100, ..RingConfig::default() };
        KernelRing::new(config).expect("planned");
    }
    // The kernel frees the ring of the probe a little later; a new ring must be possible
    // nevertheless.
    let config = RingConfig { io: alone.io, max_conns: 100, ..RingConfig::default() };
    KernelRing::new(config).expect("planned");
    println!("{limit} KiB: {}", many.io_reason);
}
