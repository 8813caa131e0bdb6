//! The sockets of the data port and the admin port.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;

use murre_core::ring::LISTENERS_MAX;
use murre_core::{InheritedListener, Listener};
use nix::errno::Errno;

use crate::config::{Config, Listen, UnixMode};
use crate::failure::Failure;

/// Sockets that listen.
pub(crate) struct Listeners {
    pub(crate) data: Vec<Listener>,
    pub(crate) admin: TcpListener,
}

/// The name of a socket unit's socket for the admin port (`FileDescriptorName=`).
const ADMIN: &str = "admin";

impl Listeners {
    /// Listens at the addresses of the settings, but for ports whose sockets the service manager has
    /// handed over.
    pub(crate) fn open(config: &Config) -> Result<Self, Failure> {
        let inherited = Listener::inherited().map_err(Failure::Inherited)?;
        let (admin, data): (Vec<_>, Vec<_>) =
            inherited.into_iter().partition(|socket| socket.name == ADMIN);
        let data = match data.is_empty() {
            true => bind_data(&config.listen, config.unix_mode)?,
            false => take_data(data)?,
        };
        let admin = match admin.as_slice() {
            [] => bind_admin(&config.admin)?,
            [InheritedListener { listener, .. }] if listener.path().is_none() => {
                listener.as_fd().try_clone_to_owned().map_err(Failure::Inherited)?.into()
            }
            _ => {
                let problem = "the admin port takes one TCP socket";
                return Err(Failure::Inherited(io::Error::other(problem)));
            }
        };
        Ok(Listeners { data, admin })
    }
}

fn take_data(inherited: Vec<InheritedListener>) -> Result<Vec<Listener>, Failure> {
    if inherited.len() > LISTENERS_MAX {
        let problem = format!("they are {}, {LISTENERS_MAX} at most", inherited.len());
        return Err(Failure::Inherited(io::Error::other(problem)));
    }
    Ok(inherited.into_iter().map(|socket| socket.listener).collect())
}

fn bind_data(listen_at: &[Listen], mode: Option<UnixMode>) -> Result<Vec<Listener>, Failure> {
    let mut all = Vec::new();
    for listen in listen_at {
        let bound = match listen {
            Listen::Address(address) if leaves_ipv4(*address, listen_at) => {
                Listener::bind_ipv6(address.port()).map(|one| vec![one])
            }
            Listen::Address(address) => Listener::bind(*address).map(|one| vec![one]),
            Listen::AllAddresses(port) => Listener::bind_all(*port).map(|one| vec![one]),
            Listen::Unix(path) => {
                Listener::bind_unix(path, mode.map(UnixMode::bits)).map(|one| vec![one])
            }
            Listen::Name(name, port) => {
                resolve(name, *port).and_then(|addresses| bind_each(&addresses, Listener::bind))
            }
        };
        all.extend(bound.map_err(|error| cannot_listen("--listen", listen, error))?);
        if all.len() > LISTENERS_MAX {
            let problem = format!("it is one address too many, {LISTENERS_MAX} at most");
            return Err(cannot_listen("--listen", listen, io::Error::other(problem)));
        }
    }
    Ok(all)
}

/// Whether `address` is `[::]` and `all` has an IPv4 address with the same port. On Linux a socket at `[::]`
/// takes IPv4 connections, too (ipv6(7), `IPV6_V6ONLY`), so the other address would be in use.
fn leaves_ipv4(address: SocketAddr, all: &[Listen]) -> bool {
    let shares = |listen: &Listen| match listen {
        Listen::Address(SocketAddr::V4(other)) => other.port() == address.port(),
        _ => false,
    };
    address.is_ipv6()
        && address.ip().is_unspecified()
        && address.port() != 0
        && all.iter().any(shares)
}

fn bind_admin(listen: &Listen) -> Result<TcpListener, Failure> {
    let first = |addresses: Vec<SocketAddr>| TcpListener::bind(&*addresses);
    let bound = match listen {
        Listen::Address(address) => first(vec![*address]),
        Listen::AllAddresses(port) => Listener::bind_all(*port)
            .and_then(|listener| listener.as_fd().try_clone_to_owned())
            .map(TcpListener::from),
        Listen::Name(name, port) => resolve(name, *port).and_then(first),
        Listen::Unix(_) => Err(io::Error::other("the admin port takes no Unix socket")),
    };
    bound.map_err(|error| cannot_listen("--admin", listen, error))
}

fn cannot_listen(flag: &'static str, listen: &Listen, error: io::Error) -> Failure {
    Failure::Listen { flag, address: listen.to_string(), error }
}

/// The addresses of a name, each once.
fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (name, port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Listens at each of a name's addresses. Those that the machine does not have are left out if there
/// is another: `localhost` is ::1, too, where the kernel has no IPv6.
fn bind_each<L>(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<L>,
) -> io::Result<Vec<L>> {
    let (mut bound, mut missing) = (Vec::new(), None);
    for &address in addresses {
        match bind(address) {
            Ok(listener) => bound.push(listener),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => missing = Some(error),
                _ => return Err(error),
            },
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More sockets of a service manager than a server has listeners are refused by their number.
    #[test]
    fn inherited_sockets_have_a_bound() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let inherited = |count: usize| {
            let one = || InheritedListener { name: String::new(), listener: listener.clone() };
            take_data((0..count).map(|_| one()).collect())
        };
        assert_eq!(inherited(LISTENERS_MAX).expect("no more").len(), LISTENERS_MAX);
        let refused = inherited(LISTENERS_MAX + 1).expect_err("too many");
        assert!(refused.to_string().contains("they are 9, 8 at most"), "{refused}");
    }

    /// `[::]` leaves IPv4 to an address with the same port, whichever is listed first.
    #[test]
    fn both_families_at_one_port() {
        let listen = |text: &str| Listen::Address(text.parse().expect("an address"));
        for (all, leaves) in [
            (["[::]:80", "0.0.0.0:80"], true),
            (["127.0.0.1:80", "[::]:80"], true),
            (["[::]:80", "0.0.0.0:81"], false),
            (["[::]:80", "[::1]:80"], false),
            (["[::]:0", "0.0.0.0:0"], false),
        ] {
            let all = all.map(listen);
            let found = all.iter().any(|one| match one {
                Listen::Address(address) => leaves_ipv4(*address, &all),
                _ => false,
            });
            assert_eq!(found, leaves, "{all:?}");
        }
    }

    /// A name is listened at by all of its addresses that the machine has; any other error counts.
    #[test]
    fn each_address_of_a_name() {
        let [here, missing, taken] = ["127.0.0.1:1", "192.0.2.1:1", "127.0.0.1:2"]
            .map(|address| address.parse::<SocketAddr>().expect("an address"));
        let bind = |address| match address {
            address if address == missing => Err(Errno::EADDRNOTAVAIL.into()),
            address if address == taken => Err(Errno::EADDRINUSE.into()),
            address => Ok(address),
        };
        let bound = |addresses: &[SocketAddr]| {
            bind_each(addresses, bind).map_err(|error: io::Error| error.kind())
        };
        assert_eq!(bound(&[here, missing]), Ok(vec![here]));
        assert_eq!(bound(&[missing, here]), Ok(vec![here]));
        assert_eq!(bound(&[missing]), Err(io::ErrorKind::AddrNotAvailable));
        assert_eq!(bound(&[here, taken]), Err(io::ErrorKind::AddrInUse));
        let local = resolve("localhost", 8000).expect("every machine has it");
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback()));
    }
}
