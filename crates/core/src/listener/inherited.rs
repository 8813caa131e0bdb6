//! Listening sockets that a service manager hands over.

use std::env;
use std::ffi::{OsStr, OsString};
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
    /// A variable cannot be read, or a descriptor is not a listening stream socket of TCP or Unix.
    pub fn inherited() -> io::Result<Vec<InheritedListener>> {
        let Some(names) = names(env::var_os, process::id())? else {
            return Ok(Vec::new());
        };
        let descriptors = inherited::take(names.len() as u16)?.unwrap_or_default();
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

/// The names of the descriptors that are handed over to the process with the id `me`, by the variables
/// of the environment; `None` if there are no variables, or if they are for another process.
///
/// # Errors
/// A variable is there but cannot be read, or the names are more or fewer than the descriptors.
fn names(
    variable: impl Fn(&'static str) -> Option<OsString>,
    me: u32,
) -> io::Result<Option<Vec<String>>> {
    let text = |name| {
        let text = variable(name).map(OsString::into_string).transpose();
        text.map_err(|text| bad_variable(name, &text, "text"))
    };
    let number = |name, expected, max: u32| {
        let parse = |text: String| {
            let number = text.parse().ok().filter(|&number| number <= max);
            number.ok_or_else(|| bad_variable(name, text.as_ref(), expected))
        };
        text(name)?.map(parse).transpose()
    };
    if number("LISTEN_PID", "the id of a process", u32::MAX)? != Some(me) {
        return Ok(None);
    }
    let expected = "a number of descriptors up to 65535";
    let Some(count) = number("LISTEN_FDS", expected, u16::MAX.into())? else { return Ok(None) };
    let names = text("LISTEN_FDNAMES")?.filter(|names| !names.is_empty());
    let Some(names) = names else { return Ok(Some(vec![String::new(); count as usize])) };
    let each: Vec<String> = names.split(':').map(str::to_owned).collect();
    if each.len() != count as usize {
        let expected =
            format!("{count} names, as many as LISTEN_FDS says, with colons between them");
        return Err(bad_variable("LISTEN_FDNAMES", names.as_ref(), &expected));
    }
    Ok(Some(each))
}

fn bad_variable(name: &str, text: &OsStr, expected: &str) -> io::Error {
    let problem = format!("the variable {name} is {text:?} and not {expected}");
    io::Error::new(io::ErrorKind::InvalidInput, problem)
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
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    use super::*;

    const ME: u32 = 7;

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

    /// The names by these values of `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`.
    fn read(values: [Option<&str>; 3]) -> Result<Option<Vec<String>>, String> {
        let all = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
        let value = |name| {
            let at = all.iter().position(|one| *one == name).expect("one of them");
            values[at].map(OsString::from)
        };
        names(value, ME).map_err(|error| error.to_string())
    }

    /// Each descriptor has a name, which is empty if the service manager gives none. Without variables,
    /// and with those of another process, there are no descriptors.
    #[test]
    fn descriptors_have_names() {
        let named = |names: &[&str]| Ok(Some(names.iter().map(ToString::to_string).collect()));
        assert_eq!(read([Some("7"), Some("2"), Some("data:admin")]), named(&["data", "admin"]));
        assert_eq!(read([Some("7"), Some("2"), Some(":admin")]), named(&["", "admin"]));
        assert_eq!(read([Some("7"), Some("1"), Some("x")]), named(&["x"]));
        for names in [None, Some("")] {
            assert_eq!(read([Some("7"), Some("2"), names]), named(&["", ""]));
            assert_eq!(read([Some("7"), Some("0"), names]), named(&[]));
        }
        for none in [
            [None, None, None],
            [None, Some("2"), Some("data:admin")],
            [Some("7"), None, None],
            [Some("8"), Some("2"), None],
            [Some("8"), Some("of another process"), None],
        ] {
            assert_eq!(read(none), Ok(None), "{none:?}");
        }
    }

    /// A variable that cannot be read is an error that names it.
    #[test]
    fn unreadable_variables_are_errors() {
        for (values, named) in [
            ([Some("x"), Some("1"), None], "LISTEN_PID"),
            ([Some(""), Some("1"), None], "LISTEN_PID"),
            ([Some("-1"), Some("1"), None], "LISTEN_PID"),
            ([Some("7"), Some("x"), None], "LISTEN_FDS"),
            ([Some("7"), Some(""), None], "LISTEN_FDS"),
            ([Some("7"), Some("-1"), None], "LISTEN_FDS"),
            ([Some("7"), Some("65536"), None], "LISTEN_FDS"),
            ([Some("7"), Some("2"), Some("one")], "LISTEN_FDNAMES"),
            ([Some("7"), Some("1"), Some("one:two")], "LISTEN_FDNAMES"),
            ([Some("7"), Some("0"), Some("one")], "LISTEN_FDNAMES"),
        ] {
            let error = read(values).expect_err("it cannot be read");
            assert!(error.contains(&format!("{named} is ")), "{values:?}: {error}");
        }
        let bytes = |_| Some(OsString::from_vec(b"\xff".to_vec()));
        let error = names(bytes, ME).expect_err("no text").to_string();
        assert!(error.contains("LISTEN_PID"), "{error}");
    }
}
