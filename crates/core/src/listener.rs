//! The listening socket, one for all shards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

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

    /// Has the kernel give up a connection whose peer has acknowledged nothing for `span` of what was
    /// sent to it, or has had no room for more of it for so long: `TCP_USER_TIMEOUT` of tcp(7), which
    /// accepted sockets inherit. Otherwise that takes a quarter of an hour (`net.ipv4.tcp_retries2`).
    ///
    /// # Errors
    /// None that a listening socket has.
    pub fn give_up_after(&self, span: Duration) -> io::Result<()> {
        // Zero would be the kernel's own time; the kernel reads it as a signed number.
        let milliseconds = span.as_millis().clamp(1, i32::MAX as u128) as u32;
        Ok(setsockopt(&self.0, sockopt::TcpUserTimeout, &milliseconds)?)
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::getsockopt;

    use super::*;

    /// Accepted sockets inherit the listener's options; the kernel accepts a timeout of any length.
    #[test]
    fn accepted_sockets_inherit() {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
        let to = listener.address().expect("bound");
        let door = TcpListener::from(listener.as_fd().try_clone_to_owned().expect("a descriptor"));
        let accepted = || {
            let _peer = TcpStream::connect(to).expect("room");
            let (socket, _) = door.accept().expect("a connection");
            let no_delay = getsockopt(&socket, sockopt::TcpNoDelay).expect("a socket");
            (no_delay, getsockopt(&socket, sockopt::TcpUserTimeout).expect("a socket"))
        };
        assert_eq!(accepted(), (true, 0));
        for (span, milliseconds) in [
            (Duration::from_secs(35), 35_000),
            (Duration::ZERO, 1),
            (Duration::MAX, i32::MAX as u32),
        ] {
            listener.give_up_after(span).expect("a socket");
            assert_eq!(accepted(), (true, milliseconds));
        }
    }
}
