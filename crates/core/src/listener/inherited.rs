//! Listening sockets that a service manager hands over.

use std::env;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, UnixAddr, getsockname, getsockopt,
    setsockopt, sockopt,
};

use super::{Listener, Origin, Socket};
use crate::ring::inherited;

/// A socket from a service manager.
#[derive(Debug)]
pub struct InheritedListener {
    /// The name that the manager gives it, `FileDescriptorName=` of systemd.socket(5).
    pub name: String,
    /// The socket.
    pub listener: Listener,
}

impl Listener {
    /// The sockets that a service manager has opened for this process, by the protocol of
    /// sd_listen_fds(3): `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`. None if there are none, or
    /// if this was called before.
    ///
    /// # Errors
    /// A descriptor is not a listening stream socket of TCP or Unix.
    pub fn inherited() -> io::Result<Vec<InheritedListener>> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let Some(count) = number("LISTEN_FDS").and_then(|count| u16::try_from(count).ok()) else {
            return Ok(Vec::new());
        };
        if number("LISTEN_PID") != Some(process::id()) {
            return Ok(Vec::new());
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let descriptors = inherited::take(count).unwrap_or_default();
        descriptors
            .into_iter()
            .zip(names)
            .map(|(fd, name)| Ok(InheritedListener { name, listener: Self::from_inherited(fd)? }))
            .collect()
    }

    fn from_inherited(fd: OwnedFd) -> io::Result<Self> {
        let listens = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
        let streams = matches!(getsockopt(&fd, sockopt::SockType), Ok(SockType::Stream));
        if !listens || !streams {
            return Err(not_a_listener(&fd));
        }
        let address: Option<SockaddrStorage> = getsockname(fd.as_raw_fd()).ok();
        let path = match address.as_ref().and_then(SockaddrLike::family) {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => {
                setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
                None
            }
            Some(AddressFamily::Unix) => {
                let address: UnixAddr = getsockname(fd.as_raw_fd())?;
                let name = address.as_abstract().map(|name| format!("@{}", name.escape_ascii()));
                let path = address.path().map(Path::to_owned);
                path.or_else(|| name.map(PathBuf::from))
            }
            _ => return Err(not_a_listener(&fd)),
        };
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // On a socket that does not block, io_uring's accept does not wait either.
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(Listener(Arc::new(Socket { fd, path, origin: Origin::Inherited })))
    }
}

fn not_a_listener(fd: &OwnedFd) -> io::Error {
    let fd = fd.as_raw_fd();
    let problem = format!("descriptor {fd} is not a listening stream socket (ListenStream=)");
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    use super::*;

    /// Listening sockets of TCP and Unix are taken; the error for any other descriptor names it.
    #[test]
    fn only_listeners_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let connected = TcpStream::connect(listener.local_addr().expect("bound")).expect("room");
        let name = format!("murre-inherited-{}", process::id());
        let address = SocketAddr::from_abstract_name(name);
        let unix = UnixListener::bind_addr(&address.expect("short")).expect("a new name");
        for taken in [OwnedFd::from(listener), unix.into()] {
            Listener::from_inherited(taken).expect("it listens");
        }
        for wrong in [
            OwnedFd::from(connected),
            UdpSocket::bind("127.0.0.1:0").expect("a port").into(),
            UnixDatagram::unbound().expect("a socket").into(),
            UnixStream::pair().expect("a pair").0.into(),
            std::fs::File::open("/dev/null").expect("there").into(),
        ] {
            let named = format!("descriptor {} is not a listening stream", wrong.as_raw_fd());
            let error = Listener::from_inherited(wrong).expect_err("it does not listen");
            assert!(error.to_string().starts_with(&named), "{error}");
        }
    }
}
