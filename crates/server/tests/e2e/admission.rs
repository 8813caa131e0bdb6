//! Who is let in when there is little memory, or a crowd.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::server::{Server, murre};

/// Memory that is left of what has least.
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

/// Short of memory, by a floor above what there is: who comes is told so and when to come back,
/// load balancers are told to send nobody, and the process is as healthy as before.
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
    assert_eq!(server.admin("/healthz").status, 200);
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

/// Very short of memory they wait in the backlog.
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

/// A crowd is let in as fast as is allowed, and everybody in the end.
#[test]
fn a_crowd_waits_its_turn() {
    let server = Server::start(&["--max-accepts-per-second=50", "--shards=2"]);
    let start = Instant::now();
    let mut crowd: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/").status, 200);
    }
    // Each shard may take 4 at once: what it may in a tenth of a second, and one that is due.
    assert!(start.elapsed() > Duration::from_millis((40 - 2 * 4) * 20), "{:?}", start.elapsed());
    assert!(server.stats()["total"]["accepts_paced"].as_u64() > Some(0));
}

/// A control group for a test. Removed when dropped, with what runs in it.
struct Group(PathBuf);

impl Group {
    /// With this bound; `None` where this machine lets us make none that bounds memory.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("murre-test-{}-{bytes}", std::process::id());
        let versions =
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        versions.into_iter().find_map(|(mount, limit)| {
            // It may be a folder like any other.
            let is_mounted = Path::new(mount).join("cgroup.procs").exists();
            let group = Path::new(mount).join(&name);
            fs::create_dir(is_mounted.then_some(&group)?).ok()?;
            let group = Group(group);
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// A command whose arguments are one that runs in this group.
    fn command(&self) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.0);
        shell
    }

    /// Something that takes so many bytes of it until it is killed: `tail` keeps what it has read,
    /// as nobody takes it.
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
        // Those who were in it may take a moment to be gone.
        while fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A control group's limit is watched, as it fills and empties, and who is connected stays.
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

    // The floor is 64 MiB: a twentieth would be less.
    let mut hog = group.fill(available(&server.stats()) - (48 << 20));
    server.wait_until("full", |stats| !is("open")(stats));
    assert_eq!(there.get("/").status, 200);
    server.wait_until("refusing", is("refuse"));
    assert_eq!(there.get("/healthz").status, 503);
    // A session, which the kept connection of a proxy would begin for a new client.
    assert_eq!(poller.get("/poll?channel=a").status, 503);
    assert_eq!(server.connect().get("/").status, 503);

    hog.kill().expect("it runs");
    hog.wait().expect("it is ours");
    // Its stdout is read by nobody any more, so `tail` ends as well.
    drop(hog);
    server.wait_until("open again", is("open"));
    assert_eq!(server.connect().get("/").status, 200);
    assert_eq!(there.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("admission is open again")), "{log:?}");
}

/// A small control group serves as a large one does: the default floor is a part of it.
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

/// A floor above all the memory there is is an error in the log that names the flag.
#[test]
fn a_floor_that_cannot_be_reached_is_told() {
    let server = Server::start(&[&format!("--memory-floor-bytes={}", u64::MAX)]);
    server.signal(Signal::SIGTERM);
    let log = server.end().1;
    let errors: Vec<_> = log.iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
    assert!(!errors.is_empty(), "{log:?}");
    assert!(errors.iter().all(|line| line.contains("--memory-floor-bytes")), "{errors:?}");
}
