//! Tests of admission: new connections while memory is short, and many at once.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::server::{Server, murre};

/// The available bytes of the bound with the least available memory.
fn available(stats: &Value) -> u64 {
    let bounds = stats["admission"]["memory"].as_array().expect("a list");
    bounds
        .iter()
        .map(|left| left["available_bytes"].as_u64().expect("a number"))
        .min()
        .expect("one")
}

fn is(admission: &'static str) -> impl Fn(&Value) -> bool {
    move |stats| stats["admission"]["admission"] == admission
}

/// Below the floor, new connections get 503 with a time to come back, `/healthz` on the data port
/// answers 503, and the admin port still reports a healthy process.
#[test]
fn short_of_memory_nobody_is_let_in() {
    let left = available(&Server::start(&[]).stats());
    let floor = format!("--memory-floor-bytes={}", left + left / 2);
    let server = Server::start(&["--retry-after=9", &floor]);
    let handshake = "GET /echo HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for request in ["GET / HTTP/1.1\r\nHost: m\r\n\r\n", handshake] {
        let mut client = server.connect();
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
        let retry: u32 = answer.header("retry-after").and_then(|s| s.parse().ok()).expect("a hint");
        assert!((1..=9).contains(&retry), "{retry}");
        assert!(client.rest().is_empty());
    }
    assert_eq!(server.connect().get("/healthz").status, 503);
    assert_eq!((server.admin("/healthz").status, server.admin("/readyz").status), (200, 503));
    server.wait_until("counted", |stats| stats["closed"]["overloaded"] == 3);
    let stats = server.stats();
    assert!(is("refuse")(&stats) && stats["admission"]["closings"] == 1, "{stats:#}");
    let metrics = server.admin("/metrics");
    assert!(metrics.text().contains("\nmurre_admission_open 0\n"), "{}", metrics.text());
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    let told = log.iter().filter(|line| line.contains("memory is short")).count();
    assert_eq!(told, 1, "{log:?}");
}

/// Below half of the floor, new connections wait in the backlog.
#[test]
fn very_short_of_memory_they_wait() {
    let server = Server::start(&[&format!("--memory-floor-bytes={}", u64::MAX)]);
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n");
    client.0.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let nothing = client.0.read(&mut [0]).expect_err("nobody answers");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let stats = server.stats();
    assert!(is("wait")(&stats) && stats["total"]["connections_accepted"] == 0, "{stats:#}");
    assert_eq!(server.admin("/healthz").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0.code(), Some(0));
}

/// Many connections at once are accepted at the configured rate, and all are served in the end.
#[test]
fn a_crowd_waits_its_turn() {
    let server = Server::start(&["--max-accepts-per-second=50", "--shards=2"]);
    let start = Instant::now();
    let mut crowd: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/").status, 200);
    }
    // Each shard may accept 4 connections at once: those of a tenth of a second, rounded up, and
    // one that is due.
    assert!(start.elapsed() > Duration::from_millis((40 - 2 * 4) * 20), "{:?}", start.elapsed());
    assert!(server.stats()["total"]["accepts_paced"].as_u64() > Some(0));
}

/// A control group for a test. The group and its processes are removed when it is dropped.
struct Group(PathBuf);

impl Group {
    /// A group with a limit of `bytes`; `None` if the machine does not allow a group with a memory
    /// limit.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("murre-test-{}-{bytes}", std::process::id());
        let versions =
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        versions.into_iter().find_map(|(mount, limit)| {
            // The mount point may be an ordinary folder without a control group file system.
            let is_mounted = Path::new(mount).join("cgroup.procs").exists();
            let group = Path::new(mount).join(&name);
            fs::create_dir(is_mounted.then_some(&group)?).ok()?;
            let group = Group(group);
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// A command that runs its arguments as another command in this group.
    fn command(&self) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.0);
        shell
    }

    /// A process that takes `bytes` bytes of the group until it is killed. `tail` keeps all that it
    /// has read, because nobody reads its output.
    fn fill(&self, bytes: u64) -> Child {
        let fill = format!("head -c {bytes} /dev/zero | tail -c {bytes}");
        let mut command = self.command();
        command.args(["sh", "-c", &fill]).stdout(Stdio::piped());
        command.spawn().expect("a shell")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let start = Instant::now();
        // The processes of the group may need a moment to end.
        while fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Admission closes when the control group is full and opens when it has room again; open
/// connections stay.
#[test]
fn a_full_control_group_closes_admission() {
    let bytes = 256 << 20;
    let Some(group) = Group::new(bytes) else {
        eprintln!("SKIPPED: no control group can be made here that bounds memory");
        return;
    };
    let mut command = group.command();
    command.arg(murre().get_program()).args([
        "serve",
        "--bench",
        "--drain-timeout=0.2",
        "--max-conns=100",
    ]);
    let server = Server::spawn(&mut command);
    assert!(available(&server.stats()) < bytes, "{:#}", server.stats());
    let mut there = server.connect();
    assert_eq!(there.get("/").status, 200);
    let mut poller = server.connect();
    assert_eq!(poller.get("/poll?channel=a").status, 400, "it has no history");

    // The floor is 64 MiB, because a twentieth of the group is less.
    let mut hog = group.fill(available(&server.stats()) - (48 << 20));
    server.wait_until("full", |stats| !is("open")(stats));
    assert_eq!(there.get("/").status, 200);
    server.wait_until("refusing", is("refuse"));
    assert_eq!(there.get("/healthz").status, 503);
    // A new session on a kept connection is refused, too: a proxy would begin it for a new client.
    assert_eq!(poller.get("/poll?channel=a").status, 503);
    assert_eq!(server.connect().get("/").status, 503);

    hog.kill().expect("it runs");
    hog.wait().expect("it is ours");
    // Its stdout is closed now, so `tail` ends as well.
    drop(hog);
    server.wait_until("open again", is("open"));
    assert_eq!(server.connect().get("/").status, 200);
    assert_eq!(there.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("admission is open again")), "{log:?}");
}

/// A server in a small control group accepts connections, because the default floor is a part of
/// the group.
#[test]
fn a_small_control_group_is_served() {
    let Some(group) = Group::new(64 << 20) else {
        eprintln!("SKIPPED: no control group can be made here that bounds memory");
        return;
    };
    let mut command = group.command();
    let flags = ["serve", "--bench", "--max-conns=100", "--shards=1", "--drain-timeout=0.2"];
    let server = Server::spawn(command.arg(murre().get_program()).args(flags));
    assert_eq!(server.connect().get("/").status, 200, "{:#}", server.stats());
}

/// A floor above the whole memory is an error in the log, which names the flag.
#[test]
fn a_floor_that_cannot_be_reached_is_told() {
    let server = Server::start(&[&format!("--memory-floor-bytes={}", u64::MAX)]);
    server.signal(Signal::SIGTERM);
    let log = server.end().1;
    let errors: Vec<_> = log.iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
    assert!(!errors.is_empty(), "{log:?}");
    assert!(errors.iter().all(|line| line.contains("--memory-floor-bytes")), "{errors:?}");
}
