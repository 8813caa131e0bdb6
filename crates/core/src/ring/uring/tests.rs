use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nix::unistd;

use super::*;
use crate::listener::Listener;
use crate::ring::interface::Ring;
use crate::ring::kernel::{Backend, KernelRing};
use crate::ring::probe;
use crate::ring::tests::{PATIENCE, next_completion, token};

/// Rings of every form that works here.
fn rings(listener: Option<&Listener>) -> impl Iterator<Item = KernelRing> {
    [Tier::Deferred, Tier::Cooperative, Tier::Plain]
        .into_iter()
        .filter(|tier| probe::round_trip(*tier).is_ok())
        .map(move |tier| {
            let config = RingConfig {
                listeners: listener.cloned().into_iter().collect(),
                ..RingConfig::default()
            };
            KernelRing(Backend::Uring(Uring::new(tier, config).expect("a ring")))
        })
}

fn uring(ring: &mut KernelRing) -> &mut Uring {
    match ring {
        KernelRing(Backend::Uring(uring)) => uring,
        KernelRing(Backend::Epoll(_)) => unreachable!("made as a Uring"),
    }
}

/// If more operations complete than the completion queue holds, none is lost and no enter fails.
#[test]
fn more_completes_than_the_queue_holds() {
    const OPS: u32 = 3 * CQ_ENTRIES;
    for mut ring in rings(None) {
        for index in 0..OPS {
            // No such descriptor: it fails at once.
            ring.push(Op::Close(Socket(i32::MAX as u32)), token(OpKind::Close, index));
        }
        for _ in 0..10 {
            ring.submit_and_wait(Some(Duration::ZERO)).expect("it is not fatal");
        }
        let mut seen = vec![false; OPS as usize];
        for _ in 0..OPS {
            let Completion { token, result, .. } = next_completion(&mut ring);
            assert_eq!(result, Err(libc::EBADF));
            assert!(
                !std::mem::replace(&mut seen[token.id.index() as usize], true),
                "it completes twice"
            );
        }
    }
}

/// Bytes that set a flag when they are freed.
struct Flagged(Arc<AtomicBool>, Vec<u8>);

impl AsRef<[u8]> for Flagged {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The buffer of a send in flight outlives the ring: the kernel may still read it.
#[test]
fn bytes_in_flight_outlive_the_ring() {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    for mut ring in rings(None) {
        let near = TcpStream::connect(door.local_addr().expect("bound")).expect("it listens");
        let (_far, _) = door.accept().expect("a connection");
        let freed = Arc::new(AtomicBool::new(false));
        // More than the kernel's buffers hold for a peer that does not read.
        let data = Bytes::from_owner(Flagged(Arc::clone(&freed), vec![1; 64 << 20]));
        let socket = Socket(near.as_raw_fd() as u32);
        let mut at = 0;
        while {
            let data = SendData::Shared(data.clone());
            ring.push(Op::Send { socket, data, at }, token(OpKind::Send, 1));
            ring.submit_and_wait(Some(Duration::from_millis(200))).expect("a working ring");
            ring.pop().map(|completion| at += completion.result.expect("room")).is_some()
        } {}
        drop(data);
        assert!(!freed.load(Ordering::Relaxed), "it is in flight");
        drop(ring);
        assert!(!freed.load(Ordering::Relaxed), "the kernel may still read it");
    }
}

/// A ring that ends closes connections in completions that the shard has not read, and leaves later
/// ones to the other rings of the listener.
#[test]
fn what_was_accepted_last_is_closed() {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
    let to = listener.address().expect("bound");
    let mut next = rings(Some(&listener)).next().expect("a ring");
    for mut ring in rings(Some(&listener)) {
        (0..4).for_each(|index| ring.push(Op::Accept, token(OpKind::Accept, index)));
        let mut early: Vec<_> =
            (0..3).map(|_| TcpStream::connect(to).expect("it listens")).collect();
        // They are accepted, and the completions are not read.
        let started = Instant::now();
        while uring(&mut ring).ring.completion().len() < 3 {
            ring.submit_and_wait(Some(Duration::ZERO)).expect("a working ring");
            assert!(started.elapsed() < PATIENCE, "no connection is accepted");
        }
        uring(&mut ring).end_descriptors();
        assert!(uring(&mut ring).accepts.is_empty(), "the fourth accept is still in flight");
        drop(ring);
        for peer in &mut early {
            peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
            assert_eq!(peer.read(&mut [0; 1]).expect("the end"), 0);
        }
        let late = TcpStream::connect(to).expect("it listens");
        next.push(Op::Accept, token(OpKind::Accept, 9));
        let Completion { result, lent: Lent::Peer(peer), .. } = next_completion(&mut next) else {
            panic!("an accept tells of the peer");
        };
        assert_eq!(peer, late.local_addr().expect("connected"));
        unistd::close(result.expect("a socket") as RawFd).expect("open");
    }
}

/// A ring that ends waits for shutdowns of direct descriptors: their completions carry descriptors of
/// the process, and their peers get the FIN.
#[test]
fn shutdowns_in_flight_end_before_the_ring() {
    if let Err(error) = probe::direct_descriptors() {
        return eprintln!("not here: {error}");
    }
    let listener = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
    let to = listener.address().expect("bound");
    let config = RingConfig {
        descriptors: Descriptors::Direct,
        max_conns: 4,
        listeners: vec![listener],
        ..RingConfig::default()
    };
    let mut ring = KernelRing::new(config).expect("a ring");
    ring.push(Op::Accept, token(OpKind::Accept, 2));
    let mut peer = TcpStream::connect(to).expect("it listens");
    assert_eq!(next_completion(&mut ring).result, Ok(2));
    let shutdown = token(OpKind::Shutdown, 2);
    let status = ring.begin_shutdown(Socket(2), ShutdownHow::Write, shutdown);
    assert_eq!(status, ShutdownStatus::Pending);
    uring(&mut ring).end_descriptors();
    assert!(uring(&mut ring).shutdowns.is_empty(), "the shutdown is still in flight");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert_eq!(peer.read(&mut [0; 1]).expect("the end"), 0);
}
