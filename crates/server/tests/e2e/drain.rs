//! The end of the process, when it is asked to end.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::server::{CLOSE, Server, TEXT, frame};

/// On SIGTERM and on SIGINT: no new connections, 1001 to every WebSocket, exit 0 in time.
#[test]
fn a_signal_drains() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&["--drain-timeout=1"]);
        let mut sockets: Vec<_> = (0..50).map(|_| server.raw_websocket("/echo")).collect();
        let mut resting = server.connect();
        assert_eq!(resting.get("/healthz").status, 200);
        assert_eq!(server.admin("/healthz").status, 200);

        let start = Instant::now();
        server.signal(signal);
        thread::sleep(Duration::from_millis(200));
        assert_eq!(server.admin("/healthz").status, 503);
        assert!(TcpStream::connect(server.data).is_err(), "it still listens");
        for socket in &mut sockets {
            let goodbye = socket.bytes(4);
            assert_eq!((goodbye[0], &goodbye[2..]), (CLOSE, &1001u16.to_be_bytes()[..]));
            socket.send(&frame(CLOSE, &1001u16.to_be_bytes()));
        }
        assert!(resting.rest().is_empty());
        drop((sockets, resting));
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(log.iter().any(|line| line.contains("draining") && line.contains(signal.as_str())));
    }
}

/// What was sent before the signal is still answered in full.
#[test]
fn answers_are_finished() {
    let server = Server::start(&["--drain-timeout=1"]);
    let mut client = server.connect();
    let mut echo = server.raw_websocket("/echo");
    client.send(&b"GET /?length=10240 HTTP/1.1\r\nHost: m\r\n\r\n".repeat(10));
    echo.send(&frame(TEXT, b"last words"));
    thread::sleep(Duration::from_millis(100));
    server.signal(Signal::SIGTERM);
    for _ in 0..10 {
        assert_eq!(client.answer().body.len(), 10_240);
    }
    assert_eq!(echo.bytes(12), b"\x81\x0alast words");
    drop((client, echo));
    assert_eq!(server.end().0.code(), Some(0));
}

/// Clients that do not go cannot hold the process: it ends in time all the same.
#[test]
fn stubborn_clients_do_not_hold_the_process() {
    let server = Server::start(&["--drain-timeout=0.2"]);
    let stubborn: Vec<_> = (0..10).map(|_| server.raw_websocket("/echo")).collect();
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    drop(stubborn);
}

/// A second signal ends the process at once.
#[test]
fn a_second_signal_does_not_wait() {
    let server = Server::start(&["--drain-timeout=60"]);
    let _open = server.raw_websocket("/echo");
    server.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(log.last().is_some_and(|line| line.contains("second signal")), "{log:?}");
}
