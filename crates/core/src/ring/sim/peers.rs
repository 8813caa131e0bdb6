//! The peers' side of the simulated network.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::config::SimConfig;
use super::faults::Faults;
use super::log::SimEvent;
use super::net::{ConnStats, Link, Net, Peer, Stream};

/// The simulated network as its peers see it. Clones are the same network.
#[derive(Clone)]
pub struct SimNet(Rc<RefCell<Net>>);

/// The result of a peer's read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, in order.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The other side has sent its last byte.
    End,
    /// The connection was reset.
    Reset,
}

impl SimNet {
    pub(super) fn new(config: &SimConfig) -> Self {
        SimNet(Rc::new(RefCell::new(Net::new(config))))
    }

    pub(super) fn net(&self) -> RefMut<'_, Net> {
        self.0.borrow_mut()
    }

    /// A peer connects to the shard, from an address of its own. `None` if the shard does not listen.
    pub fn connect(&self) -> Option<Peer> {
        let index = self.net().links.len() as u32;
        // One of 65,536 addresses of the network for benchmarks (RFC 2544, 198.18.0.0/15).
        let address = Ipv4Addr::from_bits(0xC612_0000 | index & 0xFFFF);
        self.connect_from((address, 40_000).into())
    }

    /// A peer connects to the shard from `address`. `None` if the shard does not listen.
    pub fn connect_from(&self, address: SocketAddr) -> Option<Peer> {
        let mut net = self.net();
        if !net.listening {
            return None;
        }
        net.links.push(Link::from_peer(address));
        let link = net.links.len() - 1;
        net.backlog.push_back(link);
        Some(Peer(link))
    }

    /// The address that a peer connected from; `None` if the shard connected to it.
    pub fn address(&self, peer: Peer) -> Option<SocketAddr> {
        self.net().links[peer.0].address
    }

    /// Lets the shard connect to `address`.
    pub fn listen(&self, address: SocketAddr) {
        self.net().addresses.insert(address, VecDeque::new());
    }

    /// The next peer that the shard has connected to at `address`.
    pub fn accept(&self, address: SocketAddr) -> Option<Peer> {
        self.net().addresses.get_mut(&address)?.pop_front()
    }

    /// Writes as many of `bytes` as there is room for; returns how many.
    pub fn write(&self, peer: Peer, bytes: &[u8]) -> usize {
        let mut net = self.net();
        let room = net.room;
        let link = &mut net.links[peer.0];
        if link.near_closed && !bytes.is_empty() {
            link.break_off(None);
        }
        if link.reset || link.up.fin || link.vanished {
            return 0;
        }
        let len = bytes.len().min(room - link.up.bytes.len());
        link.up.bytes.extend(&bytes[..len]);
        len
    }

    /// Reads up to `bytes_max` bytes.
    pub fn read(&self, peer: Peer, bytes_max: usize) -> Read {
        let mut net = self.net();
        let link = &mut net.links[peer.0];
        let len = bytes_max.min(link.down.bytes.len());
        match link {
            Link { vanished: true, .. } => Read::Nothing,
            link if len > 0 => Read::Bytes(link.down.bytes.drain(..len).collect()),
            Link { reset: true, .. } => Read::Reset,
            Link { down: Stream { fin: true, .. }, .. } => Read::End,
            _ => Read::Nothing,
        }
    }

    /// Sends FIN, and goes on reading.
    pub fn half_close(&self, peer: Peer) {
        self.net().links[peer.0].up.fin = true;
    }

    /// Closes the peer's socket: sends FIN, or a reset if it has unread input.
    pub fn close(&self, peer: Peer) {
        let mut net = self.net();
        let link = &mut net.links[peer.0];
        link.up.fin = true;
        link.far_closed = true;
        if !link.down.bytes.is_empty() {
            link.break_off(Some(Errno::ECONNRESET));
        }
    }

    /// Resets the connection.
    pub fn reset(&self, peer: Peer) {
        self.net().links[peer.0].break_off(Some(Errno::ECONNRESET));
    }

    /// Makes the peer unreachable: nothing arrives in either direction, and neither side gets an error.
    pub fn vanish(&self, peer: Peer) {
        self.net().links[peer.0].vanished = true;
    }

    /// Makes the peer reachable again. Bytes in transit arrive, unless the connection has broken.
    pub fn come_back(&self, peer: Peer) {
        let mut net = self.net();
        let link = &mut net.links[peer.0];
        link.vanished = false;
        link.unacknowledged_since = None;
    }

    /// Breaks the connection: the shard's next operation on it fails with `errno`.
    pub fn break_off(&self, peer: Peer, errno: Errno) {
        self.net().links[peer.0].give_up(errno);
    }

    /// Closes the sockets of all peers.
    pub fn close_all_peers(&self) {
        let peers = self.net().links.len();
        (0..peers).for_each(|peer| self.close(Peer(peer)));
    }

    /// Lets `span` pass while the shard sleeps: every turn without a completion moves the clock to the
    /// end of its timeout, but no further than to the end of `span`.
    pub fn pass(&self, span: Duration) {
        let mut net = self.net();
        net.until = net.now + span;
    }

    /// Moves the clock by `span` while nothing runs, as when a machine is suspended.
    pub fn suspend(&self, span: Duration) {
        let mut net = self.net();
        net.now += span;
        net.until = net.now;
    }

    /// The simulated time.
    pub fn now(&self) -> Instant {
        self.net().now
    }

    /// Whether the time of [`pass`](SimNet::pass) is over.
    pub fn passed(&self) -> bool {
        let net = self.net();
        net.now >= net.until
    }

    /// Whether the connection of each peer has ended, by the shard or by the peer.
    pub fn all_ended(&self) -> bool {
        self.net()
            .links
            .iter()
            .all(|link| link.reset || link.down.fin || link.far_closed || link.vanished)
    }

    /// The figures of the peer's connection.
    pub fn stats(&self, peer: Peer) -> ConnStats {
        let net = self.net();
        let link = &net.links[peer.0];
        let over = link.reset || link.down.fin || link.far_closed;
        ConnStats { unread: link.up.bytes.len(), over, ..link.stats }
    }

    /// Sums over all connections: bytes received, bytes sent, connections accepted.
    pub fn totals(&self) -> (u64, u64, u64) {
        let net = self.net();
        let received = net.links.iter().map(|link| link.stats.received).sum();
        (received, net.links.iter().map(|link| link.stats.sent).sum(), net.accepted)
    }

    /// Changes the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.net().injector.faults = faults;
    }

    /// Allows only these faults from now on: numbers that
    /// [`injected_faults`](SimNet::injected_faults) gave after a run with the same seed.
    pub fn allow_faults(&self, numbers: &[u64]) {
        self.net().injector.allow(numbers.iter().copied().collect());
    }

    /// The faults so far, each with a number that names it in every run with the same seed.
    pub fn injected_faults(&self) -> Vec<(u64, &'static str)> {
        self.net().injector.injected().to_vec()
    }

    /// Adds a line to the log, if [`Keep::All`](super::Keep::All) is set.
    pub fn annotate(&self, line: impl FnOnce() -> String) {
        let mut net = self.net();
        if net.log.keeps_all() {
            net.log.note(SimEvent::Annotation(line()));
        }
    }

    /// The log, a line for each event.
    pub fn log(&self) -> Vec<String> {
        self.net().log.lines()
    }

    /// The number of sockets that the shard has open.
    pub fn sockets_open(&self) -> usize {
        self.net().sockets.len()
    }

    /// The number of leased receive buffers.
    pub fn leases_out(&self) -> u32 {
        self.net().leases_out
    }
}
