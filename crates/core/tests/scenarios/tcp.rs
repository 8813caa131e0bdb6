//! Peers on loopback.

use std::io::{ErrorKind, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use murre_core::ring::sim::{Peer, Read};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::network::Network;

/// TCP connections to a shard that listens at one address.
pub(crate) struct TcpNet {
    address: SocketAddr,
    /// The streams, by peer; `None` once closed.
    streams: Vec<Option<TcpStream>>,
    until: Instant,
    /// The listener for outgoing connections of the shard.
    door: TcpListener,
}

impl TcpNet {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let door = TcpListener::bind("127.0.0.1:0").expect("a port");
        door.set_nonblocking(true).expect("a socket");
        TcpNet { address, streams: Vec::new(), until: Instant::now(), door }
    }

    fn add(&mut self, stream: TcpStream) -> Peer {
        stream.set_nonblocking(true).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        self.streams.push(Some(stream));
        Peer::new(self.streams.len() - 1)
    }

    fn stream(&self, peer: Peer) -> Option<&TcpStream> {
        self.streams[peer.index()].as_ref()
    }
}

impl Network for TcpNet {
    fn connect(&mut self) -> Option<Peer> {
        let stream = TcpStream::connect(self.address).ok()?;
        Some(self.add(stream))
    }

    fn connect_from(&mut self, _address: SocketAddr) -> Option<Peer> {
        None
    }

    fn address(&self, peer: Peer) -> SocketAddr {
        let stream = self.stream(peer).expect("it is open");
        stream.local_addr().expect("it has connected")
    }

    fn listens_at(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn listen(&mut self) -> SocketAddr {
        self.door.local_addr().expect("bound")
    }

    fn accept(&mut self) -> Option<Peer> {
        let (stream, _) = self.door.accept().ok()?;
        Some(self.add(stream))
    }

    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize {
        // A broken connection shows at the next read.
        self.stream(peer).map_or(0, |mut stream| stream.write(bytes).unwrap_or(0))
    }

    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read {
        let Some(mut stream) = self.stream(peer) else { return Read::Nothing };
        let mut bytes = vec![0; bytes_max];
        match stream.read(&mut bytes) {
            Ok(0) => Read::End,
            Ok(len) => {
                bytes.truncate(len);
                Read::Bytes(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Read::Nothing,
            Err(_) => Read::Reset,
        }
    }

    fn half_close(&mut self, peer: Peer) {
        // A broken connection shows at the next read.
        let _ = self.stream(peer).map(|stream| stream.shutdown(Shutdown::Write));
    }

    fn close(&mut self, peer: Peer) {
        self.streams[peer.index()] = None;
    }

    fn reset(&mut self, peer: Peer) {
        if let Some(stream) = self.streams[peer.index()].take() {
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &reset).expect("a socket");
        }
    }

    fn close_all(&mut self) {
        self.streams.iter_mut().for_each(|stream| *stream = None);
    }

    fn vanish(&mut self, _peer: Peer) {}

    fn come_back(&mut self, _peer: Peer) {}

    fn break_off(&mut self, _peer: Peer) {}

    fn pass(&mut self, span: Duration) {
        self.until = Instant::now() + span;
    }

    fn passed(&self) -> bool {
        Instant::now() >= self.until
    }

    fn suspend(&mut self, span: Duration) {
        std::thread::sleep(span);
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn is_simulated(&self) -> bool {
        false
    }

    fn check_empty(&self) {}

    fn all_ended(&mut self) -> bool {
        (0..self.streams.len()).all(|index| {
            let over = |read| matches!(read, Read::End | Read::Reset);
            self.streams[index].is_none() || over(self.read(Peer::new(index), 1 << 20))
        })
    }
}
