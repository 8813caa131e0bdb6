use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::Bytes;
use nix::sys::socket::{MsgFlags, send};

use super::*;
use crate::listener::Listener;
use crate::ring::config::Io;
use crate::ring::interface::Ring;
use crate::ring::kernel::{Backend, KernelRing};
use crate::ring::operation::SendData;
use crate::ring::tests::{PATIENCE, next_completion};

const BUFFER_BYTES: u32 = 8;

fn ring(listeners: Vec<Listener>) -> KernelRing {
    let config = RingConfig {
        io: Io::Epoll,
        listeners,
        buffer_bytes: BUFFER_BYTES,
        ..RingConfig::default()
    };
    KernelRing::new(config).expect("a ring")
}

fn epoll(ring: &mut KernelRing) -> &mut Epoll {
    match ring {
        KernelRing(Backend::Epoll(epoll)) => epoll,
        KernelRing(Backend::Uring(_)) => unreachable!("made as an Epoll"),
    }
}

/// A ring with one connection, which it has opened.
struct Near {
    ring: KernelRing,
    socket: Socket,
}

const ID: ConnId = ConnId::new(7, 1);

impl Near {
    /// With the other end of the connection.
    fn pair() -> (Self, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("bound");
        let mut ring = ring(Vec::new());
        let socket = ring.open(ID, to, None).expect("a socket");
        ring.push(Op::Connect(socket, to), Token { kind: OpKind::Connect, id: ID });
        assert_eq!(next_completion(&mut ring).result, Ok(0));
        (Near { ring, socket }, listener.accept().expect("a connection").0)
    }

    /// Waits until the socket has what `flags` say, without the ring.
    fn wait_for(&self, flags: EpollFlags) {
        let watched = epoll::Epoll::new(EpollCreateFlags::empty()).expect("a descriptor");
        // SAFETY: the socket is open as long as `self`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.socket.0 as RawFd) };
        watched.add(fd, EpollEvent::new(flags, 0)).expect("a socket");
        let timeout = EpollTimeout::try_from(PATIENCE).expect("short");
        let seen = watched.wait(&mut [EpollEvent::empty()], timeout);
        assert_eq!(seen, Ok(1), "no {flags:?}");
    }

    fn poll(&mut self) {
        self.ring.push(Op::Poll(self.socket), Token { kind: OpKind::Poll, id: ID });
    }

    fn is_ready(&mut self) {
        assert_eq!(next_completion(&mut self.ring).token.kind, OpKind::Poll);
    }

    fn is_not_ready(&mut self) {
        // Each turn may be one that does not wait for events.
        for _ in 0..=TURNS_WITHOUT_WAIT_MAX {
            self.ring.submit_and_wait(Some(Duration::ZERO)).expect("a working ring");
        }
        assert!(self.ring.pop().is_none());
    }

    fn receive(&mut self) -> Result<Vec<u8>, Errno> {
        let lease = self.ring.lease().expect("a buffer");
        self.ring.push(Op::Recv(self.socket, lease), Token { kind: OpKind::Recv, id: ID });
        let Completion { result, lent: Lent::Buffer(lease), .. } = next_completion(&mut self.ring)
        else {
            panic!("a receive gives its buffer back");
        };
        let bytes = result.map(|len| self.ring.buffer(&lease)[..len as usize].to_vec());
        self.ring.give_back(lease);
        bytes.map_err(Errno::from_raw)
    }

    fn send(&mut self, bytes: &Bytes, at: u32) {
        let op = Op::Send { socket: self.socket, data: SendData::Shared(bytes.clone()), at };
        self.ring.push(op, Token { kind: OpKind::Send, id: ID });
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.ring.push(Op::Close(self.socket), Token { kind: OpKind::Close, id: ID });
        let _ = self.ring.submit_and_wait(Some(Duration::ZERO));
    }
}

/// A socket with unread bytes is ready at every poll, although the kernel reports one edge; an empty
/// socket is not ready until more bytes arrive.
#[test]
fn what_an_edge_said_is_remembered_until_it_is_over() {
    let (mut near, mut far) = Near::pair();
    near.poll();
    near.is_not_ready();
    far.write_all(b"12345678").expect("room");
    near.is_ready();
    // A receive that fills its buffer does not empty the socket.
    assert_eq!(near.receive().expect("bytes"), b"12345678");
    near.poll();
    near.is_ready();
    assert_eq!(near.receive(), Err(Errno::EAGAIN));
    near.poll();
    near.is_not_ready();
    far.write_all(b"9").expect("room");
    near.is_ready();
    assert_eq!(near.receive().expect("bytes"), b"9");
    // Bytes that arrive while no poll is in flight.
    far.write_all(b"10").expect("room");
    near.wait_for(EpollFlags::EPOLLIN);
    near.is_not_ready();
    near.poll();
    near.is_ready();
}

