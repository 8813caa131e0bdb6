//! The network of the simulated ring: pairs of byte streams, and the peers at their other ends.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::SimConfig;
use super::fate::Fate;
use super::faults::Faults;
use super::log::{Event, Log};
use crate::conn::id::ConnId;
use crate::ring::operation::{HANG_UP, ShutdownHow, Socket};

/// The peers' side of a simulated network. Clones are the same network.
#[derive(Clone)]
pub struct SimNet(Rc<RefCell<Net>>);

/// One peer's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(usize);

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

/// What a peer gets when it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Some bytes, in order.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The other side has sent its last byte.
    End,
    /// The connection was reset.
    Reset,
}

pub(super) struct Net {
    pub(super) fate: Fate,
    pub(super) log: Log,
    links: Vec<Link>,
    /// Open sockets. Numbers are never used twice, so that a late use of one is seen.
    sockets: HashMap<u32, Sock>,
    sockets_made: u32,
    backlog: VecDeque<usize>,
    pub(super) listening: bool,
    /// Addresses that can be connected to, with the peers that were.
    addresses: HashMap<SocketAddr, VecDeque<Peer>>,
    /// Bytes under way in one direction at most.
    room: usize,
    /// How long what was sent to an unreachable peer is repeated before the connection breaks.
    give_up: Duration,
    pub(super) leases_out: u32,
    /// Connections that were accepted.
    accepted: u64,
    started: Instant,
    pub(super) now: Instant,
    /// Time passes up to here while nothing can happen.
    pub(super) until: Instant,
}

struct Sock {
    owner: ConnId,
    /// `None` before it is connected.
    link: Option<usize>,
}

/// Two byte streams between a peer and, once accepted, a socket of the shard.
#[derive(Default)]
struct Link {
    /// Of a peer that has connected to the shard.
    address: Option<SocketAddr>,
    /// From the peer.
    up: Stream,
    /// To the peer.
    down: Stream,
    /// Reset, by either side.
    reset: bool,
    /// What the shard's socket has not been told yet.
    error: Option<Errno>,
    /// The shard shut down both directions.
    shut: bool,
    /// The shard's socket is closed.
    near_closed: bool,
    /// The peer's socket is closed: what still arrives there is answered with a reset.
    far_closed: bool,
    /// The peer is unreachable: nothing arrives, and nothing says so.
    vanished: bool,
    /// Since when something has been sent to it that it has not acknowledged.
    unheard: Option<Instant>,
    story: Story,
}

/// What the network knows of a peer's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Story {
    /// The shard's name for it, once it is accepted or connected.
    pub id: Option<ConnId>,
    /// When that was.
    pub since: Option<Instant>,
    /// Bytes that the shard has received, those thrown away among them.
    pub received: u64,
    /// When it received the last of them.
    pub received_at: Option<Instant>,
    /// Bytes that the shard has sent.
    pub sent: u64,
    /// Bytes from the peer that the shard has not received.
    pub unread: usize,
    /// The machine or the network broke it, neither of its ends did.
    pub broken: bool,
    /// It is over for the peer.
    pub over: bool,
}

#[derive(Default)]
struct Stream {
    bytes: VecDeque<u8>,
    /// The last byte has been sent.
    fin: bool,
}

impl SimNet {
    pub(super) fn new(config: &SimConfig) -> Self {
        let now = Instant::now();
        SimNet(Rc::new(RefCell::new(Net {
            fate: Fate::new(config.seed, config.faults),
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
        })))
    }

