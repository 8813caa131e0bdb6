//! Tests of signals without effect, doubled signals, the drain delay, and the pinning of shards.

use std::fs;
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::{CLOSE, PATIENCE, Server, TEXT, frame, murre};

/// SIGHUP, SIGUSR1 and SIGUSR2 are logged and change nothing, before the drain and during it.
#[test]
fn other_signals_change_nothing() {
    let server = Server::start(&["--drain-timeout=0.2", "--drain-delay=0.5"]);
    let mut echo = server.raw_websocket("/echo");
    let others = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    for signal in others {
        server.signal(signal);
        echo.send(&frame(TEXT, b"still here"));
        assert_eq!(echo.bytes(12), b"\x81\x0astill here");
        assert_eq!(server.admin("/healthz").status, 200);
    }
    server.signal(Signal::SIGTERM);
    server.wait_until("draining", |stats| stats["draining"] == true);
    others.into_iter().for_each(|signal| server.signal(signal));
    assert_eq!(echo.bytes(1), [CLOSE]);
    drop(echo);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    for signal in others {
        let told = log.iter().filter(|line| line.contains(signal.as_str()));
        assert_eq!(told.filter(|line| line.contains("ignored")).count(), 2, "{signal}: {log:?}");
    }
}

/// A server that gets SIGTERM while it starts ends, whenever the signal comes.
#[test]
fn a_signal_during_the_start_is_not_lost() {
    for milliseconds in [0, 1, 2, 5, 10, 20, 50, 100] {
        let mut command = murre();
        command.args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::null()).spawn().expect("the binary starts");
        thread::sleep(Duration::from_millis(milliseconds));
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it is not waited for");
        let began = Instant::now();
        while child.try_wait().expect("it is ours").is_none() {
            if began.elapsed() > PATIENCE {
                child.kill().expect("it is ours");
                panic!("it runs on after a signal {milliseconds} ms after its start");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A doubled SIGTERM, as timeout(1) sends it, counts as one, and the drain runs to its end.
#[test]
fn a_doubled_signal_drains() {
    let server = Server::start(&["--drain-timeout=0.5"]);
    let mut echo = server.raw_websocket("/echo");
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGINT);
    assert_eq!(echo.bytes(1), [CLOSE]);
    drop(echo);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
}

/// From the signal to the end of `--drain-delay`, readiness checks fail on both ports, but the process
/// is alive, and new connections and WebSockets are served. Then the listener closes.
#[test]
fn health_fails_before_the_listener_closes() {
    for io in ["--io=auto", "--io=epoll"] {
        let server = Server::start(&["--drain-delay=3", "--drain-timeout=0.5", "--shards=2", io]);
        let mut early = server.raw_websocket("/echo");
        assert_eq!(server.connect().get("/healthz").status, 200);
        let signalled = Instant::now();
        server.signal(Signal::SIGTERM);
        server.wait_until("draining", |stats| stats["draining"] == true);
        assert_eq!(server.admin("/readyz").status, 503);
        assert_eq!(server.admin("/healthz").status, 200, "it is alive");
        // The shards learn of the signal by mail, so the test waits for each.
        for _ in 0..20 {
            while server.connect().get("/healthz").status != 503 {
                assert!(signalled.elapsed() < PATIENCE, "healthy");
            }
        }
        assert_eq!(server.upgrade("/healthz").1.status, 503);
        let mut late = server.raw_websocket("/echo");
        let in_time = signalled.elapsed() < Duration::from_secs(3);
        for socket in [&mut early, &mut late] {
            socket.send(&frame(TEXT, b"hello"));
            let answer = socket.bytes(7);
            // On a machine that stalled, the delay may be over.
            assert!(answer == b"\x81\x05hello" || !in_time, "{answer:?}");
        }
        let closed = loop {
            if TcpStream::connect(server.data).is_err() {
                break signalled.elapsed();
            }
            assert!(signalled.elapsed() < PATIENCE, "it still listens");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(closed >= Duration::from_secs(3), "closed after {closed:?}");
        drop((early, late));
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
    }
}

/// The cores that each shard's thread may run on, from `/proc`.
fn cores_of_shards(server: &Server) -> Vec<String> {
    let folder = format!("/proc/{}/task", server.id());
    let mut shards: Vec<(String, String)> = fs::read_dir(folder)
        .expect("it runs")
        .map(|thread| thread.expect("a thread").path())
        .map(|thread| {
            let name = fs::read_to_string(thread.join("comm")).expect("a name");
            let status = fs::read_to_string(thread.join("status")).expect("a status");
            let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            (name.trim().to_owned(), allowed.expect("a list").trim().to_owned())
        })
        .filter(|(name, _)| name.starts_with("shard-"))
        .collect();
    shards.sort();
    shards.into_iter().map(|(_, allowed)| allowed).collect()
}

/// With `auto`, shards are pinned only if they take all cores, because servers with fewer shards
/// would share the first cores. Flags force or forbid it.
#[test]
fn shards_are_pinned_by_choice() {
    let cores = thread::available_parallelism().expect("some").get();
    let unpinned = cores_of_shards(&Server::start(&["--pin=never", "--shards=1"])).remove(0);
    let all = format!("--shards={}", 2 * cores);
    for (flags, pinned) in [
        (["--pin=auto", &all], Some(true)),
        (["--pin=always", "--shards=1"], Some(true)),
        (["--pin=never", &all], Some(false)),
        (["--pin=auto", "--shards=1"], (cores > 1).then_some(false)),
    ] {
        let Some(pinned) = pinned else { continue };
        // If a quota of CPU time is in force, `auto` pins nothing.
        let quota = unpinned.contains([',', '-']) && cores == 1;
        let pinned = pinned && !(quota && flags[0] == "--pin=auto");
        let server = Server::start(&flags);
        let shards = cores_of_shards(&server);
        let stats = server.stats();
        for (index, allowed) in shards.iter().enumerate() {
            let shown = &stats["shards"][index]["core"];
            if pinned {
                assert_eq!((allowed, shown.is_u64()), (&shown.to_string(), true), "{flags:?}");
            } else {
                assert_eq!((allowed, shown.is_null()), (&unpinned, true), "{flags:?}");
            }
        }
    }
}
