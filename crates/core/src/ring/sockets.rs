//! Sockets in the process's own table of files, the same on every ring.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, bind, setsockopt, shutdown,
    socket, sockopt,
};

use super::operation::{ShutdownHow, Socket};

/// The value of `SO_LINGER` that makes close(2) reset the connection at once, without FIN.
pub(super) static RESET: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// Makes a TCP socket that can connect to `to`, bound to the address `from` if given.
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
        // The kernel chooses the port at connect, when it need only differ for the same peer.
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    }
    Ok(fd)
}

/// Shuts a socket down. Fails only if the connection is over already.
pub(super) fn shut_down(socket: Socket, how: ShutdownHow) {
    let how = match how {
        ShutdownHow::Write => Shutdown::Write,
        ShutdownHow::Both => Shutdown::Both,
    };
    let _ = shutdown(socket.0 as RawFd, how);
}

/// Shuts a direct descriptor down by the descriptor that the kernel has just installed for it in the
/// process, and closes that one.
pub(super) fn shut_down_installed(fd: u32, how: ShutdownHow) {
    // SAFETY: the kernel has made this descriptor for the caller, and no other code knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    shut_down(Socket(fd.as_raw_fd() as u32), how);
}