    pub(super) fn net(&self) -> std::cell::RefMut<'_, Net> {
        self.0.borrow_mut()
    }

    /// A peer connects to the shard, from an address of its own. `None` where nobody listens.
    pub fn connect(&self) -> Option<Peer> {
        let index = self.net().links.len() as u32;
        // One of 65,536 of the network that is for benchmarks (RFC 2544, 198.18.0.0/15).
        let address = Ipv4Addr::from_bits(0xC612_0000 | index & 0xFFFF);
        self.connect_from((address, 40_000).into())
    }

    /// A peer connects to the shard from `address`. `None` where nobody listens.
    pub fn connect_from(&self, address: SocketAddr) -> Option<Peer> {
        let mut net = self.net();
        if !net.listening {
            return None;
        }
        net.links.push(Link { address: Some(address), ..Link::default() });
        let link = net.links.len() - 1;
        net.backlog.push_back(link);
        Some(Peer(link))
    }

    /// Where a peer connected from, if it was it that connected.
    pub fn address(&self, peer: Peer) -> Option<SocketAddr> {
        self.net().links[peer.0].address
    }

    /// Lets the shard connect to `address`.
    pub fn listen(&self, address: SocketAddr) {
        self.net().addresses.insert(address, VecDeque::new());
    }

    /// A peer that the shard has connected to.
    pub fn accept(&self, address: SocketAddr) -> Option<Peer> {
        self.net().addresses.get_mut(&address)?.pop_front()
    }

    /// Writes as much of `bytes` as goes at once; returns how many.
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

    /// Closes the peer's socket: FIN, or a reset if it has not read everything.
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

    /// Cuts the peer off: nothing arrives any more in either direction, and nobody is told.
    pub fn vanish(&self, peer: Peer) {
        self.net().links[peer.0].vanished = true;
    }

    /// The peer is there again, and so is what was under way, unless the connection has broken.
    pub fn come_back(&self, peer: Peer) {
        let mut net = self.net();
        let link = &mut net.links[peer.0];
        link.vanished = false;
        link.unheard = None;
    }

    /// The network breaks the connection: the shard is told `errno` the next time it asks.
    pub fn break_off(&self, peer: Peer, errno: Errno) {
        self.net().links[peer.0].give_up(errno);
    }

    /// Closes the sockets of all peers.
    pub fn close_all_peers(&self) {
        let peers = self.net().links.len();
        (0..peers).for_each(|peer| self.close(Peer(peer)));
    }

    /// Lets `span` pass, as far as the shard sleeps: every turn that has nothing to complete moves
    /// the clock to the end of its timeout, and no further than this.
    pub fn pass(&self, span: Duration) {
        let mut net = self.net();
        net.until = net.now + span;
    }

    /// Lets `span` pass without anybody doing anything, as when a machine is suspended.
    pub fn stand_still(&self, span: Duration) {
        let mut net = self.net();
        net.now += span;
        net.until = net.now;
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.net().now
    }

    /// Whether the time that was let pass is over.
    pub fn passed(&self) -> bool {
        let net = self.net();
        net.now >= net.until
    }

    /// Whether each peer has been told that its connection is over, or has ended it itself.
    pub fn all_ended(&self) -> bool {
        self.net()
            .links
            .iter()
            .all(|link| link.reset || link.down.fin || link.far_closed || link.vanished)
    }

    /// What became of the peer's connection.
    pub fn story(&self, peer: Peer) -> Story {
        let net = self.net();
        let link = &net.links[peer.0];
        let over = link.reset || link.down.fin || link.far_closed;
        Story { unread: link.up.bytes.len(), over, ..link.story }
    }

    /// What became of all connections together: bytes received, bytes sent, connections accepted.
    pub fn totals(&self) -> (u64, u64, u64) {
        let net = self.net();
        let received = net.links.iter().map(|link| link.story.received).sum();
        (received, net.links.iter().map(|link| link.story.sent).sum(), net.accepted)
    }

    /// What goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.net().fate.faults = faults;
    }

    /// Of the misfortunes that are to come only these may: the numbers that
    /// [`misfortunes`](SimNet::misfortunes) gave after an equal run.
    pub fn allow(&self, misfortunes: &[u64]) {
        self.net().fate.allow(misfortunes.iter().copied().collect());
    }

    /// What went wrong, each with a number that names it in every run with the same seed.
    pub fn misfortunes(&self) -> Vec<(u64, &'static str)> {
        self.net().fate.happened().to_vec()
    }

    /// Adds a line to the log, if all of it is kept.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let mut net = self.net();
        if net.log.keeps_all() {
            net.log.note(Event::Told(what()));
        }
    }

    /// The log, a line for each event.
    pub fn log(&self) -> Vec<String> {
        self.net().log.lines()
    }

    /// How many sockets the shard has open.
    pub fn sockets_open(&self) -> usize {
        self.net().sockets.len()
    }

    /// How many receive buffers are leased.
    pub fn leases_out(&self) -> u32 {
        self.net().leases_out
    }
}

