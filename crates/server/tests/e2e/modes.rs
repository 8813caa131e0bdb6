//! Tests of the same traffic on every form of ring and descriptor.

use nix::sys::signal::Signal;

use crate::server::{CLOSE, Server, TEXT, frame};

/// Runs some traffic of every kind on a server with these flags, with connections that open and
/// close.
fn works(flags: &[&str], io: &str, descriptors: &str) {
    let server = Server::start(&[&["--drain-timeout=0.2"], flags].concat());
    assert_eq!(
        (&server.start["io"], &server.start["descriptors"]),
        (&io.into(), &descriptors.into())
    );
    let mut held: Vec<_> = (0..50).map(|_| server.raw_websocket("/upper")).collect();
    for round in 0..3 {
        for client in &mut held {
            client.send(&frame(TEXT, b"murre"));
            assert_eq!(client.bytes(7), b"\x81\x05MURRE");
        }
        for _ in 0..50 {
            let mut client = server.connect();
            assert_eq!(client.get("/?length=5000").body.len(), 5000, "round {round}");
        }
        server.wait_until("reclaimed", |stats| stats["connections"] == 50);
    }
    for client in &mut held {
        client.send(&frame(CLOSE, &1000u16.to_be_bytes()));
        assert_eq!(client.rest(), b"\x88\x02\x03\xe8");
    }
    drop(held);
    server.wait_until("reclaimed", |stats| stats["connections"] == 0);

    let mut last = server.raw_websocket("/echo");
    server.signal(Signal::SIGTERM);
    assert_eq!(last.bytes(4)[2..], 1012u16.to_be_bytes());
    drop(last);
    assert_eq!(server.end().0.code(), Some(0));
}

/// The server works with sockets in the descriptor table of the process.
#[test]
fn normal_descriptors() {
    works(&["--descriptors=normal"], "uring", "normal");
}

/// The server works with sockets in the tables of the rings.
#[test]
fn direct_descriptors() {
    works(&["--descriptors=direct"], "uring", "direct");
}

/// The server works with only the io_uring features of Linux 5.10.
#[test]
fn plain_uring() {
    works(&["--io=uring-plain"], "uring-plain", "normal");
}

/// The server works without io_uring.
#[test]
fn epoll() {
    works(&["--io=epoll"], "epoll", "normal");
}

/// The server works with more shards than cores.
#[test]
fn many_shards() {
    works(&["--shards=7"], "uring", "normal");
    works(&["--shards=5", "--descriptors=direct"], "uring", "direct");
    works(&["--shards=7", "--io=epoll"], "epoll", "normal");
}
