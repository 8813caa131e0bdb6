//! Tests of peers that send nothing, stop reading or vanish: the server frees their connections.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::server::{Client, PING, Server, frame, murre};

/// A connection without a whole request is closed after the handshake timeout, even if bytes arrive
/// slowly. If any byte has arrived, the client gets 408.
#[test]
fn a_request_must_come_in_time() {
    let server = Server::start(&["--handshake-timeout=0.4"]);
    let mut silent = server.connect();
    let mut slow = server.connect();
    let start = Instant::now();
    for byte in b"GET /healthz HTTP/1.1\r\n" {
        slow.send(&[*byte]);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(slow.answer().status, 408);
    assert!(slow.rest().is_empty());
    assert!(silent.rest().is_empty());
    let waited = start.elapsed();
    drop((slow, silent));
    assert!(waited >= Duration::from_millis(350), "too early: {waited:?}");
    server.wait_until("counted", |stats| stats["closed"]["handshake_timeout"] == 2);
}

/// Idle time of the server does not count against later clients: the first client after a pause is
/// served.
#[test]
fn a_pause_is_not_held_against_who_comes_after() {
    let server = Server::start(&["--handshake-timeout=0.3", "--http-idle-timeout=0.3"]);
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(1000));
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/healthz").status, 200);
        }
    }
}

/// An HTTP connection that is idle for too long between requests is closed; a busy one is not.
#[test]
fn resting_connections_end() {
    let server = Server::start(&["--http-idle-timeout=0.5"]);
    let (mut resting, mut busy) = (server.connect(), server.connect());
    assert_eq!(resting.get("/healthz").status, 200);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(busy.get("/healthz").status, 200);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(resting.rest().is_empty());
    drop(resting);
    server.wait_until("counted", |stats| stats["closed"]["idle_timeout"] == 1);
    assert_eq!(busy.get("/healthz").status, 200);
}

/// A silent WebSocket is pinged. A client that answers stays, and one that does not is closed, as
/// for a peer whose machine vanished.
#[test]
fn a_silent_websocket_must_answer_pings() {
    let server = Server::start(&["--ping-interval=0.3", "--pong-timeout=0.3"]);
    let vanished = server.raw_websocket("/echo");
    let mut alive = server.raw_websocket("/echo");
    for _ in 0..4 {
        assert_eq!(alive.bytes(2), [PING, 0]);
        alive.send(&frame(0x8a, b""));
    }
    server.wait_until("reclaimed", |stats| stats["closed"]["idle_timeout"] == 1);
    assert_eq!(server.stats()["total"]["websockets_open"], 1);
    drop(vanished);
}

/// A connection that is reset is freed, also in the middle of a message.
#[test]
fn a_reset_is_noticed() {
    let server = Server::start(&[]);
    let reset = |client: Client| {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client.0, sockopt::Linger, &linger).expect("linger");
    };
    reset(server.connect());
    let mut client = server.raw_websocket("/echo");
    client.send(&frame(0x01, b"the rest never comes"));
    reset(client);
    server.wait_until("reclaimed", |stats| stats["closed"]["peer_reset"] == 2);
    assert_eq!(server.stats()["connections"], 0);
}

/// A connection that the server closes is freed after a while, even if the peer reads nothing and
/// never closes.
#[test]
fn a_peer_that_never_closes_is_given_up() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(b"nonsense\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    // The client keeps its side of the connection open.
    server.wait_until("given up", |stats| stats["connections"] == 0);
    drop(client);
}

/// While the server is full, new connections wait; they are served when others end.
#[test]
fn connections_wait_for_a_place() {
    let server = Server::spawn(murre().args(["serve", "--max-conns=2", "--shards=1"]));
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!(first.get("/healthz").status, 200);
    assert_eq!(second.get("/healthz").status, 200);
    let mut third = server.connect();
    third.send(b"GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(server.stats()["total"]["connections_accepted"], 2);
    drop(first);
    assert_eq!(third.answer().status, 200);
    assert_eq!(second.get("/healthz").status, 200);
}
