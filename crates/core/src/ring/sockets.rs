//! What is done to sockets of the process itself, the same on every ring.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, bind, setsockopt, shutdown,
    socket, sockopt,
};

use super::{Shut, Socket};

/// Close without waiting, and without FIN.
pub(super) static RESET: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// A TCP socket that can connect to `to`, bound to the address `from`, if given.
pub(super) fn open(
    to: SocketAddr,
    from: Option<IpAddr>,
    reset_on_close: bool,
    flags: SockFlag,
) -> nix::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    if reset_on_close {
        setsockopt(&fd, sockopt::Linger, &RESET)?;
    }
    if let Some(from) = from {
        // The port is chosen at connect, when it need only differ for the same peer.
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    }
    Ok(fd)
}

/// Shuts a socket down. A peer that has gone already has done it for us.
pub(super) fn shut_down(socket: Socket, how: Shut) {
    let how = match how {
        Shut::Write => Shutdown::Write,
        Shut::Both => Shutdown::Both,
    };
    let _ = shutdown(socket.0 as RawFd, how);
}
