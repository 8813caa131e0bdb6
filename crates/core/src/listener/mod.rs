//! Listening sockets, each shared by all shards.

mod inherited;
mod unix;

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, getsockname,
    listen, setsockopt, shutdown, socket, sockopt,
};

pub use self::inherited::InheritedListener;
use crate::retry::{RETRY_MAX, is_in_use, retry};

/// A listening socket that any number of shards accept from: TCP, or a Unix stream socket.
///
/// They share one queue, so none of them can leave a connection waiting that another has room for,
/// as one listener a shard would (`SO_REUSEPORT` deals connections out by hash). Waiting accepts
/// are woken one at a time, first come first served, which spreads connections evenly.
#[derive(Clone, Debug)]
pub struct Listener(Arc<Socket>);

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// The path of a Unix socket.
    path: Option<PathBuf>,
    origin: Origin,
}

/// Where a listening socket comes from.
#[derive(Debug)]
enum Origin {
    /// This process has made it, and the file of a Unix socket, with this device and inode.
    Made { file: Option<(u64, u64)> },
    /// Another process has, and listens on with it when this process has ended.
    Inherited,
}

impl Listener {
    /// Listens on a TCP address; port 0 takes a free one. Retries for 2 seconds while the address is in use:
    /// the kernel closes the listener of a process that was killed after the process has ended.
    ///
    /// # Errors
    /// The kernel's error, usually `EADDRINUSE`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_tcp(address, |_| Ok(()))
    }

    /// Listens on a TCP port of all addresses, of IPv6 and IPv4; of IPv4 alone where the kernel has no
    /// IPv6.
    ///
    /// # Errors
    /// As for [`bind`](Listener::bind).
    pub fn bind_all(port: u16) -> io::Result<Self> {
        let both = |fd: &OwnedFd| setsockopt(fd, sockopt::Ipv6V6Only, &false);
        Self::bind_tcp((Ipv6Addr::UNSPECIFIED, port).into(), both).or_else(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                    Self::bind((Ipv4Addr::UNSPECIFIED, port).into())
                }
                _ => Err(error),
            }
        })
    }

    /// Listens on a TCP port of all IPv6 addresses, and leaves those of IPv4 to another socket.
    ///
    /// # Errors
    /// As for [`bind`](Listener::bind).
    pub fn bind_ipv6(port: u16) -> io::Result<Self> {
        let ipv6 = |fd: &OwnedFd| setsockopt(fd, sockopt::Ipv6V6Only, &true);
        Self::bind_tcp((Ipv6Addr::UNSPECIFIED, port).into(), ipv6)
    }

    fn bind_tcp(
        address: SocketAddr,
        options: impl FnOnce(&OwnedFd) -> nix::Result<()>,
    ) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        // Accepted sockets inherit this one: an answer is not held back for a fuller packet.
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        options(&fd)?;
        let attempt = || Ok(bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?);
        retry(RETRY_MAX, is_in_use, attempt)?;
        // As many as `net.core.somaxconn` allows, which caps it.
        listen(&fd, Backlog::MAXALLOWABLE)?;
        Ok(Listener(Arc::new(Socket { fd, path: None, origin: Origin::Made { file: None } })))
    }

    /// Has the kernel give up a connection whose peer has acknowledged nothing for `span` of what was
    /// sent to it, or has had no room for more of it for so long: `TCP_USER_TIMEOUT` of tcp(7), which
    /// accepted sockets inherit. Otherwise that takes a quarter of an hour (`net.ipv4.tcp_retries2`).
    /// Peers at Unix sockets cannot vanish like that.
    ///
    /// # Errors
    /// None that a listening socket has.
    pub fn give_up_after(&self, span: Duration) -> io::Result<()> {
        if self.path().is_some() {
            return Ok(());
        }
        // Zero would be the kernel's own time; the kernel reads it as a signed number.
        let milliseconds = span.as_millis().clamp(1, i32::MAX as u128) as u32;
        Ok(setsockopt(&self.0.fd, sockopt::TcpUserTimeout, &milliseconds)?)
    }

    /// The TCP address where it listens.
    ///
    /// # Errors
    /// It is a Unix socket.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address: SockaddrStorage = getsockname(self.0.fd.as_raw_fd())?;
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()));
        v4.or_else(v6).ok_or_else(|| io::Error::other("neither IPv4 nor IPv6"))
    }

    /// The path of a Unix socket, `None` for TCP. An abstract name has an `@` before it.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Whether another process listens on with it: then it must not be shut down.
    pub(crate) fn is_inherited(&self) -> bool {
        matches!(self.0.origin, Origin::Inherited)
    }

    /// Stops listening, for every shard: waiting accepts end with `EINVAL`. An inherited socket is
    /// left to the process that has made it.
    pub fn stop(&self) {
        if !self.is_inherited() {
            // Stopping twice is the same as once.
            let _ = shutdown(self.0.fd.as_raw_fd(), Shutdown::Both);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(path), Origin::Made { file: Some(made) }) = (&self.path, &self.origin)
            && let Ok(_held) = retry(RETRY_MAX, is_in_use, || unix::hold_folder(path))
            && unix::file(path).is_ok_and(|there| there == *made)
        {
            // If it cannot be removed, the next server at this path replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

/// `127.0.0.1:8000`, `[::]:8000`, `unix:/run/murre.sock`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.path, self.address()) {
            (Some(path), _) => write!(f, "unix:{}", path.display()),
            (None, Ok(address)) => address.fmt(f),
            (None, Err(_)) => f.write_str("unknown"),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    use nix::sys::socket::getsockopt;

    use super::*;

    /// A port that is in use for a moment is no error, one that stays in use is.
    #[test]
    fn a_port_in_use_is_waited_for() {
        let first = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
        let address = first.address().expect("bound");
        let error = Listener::bind(address).expect_err("it stays in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let (ready, readied) = mpsc::channel();
        let second = thread::spawn(move || {
            ready.send(()).expect("the test waits");
            Listener::bind(address)
        });
        readied.recv().expect("it starts");
        drop(first);
        second.join().expect("no panic").expect("the port is free again");
    }

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

    /// A listener of all IPv6 addresses leaves IPv4 to another at the same port.
    #[test]
    fn all_addresses_by_two_sockets() {
        let ipv4 = Listener::bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a port");
        let port = ipv4.address().expect("bound").port();
        match Listener::bind_ipv6(port) {
            Ok(_ipv6) => {
                for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                    TcpStream::connect((address, port)).expect("one listens");
                }
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT), "no IPv6"),
        }
    }

    /// A listener of all addresses takes IPv4 connections.
    #[test]
    fn all_addresses() {
        let listener = Listener::bind_all(0).expect("a port");
        let port = listener.address().expect("bound").port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        assert!(listener.to_string().ends_with(&format!(":{port}")), "{listener}");
    }
}
