//! Listening sockets, each shared by all shards.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr,
    bind, getsockname, getsockopt, listen, setsockopt, shutdown, socket, sockopt,
};

use crate::retry::{RETRY_MAX, is_in_use, retry};
use crate::ring::inherited;

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

/// Sockets from a service manager.
#[derive(Debug)]
pub struct InheritedListener {
    /// The name that the manager gives it, `FileDescriptorName=` of systemd.socket(5).
    pub name: String,
    /// The socket.
    pub listener: Listener,
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

    /// Listens on a Unix stream socket at `path`. A socket that a process has left there which ended
    /// without removing it is replaced. The file's permissions follow from the umask; it is removed
    /// with the last use of the listener. Retries for 2 seconds while another process listens there.
    ///
    /// # Errors
    /// The kernel's error: `EADDRINUSE` if another process listens there or the file is no socket.
    pub fn bind_unix(path: &Path) -> io::Result<Self> {
        retry(RETRY_MAX, is_in_use, || Self::try_bind_unix(path))
    }

    fn try_bind_unix(path: &Path) -> io::Result<Self> {
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let address = UnixAddr::new(path)?;
        if let Err(errno) = bind(fd.as_raw_fd(), &address) {
            if errno != Errno::EADDRINUSE || !is_left_behind(path) {
                return Err(errno.into());
            }
            fs::remove_file(path)?;
            bind(fd.as_raw_fd(), &address)?;
        }
        listen(&fd, Backlog::MAXALLOWABLE)?;
        let file = Some(file(path)?);
        Ok(Listener(Arc::new(Socket {
            fd,
            path: Some(path.to_owned()),
            origin: Origin::Made { file },
        })))
    }

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
        if !listens || !streams {
            return Err(not_a_listener(&fd));
        }
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // On a socket that does not block, io_uring's accept does not wait either.
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(Listener(Arc::new(Socket { fd, path, origin: Origin::Inherited })))
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

/// Whether the file at `path` is a socket that no process listens on any more.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

/// What tells this file from another at the same path.
fn file(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn not_a_listener(fd: &OwnedFd) -> io::Error {
    let fd = fd.as_raw_fd();
    let problem = format!("descriptor {fd} is not a listening stream socket (ListenStream=)");
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(path), Origin::Made { file: Some(made) }) = (&self.path, &self.origin)
            && file(path).is_ok_and(|there| there == *made)
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
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

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

    /// A listener of all addresses takes IPv4 connections.
    #[test]
    fn all_addresses() {
        let listener = Listener::bind_all(0).expect("a port");
        let port = listener.address().expect("bound").port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        assert!(listener.to_string().ends_with(&format!(":{port}")), "{listener}");
    }

    /// A Unix socket is taken by one process at a time, replaced where nobody listens any more, and
    /// removed at the end. A file that is no socket stays.
    #[test]
    fn unix_sockets() {
        let folder = env::temp_dir().join(format!("murre-listener-{}", process::id()));
        fs::create_dir_all(&folder).expect("room");
        let path = folder.join("socket");
        let in_use = || Listener::bind_unix(&path).expect_err("taken").kind();

        let listener = Listener::bind_unix(&path).expect("a new path");
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        listener.give_up_after(Duration::from_secs(1)).expect("nothing to set");
        UnixStream::connect(&path).expect("it listens");
        assert_eq!(in_use(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());

        // A process that was killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a new path"));
        let listener = Listener::bind_unix(&path).expect("nobody listens");
        fs::remove_file(&path).expect("there");
        let newer = Listener::bind_unix(&path).expect("free again");
        drop(listener);
        UnixStream::connect(&path).expect("the newer one's file stays");
        drop(newer);

        fs::write(&path, "text").expect("room");
        assert_eq!(in_use(), io::ErrorKind::AddrInUse);
        assert!(Listener::bind_unix(&folder.join("x".repeat(120))).is_err(), "too long a path");
        fs::remove_dir_all(&folder).expect("there");
    }
}
