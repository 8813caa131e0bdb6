//! The network between a shard and its peers: in memory, or over loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use murre_core::ring::sim::{Peer, Read, SimNet};
use nix::errno::Errno;

/// The peers' side of the network: in memory, or over loopback.
pub(crate) trait Network {
    fn connect(&mut self) -> Option<Peer>;
    /// Connects from the given address, if the network allows the choice.
    fn connect_from(&mut self, address: SocketAddr) -> Option<Peer>;
    /// The address from which the peer connected.
    fn address(&self, peer: Peer) -> SocketAddr;
    /// The address at which the shard listens, on the kernel.
    fn listens_at(&self) -> Option<SocketAddr>;
    /// Opens a listener for connections of the shard, and returns its address.
    fn listen(&mut self) -> SocketAddr;
    /// Returns a peer to which the shard has connected.
    fn accept(&mut self) -> Option<Peer>;
    /// Writes a prefix of `bytes`, and returns its length.
    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize;
    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read;
    fn half_close(&mut self, peer: Peer);
    fn close(&mut self, peer: Peer);
    fn reset(&mut self, peer: Peer);
    fn close_all(&mut self);
    /// The peer neither sends nor receives any more.
    fn vanish(&mut self, peer: Peer);
    /// The peer sends and receives again, and bytes that were under way arrive.
    fn come_back(&mut self, peer: Peer);
    /// The network breaks the peer's connection.
    fn break_off(&mut self, peer: Peer);
    /// Lets time pass from now on; `passed` returns whether it is over.
    fn pass(&mut self, span: Duration);
    fn passed(&self) -> bool;
    /// The whole machine stops for this long.
    fn suspend(&mut self, span: Duration);
    fn now(&self) -> Instant;
    fn is_simulated(&self) -> bool;
    /// Panics unless all of the shard's sockets and buffers are free again.
    fn check_empty(&self);
    /// Whether every remaining peer has seen the end of its connection.
    fn all_ended(&mut self) -> bool;
}

impl Network for SimNet {
    fn connect(&mut self) -> Option<Peer> {
        SimNet::connect(self)
    }

    fn connect_from(&mut self, address: SocketAddr) -> Option<Peer> {
        SimNet::connect_from(self, address)
    }

    fn address(&self, peer: Peer) -> SocketAddr {
        SimNet::address(self, peer).expect("it has connected")
    }

    fn listens_at(&self) -> Option<SocketAddr> {
        None
    }

    fn listen(&mut self) -> SocketAddr {
        let address = "192.0.2.1:80".parse().expect("valid");
        SimNet::listen(self, address);
        address
    }

    fn accept(&mut self) -> Option<Peer> {
        SimNet::accept(self, "192.0.2.1:80".parse().expect("valid"))
    }

    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize {
        SimNet::write(self, peer, bytes)
    }

    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read {
        SimNet::read(self, peer, bytes_max)
    }

    fn half_close(&mut self, peer: Peer) {
        SimNet::half_close(self, peer);
    }

    fn close(&mut self, peer: Peer) {
        SimNet::close(self, peer);
    }

    fn reset(&mut self, peer: Peer) {
        SimNet::reset(self, peer);
    }

    fn close_all(&mut self) {
        self.close_all_peers();
    }

    fn vanish(&mut self, peer: Peer) {
        SimNet::vanish(self, peer);
    }

    fn come_back(&mut self, peer: Peer) {
        SimNet::come_back(self, peer);
    }

    fn break_off(&mut self, peer: Peer) {
        SimNet::break_off(self, peer, Errno::EHOSTUNREACH);
    }

    fn pass(&mut self, span: Duration) {
        SimNet::pass(self, span);
    }

    fn passed(&self) -> bool {
        SimNet::passed(self)
    }

    fn suspend(&mut self, span: Duration) {
        SimNet::suspend(self, span);
    }

    fn now(&self) -> Instant {
        SimNet::now(self)
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn check_empty(&self) {
        assert_eq!(self.sockets_open(), 0, "sockets left open");
        assert_eq!(self.leases_out(), 0, "receive buffers not given back");
    }

    fn all_ended(&mut self) -> bool {
        SimNet::all_ended(self)
    }
}
