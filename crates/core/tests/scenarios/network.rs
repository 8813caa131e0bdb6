//! The peers' side of a shard, in memory or over loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use murre_core::ring::sim::{Peer, Read, SimNet};
use nix::errno::Errno;

/// The peers' side, in memory or over loopback.
pub(crate) trait Network {
    fn connect(&mut self) -> Option<Peer>;
    /// Connects from an address of choice, where there is a choice.
    fn connect_from(&mut self, address: SocketAddr) -> Option<Peer>;
    /// Where a peer that has connected did so from.
    fn address(&self, peer: Peer) -> SocketAddr;
    /// Where the shard listens, on the kernel.
    fn listens_at(&self) -> Option<SocketAddr>;
    /// Where the shard can connect to.
    fn listen(&mut self) -> SocketAddr;
    /// A peer that the shard has connected to.
    fn accept(&mut self) -> Option<Peer>;
    /// How much of `bytes` went at once.
    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize;
    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read;
    fn half_close(&mut self, peer: Peer);
    fn close(&mut self, peer: Peer);
    fn reset(&mut self, peer: Peer);
    fn close_all(&mut self);
    /// Says nothing and hears nothing any more.
    fn vanish(&mut self, peer: Peer);
    /// Does again, and what was under way arrives.
    fn come_back(&mut self, peer: Peer);
    /// The network breaks its connection.
    fn break_off(&mut self, peer: Peer);
    /// Begins to let time pass; `passed` says when it is over.
    fn pass(&mut self, span: Duration);
    fn passed(&self) -> bool;
    /// The whole machine stops for this long.
    fn suspend(&mut self, span: Duration);
    fn now(&self) -> Instant;
    fn is_simulated(&self) -> bool;
    /// Panics unless all the shard's sockets and buffers came back.
    fn check_empty(&self);
    /// Whether every peer that is still there has been told that its connection is over.
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