impl Link {
    fn break_off(&mut self, error: Option<Errno>) {
        if !self.reset {
            self.reset = true;
            self.error = error;
            self.down.bytes.clear();
        }
    }

    fn give_up(&mut self, errno: Errno) {
        self.story.broken = true;
        self.break_off(Some(errno));
    }

    fn joined(&mut self, id: ConnId, now: Instant) {
        self.story.id = Some(id);
        self.story.since = Some(now);
    }
}

/// What the kernel does with sockets.
impl Net {
    pub(super) fn socket(&mut self, owner: ConnId, link: Option<usize>) -> Socket {
        self.sockets_made += 1;
        self.sockets.insert(self.sockets_made, Sock { owner, link });
        Socket(self.sockets_made)
    }

    /// Whose socket it is, if it is open.
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

    /// The link, after what time has done to it.
    fn link_now(&mut self, socket: Socket) -> &mut Link {
        let (now, patience) = (self.now, self.give_up);
        let link = self.link(socket);
        if link.unheard.is_some_and(|since| now - since >= patience) {
            link.unheard = None;
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

    /// Where an accepted connection is from.
    pub(super) fn peer_address(&mut self, socket: Socket) -> SocketAddr {
        self.link(socket).address.expect("its peer has connected")
    }

    /// The connection that would be accepted next is lost.
    pub(super) fn abort_next(&mut self) {
        let link = self.backlog.pop_front().expect("somebody waits");
        self.links[link].give_up(Errno::ECONNABORTED);
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// An operation of the shard fails though its peer is well.
    pub(super) fn note_broken(&mut self, socket: Socket) {
        self.link(socket).story.broken = true;
    }

    /// How much a receive would get.
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

    /// What a poll for input sees.
    pub(super) fn readable(&mut self, socket: Socket) -> u32 {
        let link = self.link_now(socket);
        let arrived = !link.vanished;
        let mut events = 0;
        if arrived && !link.up.bytes.is_empty() {
            events |= libc::POLLIN as u32;
        }
        if link.shut || arrived && (link.up.fin || link.reset) {
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
            Link { vanished: true, shut: false, .. } => Err(Errno::EAGAIN),
            link if len > 0 => {
                into[..len].copy_from_slice(&link.up.bytes.make_contiguous()[..len]);
                link.up.bytes.drain(..len);
                link.story.received += len as u64;
                link.story.received_at = Some(now);
                Ok(len as u32)
            }
            Link { error: Some(_), .. } => Err(link.error.take().expect("just seen")),
            Link { reset, shut, up, .. } if *reset || *shut || up.fin => Ok(0),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// Sends what there is room for: 0 bytes if there is none.
    pub(super) fn send(&mut self, socket: Socket, bytes: &[u8]) -> Result<u32, Errno> {
        let (room, now) = (self.room, self.now);
        let link = self.link_now(socket);
        if link.reset || link.down.fin {
            return Err(link.error.take().unwrap_or(Errno::EPIPE));
        }
        let len = bytes.len().min(room - link.down.bytes.len());
        link.down.bytes.extend(&bytes[..len]);
        link.story.sent += len as u64;
        if link.vanished && link.unheard.is_none() {
            link.unheard = Some(now);
        }
        if link.far_closed && !link.vanished {
            link.break_off(Some(Errno::ECONNRESET));
        }
        Ok(len as u32)
    }

    pub(super) fn shutdown(&mut self, socket: Socket, how: ShutdownHow) {
        let link = self.link(socket);
        link.down.fin = true;
        link.shut |= how == ShutdownHow::Both;
    }

    pub(super) fn close(&mut self, socket: Socket) {
        let sock = self.sockets.remove(&socket.0).expect("open");
        let Some(link) = sock.link.map(|link| &mut self.links[link]) else { return };
        link.near_closed = true;
        link.down.fin = true;
        // RFC 9112 section 9.6: closing with input unread resets, and that overtakes what the peer
        // has not read yet.
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
