//! The state of the simulated network: pairs of byte streams, and what the kernel does with sockets.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::config::SimConfig;
use super::injector::Injector;
use super::log::Log;
use crate::conn::id::ConnId;
use crate::ring::operation::{HANG_UP, ShutdownHow, Socket};

/// One peer's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub(super) usize);

impl Peer {
    /// A name of the caller's own, for peers that are not simulated.
    pub fn new(index: usize) -> Self {
        Peer(index)
    }

    /// The number it was made with.
    pub fn index(self) -> usize {
        self.0
    }
}

pub(super) struct Net {
    pub(super) injector: Injector,
    pub(super) log: Log,
    pub(super) links: Vec<Link>,
    /// Open sockets. Numbers are never used twice, so that a late use of one is found.
    pub(super) sockets: HashMap<u32, Sock>,
    sockets_made: u32,
    /// Links that wait to be accepted.
    pub(super) backlog: VecDeque<usize>,
    pub(super) listening: bool,
    /// Addresses that can be connected to, with the peers that the shard has connected to.
    pub(super) addresses: HashMap<SocketAddr, VecDeque<Peer>>,
    /// Largest number of bytes in transit in one direction.
    pub(super) room: usize,
    /// The time for which the kernel retransmits to an unreachable peer before the connection breaks.
    give_up: Duration,
    pub(super) leases_out: u32,
    /// Connections that were accepted.
    pub(super) accepted: u64,
    started: Instant,
    pub(super) now: Instant,
    /// Time passes up to here while nothing can complete.
    pub(super) until: Instant,
}

pub(super) struct Sock {
    owner: ConnId,
    /// `None` before it is connected.
    link: Option<usize>,
}

/// Two byte streams between a peer and, once accepted, a socket of the shard.
#[derive(Default)]
pub(super) struct Link {
    /// The address of a peer that has connected to the shard.
    pub(super) address: Option<SocketAddr>,
    /// From the peer.
    pub(super) up: Stream,
    /// To the peer.
    pub(super) down: Stream,
    /// Reset, by either side.
    pub(super) reset: bool,
    /// An error that the shard's socket has not returned yet.
    error: Option<Errno>,
    /// The shard has shut down both directions.
    shut_down: bool,
    /// The shard's socket is closed.
    pub(super) near_closed: bool,
    /// The peer's socket is closed: bytes that still arrive there are answered with a reset.
    pub(super) far_closed: bool,
    /// The peer is unreachable: nothing arrives in either direction, and neither side gets an error.
    pub(super) vanished: bool,
    /// The time at which the oldest unacknowledged byte was sent to an unreachable peer.
    pub(super) unacknowledged_since: Option<Instant>,
    pub(super) stats: ConnStats,
}

/// What the network knows of a peer's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnStats {
    /// The shard's id of the connection, once it is accepted or connected.
    pub id: Option<ConnId>,
    /// The time at which it was accepted or connected.
    pub since: Option<Instant>,
    /// Bytes that the shard has received, including those it has thrown away.
    pub received: u64,
    /// The time at which it received the last of them.
    pub received_at: Option<Instant>,
    /// Bytes that the shard has sent.
    pub sent: u64,
    /// Bytes from the peer that the shard has not received.
    pub unread: usize,
    /// Whether an injected fault broke the connection, and neither of its ends did.
    pub broken: bool,
    /// Whether the connection is over for the peer.
    pub over: bool,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) bytes: VecDeque<u8>,
    /// The last byte has been sent.
    pub(super) fin: bool,
}

impl Net {
    pub(super) fn new(config: &SimConfig) -> Self {
        let now = Instant::now();
        Net {
            injector: Injector::new(config.seed, config.faults),
            log: Log::new(config.keep),
            links: Vec::new(),
            sockets: HashMap::new(),
            sockets_made: 0,
            backlog: VecDeque::new(),
            listening: config.listening,
            addresses: HashMap::new(),
            room: config.socket_bytes,
            give_up: config.give_up,
            leases_out: 0,
            accepted: 0,
            started: now,
            now,
            until: now,
        }
    }
}

impl Link {
    pub(super) fn from_peer(address: SocketAddr) -> Self {
        Link { address: Some(address), ..Link::default() }
    }

    pub(super) fn break_off(&mut self, error: Option<Errno>) {
        if !self.reset {
            self.reset = true;
            self.error = error;
            self.down.bytes.clear();
        }
    }

    pub(super) fn give_up(&mut self, errno: Errno) {
        self.stats.broken = true;
        self.break_off(Some(errno));
    }

    fn joined(&mut self, id: ConnId, now: Instant) {
        self.stats.id = Some(id);
        self.stats.since = Some(now);
    }
}

/// The kernel's side.
impl Net {
    pub(super) fn socket(&mut self, owner: ConnId, link: Option<usize>) -> Socket {
        self.sockets_made += 1;
        self.sockets.insert(self.sockets_made, Sock { owner, link });
        Socket(self.sockets_made)
    }

    /// The connection of an open socket.
    pub(super) fn owner(&self, socket: Socket) -> Option<ConnId> {
        self.sockets.get(&socket.0).map(|sock| sock.owner)
    }

    pub(super) fn since_start(&self) -> Duration {
        self.now - self.started
    }

