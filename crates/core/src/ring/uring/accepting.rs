//! Memory that the kernel writes a peer's address to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An accept in flight, boxed: the kernel writes to the last two fields when it succeeds.
pub(super) struct Accepting {
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// Which of the ring's listeners it is for.
    pub(super) listener: usize,
    pub(super) peer_len: libc::socklen_t,
    pub(super) peer: RawAddress,
}

/// A `sockaddr_in` or a `sockaddr_in6`.
type RawAddress = [u8; size_of::<libc::sockaddr_in6>()];

impl Accepting {
    pub(super) fn new(slot: u32, generation: u32, listener: usize) -> Box<Self> {
        let peer = RawAddress::default();
        Box::new(Accepting { slot, generation, listener, peer_len: peer.len() as u32, peer })
    }

    /// The address that the kernel has written: `None` if it is neither IPv4 nor IPv6.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        let (family, rest) = self.peer.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let ip = match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_INET => IpAddr::from(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
            // Between the port and the address is the flow label.
            libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*rest[4..].first_chunk::<16>()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    }
}