/// A FIN that shares an edge with the bytes before it is found after those, and at every later receive.
#[test]
fn a_fin_behind_bytes_is_found() {
    let (mut near, mut far) = Near::pair();
    far.write_all(b"last").expect("room");
    far.shutdown(Shutdown::Write).expect("open");
    near.wait_for(EpollFlags::EPOLLRDHUP);
    for expected in [&b"last"[..], b"", b""] {
        near.poll();
        near.is_ready();
        assert_eq!(near.receive().expect("bytes"), expected);
    }
}

/// A reset completes the poll, and then fails the receive.
#[test]
fn a_reset_is_told() {
    let (mut near, far) = Near::pair();
    near.poll();
    near.is_not_ready();
    socket::setsockopt(&far, socket::sockopt::Linger, &sockets::RESET).expect("a socket");
    drop(far);
    near.is_ready();
    assert_eq!(near.receive(), Err(Errno::ECONNRESET));
}

/// A receive stops before urgent data (`MSG_OOB`), and the bytes behind that are found without an edge.
#[test]
fn urgent_data_holds_nothing_up() {
    let (mut near, mut far) = Near::pair();
    far.write_all(b"before").expect("room");
    send(far.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("room");
    far.write_all(b"behind").expect("room");
    near.wait_for(EpollFlags::EPOLLPRI);
    let mut heard = Vec::new();
    while heard.len() < 12 {
        near.poll();
        near.is_ready();
        heard.extend(near.receive().unwrap_or_default());
    }
    assert_eq!(heard, b"beforebehind");
}

/// A send that finds no room waits until the peer reads, and ends when the socket is shut down.
#[test]
fn a_send_waits_for_room() {
    let (mut near, mut far) = Near::pair();
    let bytes = Bytes::from(vec![1; 64 << 20]);
    let mut sent = 0;
    let fill = |near: &mut Near, sent: &mut u32| {
        while epoll(&mut near.ring).blocked.is_empty() {
            near.send(&bytes, *sent);
            epoll(&mut near.ring).run_pushed();
            if let Some(completion) = near.ring.pop() {
                *sent += completion.result.expect("room");
            }
        }
    };
    fill(&mut near, &mut sent);
    let mut heard = vec![0; sent as usize];
    far.read_exact(&mut heard).expect("all that was sent");
    sent += next_completion(&mut near.ring).result.expect("room");
    fill(&mut near, &mut sent);
    let shut = near.ring.begin_shutdown(
        near.socket,
        ShutdownHow::Both,
        Token { kind: OpKind::Shutdown, id: ID },
    );
    assert_eq!(shut, ShutdownStatus::Done);
    assert_eq!(next_completion(&mut near.ring).result, Err(Errno::EPIPE as i32));
}

/// Rings that share a listener each accept as many connections as they have accepts in flight, and leave
/// the others to each other.
#[test]
fn a_ring_leaves_what_it_has_no_accepts_for() {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
    let to = listener.address().expect("bound");
    let mut rings = [ring(vec![listener.clone()]), ring(vec![listener.clone()])];
    for (ring, accepts) in rings.iter_mut().zip([2, 3]) {
        for index in 0..accepts {
            let id = ConnId::new(index, 1);
            ring.push(Op::Accept, Token { kind: OpKind::Accept, id });
        }
        ring.submit_and_wait(Some(Duration::ZERO)).expect("a working ring");
    }
    let held: Vec<TcpStream> = (0..6).map(|_| TcpStream::connect(to).expect("room")).collect();
    for (ring, accepts) in rings.iter_mut().zip([2, 3]) {
        for index in 0..accepts {
            let Completion { token, result, .. } = next_completion(ring);
            assert_eq!((token.kind, token.id.index()), (OpKind::Accept, index));
            unistd::close(result.expect("a socket") as RawFd).expect("open");
        }
        ring.submit_and_wait(Some(Duration::ZERO)).expect("a working ring");
        assert!(ring.pop().is_none() && !epoll(ring).acceptors[0].watched);
    }
    // The last connection goes to the next accept, and then there are no more.
    rings[0].push(Op::Accept, Token { kind: OpKind::Accept, id: ConnId::new(0, 2) });
    unistd::close(next_completion(&mut rings[0]).result.expect("a socket") as RawFd).expect("open");
    rings[1].push(Op::Accept, Token { kind: OpKind::Accept, id: ConnId::new(1, 2) });
    rings[1].submit_and_wait(Some(Duration::ZERO)).expect("a working ring");
    rings[0].stop_listening();
    assert_eq!(next_completion(&mut rings[1]).result, Err(Errno::EINVAL as i32));
    drop(held);
}