    fn link(&mut self, socket: Socket) -> &mut Link {
        let link = self.sockets[&socket.0].link.expect("connected");
        &mut self.links[link]
    }

    /// The link, after the timeouts that have expired.
    fn link_now(&mut self, socket: Socket) -> &mut Link {
        let (now, patience) = (self.now, self.give_up);
        let link = self.link(socket);
        if link.unacknowledged_since.is_some_and(|since| now - since >= patience) {
            link.unacknowledged_since = None;
            link.vanished = false;
            link.far_closed = true;
            link.give_up(Errno::ETIMEDOUT);
        }
        link
    }

    pub(super) fn accept(&mut self, owner: ConnId) -> Option<Socket> {
        let link = self.backlog.pop_front()?;
        self.accepted += 1;
        let now = self.now;
        self.links[link].joined(owner, now);
        Some(self.socket(owner, Some(link)))
    }

    /// The address of an accepted connection's peer.
    pub(super) fn peer_address(&mut self, socket: Socket) -> SocketAddr {
        self.link(socket).address.expect("its peer has connected")
    }

    /// Breaks the connection that would be accepted next.
    pub(super) fn abort_next(&mut self) {
        let link = self.backlog.pop_front().expect("a connection waits");
        self.links[link].give_up(Errno::ECONNABORTED);
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Notes that an injected fault breaks the connection.
    pub(super) fn note_broken(&mut self, socket: Socket) {
        self.link(socket).stats.broken = true;
    }

    /// The number of bytes that a receive would return.
    pub(super) fn waiting(&mut self, socket: Socket) -> usize {
        self.link(socket).up.bytes.len()
    }

    pub(super) fn connect(&mut self, socket: Socket, to: SocketAddr) -> Result<(), Errno> {
        let peer = Peer(self.links.len());
        self.addresses.get_mut(&to).ok_or(Errno::ECONNREFUSED)?.push_back(peer);
        let now = self.now;
        let sock = self.sockets.get_mut(&socket.0).expect("open");
        sock.link = Some(peer.0);
        let mut link = Link::default();
        link.joined(sock.owner, now);
        self.links.push(link);
        Ok(())
    }

    pub(super) fn stop_listening(&mut self) {
        self.listening = false;
        for link in std::mem::take(&mut self.backlog) {
            self.links[link].break_off(None);
        }
    }

    /// The events of a poll for input.
    pub(super) fn readable(&mut self, socket: Socket) -> u32 {
        let link = self.link_now(socket);
        let arrived = !link.vanished;
        let mut events = 0;
        if arrived && !link.up.bytes.is_empty() {
            events |= libc::POLLIN as u32;
        }
        if link.shut_down || arrived && (link.up.fin || link.reset) {
            events |= HANG_UP;
        }
        events
    }

    /// Receives without waiting, up to the size of `into`.
    pub(super) fn recv(&mut self, socket: Socket, into: &mut [u8]) -> Result<u32, Errno> {
        let now = self.now;
        let link = self.link_now(socket);
        let len = into.len().min(link.up.bytes.len());
        match link {
            Link { vanished: true, shut_down: false, .. } => Err(Errno::EAGAIN),
            link if len > 0 => {
                into[..len].copy_from_slice(&link.up.bytes.make_contiguous()[..len]);
                link.up.bytes.drain(..len);
                link.stats.received += len as u64;
                link.stats.received_at = Some(now);
                Ok(len as u32)
            }
            Link { error: Some(_), .. } => Err(link.error.take().expect("just seen")),
            Link { reset, shut_down, up, .. } if *reset || *shut_down || up.fin => Ok(0),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// Sends as many bytes as there is room for: 0 if there is none.
    pub(super) fn send(&mut self, socket: Socket, bytes: &[u8]) -> Result<u32, Errno> {
        let (room, now) = (self.room, self.now);
        let link = self.link_now(socket);
        if link.reset || link.down.fin {
            return Err(link.error.take().unwrap_or(Errno::EPIPE));
        }
        let len = bytes.len().min(room - link.down.bytes.len());
        link.down.bytes.extend(&bytes[..len]);
        link.stats.sent += len as u64;
        if link.vanished && link.unacknowledged_since.is_none() {
            link.unacknowledged_since = Some(now);
        }
        if link.far_closed && !link.vanished {
            link.break_off(Some(Errno::ECONNRESET));
        }
        Ok(len as u32)
    }

    pub(super) fn shutdown(&mut self, socket: Socket, how: ShutdownHow) {
        let link = self.link(socket);
        link.down.fin = true;
        link.shut_down |= how == ShutdownHow::Both;
    }

    pub(super) fn close(&mut self, socket: Socket) {
        let sock = self.sockets.remove(&socket.0).expect("open");
        let Some(link) = sock.link.map(|link| &mut self.links[link]) else { return };
        link.near_closed = true;
        link.down.fin = true;
        // RFC 9112 section 9.6: closing with unread input resets the connection, which discards bytes
        // that the peer has not read yet.
        if !link.up.bytes.is_empty() {
            link.break_off(None);
        }
    }

    pub(super) fn close_all(&mut self) {
        self.stop_listening();
        let open: Vec<u32> = self.sockets.keys().copied().collect();
        open.into_iter().for_each(|socket| self.close(Socket(socket)));
    }
}
