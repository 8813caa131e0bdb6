//! The listening socket, one for all shards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, getsockname,
    listen, setsockopt, shutdown, socket, sockopt,
};

/// A TCP listener that any number of shards accept from.
///
/// They share one queue, so none of them can leave a connection waiting that another has room for,
/// as one listener a shard would (`SO_REUSEPORT` deals connections out by hash). Waiting accepts
/// are woken one at a time, first come first served, which spreads connections evenly.
#[derive(Clone, Debug)]
pub struct Listener(Arc<OwnedFd>);

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// What the kernel says, `EADDRINUSE` above all.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        // Accepted sockets inherit this one: an answer is not held back for a fuller packet.
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        // As many as `net.core.somaxconn` allows, which caps it.
        listen(&fd, Backlog::MAXALLOWABLE)?;
        Ok(Listener(Arc::new(fd)))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None that a listening socket has.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address: SockaddrStorage = getsockname(self.0.as_raw_fd())?;
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()));
        v4.or_else(v6).ok_or_else(|| io::Error::other("neither IPv4 nor IPv6"))
    }

    /// Stops listening, for every shard: waiting accepts end with `EINVAL`.
    pub fn stop(&self) {
        // Stopping twice is the same as once.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
