//! Tests of the admin port.

use std::io::{ErrorKind, Read};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::server::{PATIENCE, Server, TEXT, frame, murre};

/// `/stats` shows the choices of the server with their reasons, and counts events.
#[test]
fn stats_tell_what_happened() {
    let server = Server::start(&["--shards=2"]);
    let mut client = server.connect();
    client.get("/?length=100");
    let mut echo = server.raw_websocket("/echo");
    echo.send(&frame(TEXT, b"one"));
    echo.bytes(5);

    let stats = server.stats();
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    assert!(stats["uptime_seconds"].as_f64().is_some_and(|uptime| uptime > 0.0));
    assert_eq!(stats["io"]["kind"], "uring");
    assert_eq!(stats["descriptors"]["kind"], "normal");
    for choice in ["io", "descriptors"] {
        assert!(stats[choice]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
    assert_eq!(stats["limits"]["max_conns"], 1000);
    assert_eq!(stats["connections"], 2);
    let total = &stats["total"];
    assert_eq!(total["connections_accepted"], 2);
    assert_eq!(total["http_requests"], 2);
    assert_eq!(total["websockets_open"], 1);
    assert_eq!(total["messages_received"], 1);

    let shards = stats["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 2);
    for name in ["connections_accepted", "bytes_received", "bytes_sent"] {
        let sum: u64 = shards.iter().filter_map(|shard| shard["counters"][name].as_u64()).sum();
        assert_eq!(total[name], sum, "{name}");
    }
    drop((client, echo));
    server.wait_until("closed", |stats| stats["closed"]["peer_closed"] == 2);
}

/// Rates follow from samples taken once a second.
#[test]
fn rates_are_per_second() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..25 {
        client.get("/healthz");
        thread::sleep(Duration::from_millis(100));
    }
    let rate = server.stats()["rates"]["http_requests"].clone();
    for span in ["last_second", "last_ten_seconds"] {
        let rate = rate[span].as_f64().expect("a number");
        assert!((5.0..12.0).contains(&rate), "{span}: {rate}");
    }
}

/// `/stats` shows the bytes of a connection by its parts, and the memory of the process.
#[test]
fn memory_is_told_by_kind() {
    let server = Server::start(&[]);
    let _sockets: Vec<_> = (0..10).map(|_| server.raw_websocket("/echo")).collect();
    let memory = &server.stats()["memory"];
    let bytes = |key: &str| memory["bytes_per_connection"][key].as_u64().expect("a number");
    let parts = ["conn", "timer", "ring", "protocol"];
    assert_eq!(parts.map(bytes).iter().sum::<u64>(), bytes("sum"));
    assert!(bytes("sum") <= 96, "an idle connection takes {} bytes", bytes("sum"));
    let pss = memory["process"]["pss_bytes"].as_f64().expect("a number");
    assert!(pss > 100_000.0);
    assert_eq!(memory["pss_bytes_per_open"].as_f64(), Some(pss / 10.0));
}

/// `/metrics` has the text format of Prometheus: families with types, and one sample for each
/// shard.
#[test]
fn metrics_are_prometheus_text() {
    let server = Server::start(&["--shards=2"]);
    let mut client = server.connect();
    client.get("/healthz");
    let answer = server.admin("/metrics");
    let content_type = answer.header("content-type").expect("a type");
    assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
    let text = answer.text();
    let sum = |name: &str| -> u64 {
        let samples = text.lines().filter(|line| line.starts_with(&format!("{name}{{shard=")));
        samples.map(|line| line.rsplit(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0)).sum()
    };
    assert!(text.contains("# TYPE murre_connections_open gauge\n"), "{text}");
    assert!(text.contains("# TYPE murre_http_requests counter\n"), "{text}");
    assert_eq!(sum("murre_connections_open"), 1);
    assert_eq!(sum("murre_http_requests_total"), 1);
    assert!(
        text.contains("murre_connections_closed_total{shard=\"1\",reason=\"slow_consumer\"} 0\n")
    );
    assert!(text.ends_with("# EOF\n"));
}

/// The admin port has its own `/healthz`, and serves no paths of the data port.
#[test]
fn the_admin_port_is_its_own() {
    let server = Server::start(&[]);
    let health = server.admin("/healthz");
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    assert_eq!(server.connect().get("/stats").status, 404);
}

/// The admin port serves 64 connections at a time, and the next one when another has ended.
#[test]
fn connections_of_the_admin_port_are_bounded() {
    let server = Server::start(&[]);
    let mut held: Vec<_> = (0..64).map(|_| server.admin_connection()).collect();
    for client in &mut held {
        assert_eq!(client.get("/healthz").status, 200);
    }
    let mut next = server.admin_connection();
    next.send(b"GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n");
    next.0.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let nothing = next.0.read(&mut [0]).expect_err("it waits in the backlog");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    next.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    held.pop();
    assert_eq!(next.answer().status, 200);
}

/// Requests with a public name in `Host` are refused on loopback, on every path.
#[test]
fn public_names_are_refused_on_loopback() {
    let server = Server::start(&[]);
    for path in ["/stats", "/metrics", "/healthz", "/api/channels", "/api/openapi.json", "/nothing"]
    {
        let status = |host: &str| {
            let mut client = server.admin_connection();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            client.answer().status
        };
        assert_eq!(status("rebound.example:8001"), 421, "{path}");
        assert_ne!(status("127.0.0.1:8001"), 421, "{path}");
    }
}

/// An IPv4-mapped loopback address counts as loopback.
#[test]
fn an_admin_port_on_mapped_loopback() {
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--drain-timeout=0.1"]);
    let server = Server::spawn_with_admin("[::ffff:127.0.0.1]:0", &mut command);
    let mut client = server.admin_connection();
    client.send(b"GET /stats HTTP/1.1\r\nHost: rebound.example\r\n\r\n");
    assert_eq!(client.answer().status, 421);
    server.signal(Signal::SIGTERM);
    let (_, log) = server.end();
    assert!(!log.iter().any(|line| line.contains("not on loopback")), "{log:?}");
}

/// An admin port that is not on loopback accepts any name in `Host`, and the log has a warning
/// about it.
#[test]
fn an_admin_port_for_other_machines() {
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--drain-timeout=0.1"]);
    let server = Server::spawn_with_admin("0.0.0.0:0", &mut command);
    let mut client = server.admin_connection();
    client.send(b"GET /healthz HTTP/1.1\r\nHost: murre.example\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    server.signal(Signal::SIGTERM);
    let (_, log) = server.end();
    assert!(log.iter().any(|line| line.contains("the admin port is not on loopback")), "{log:?}");
}
