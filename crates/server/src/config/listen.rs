//! Addresses to listen at, in the forms that settings take.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use murre_core::Listener;

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// `127.0.0.1:8000`, `[::1]:8000`.
    Address(SocketAddr),
    /// `localhost:8000`: every address to which the name resolves.
    Name(String, u16),
    /// `:8000`: all addresses of the machine.
    AllAddresses(u16),
    /// `unix:/run/murre.sock`.
    Unix(PathBuf),
}

impl Listen {
    /// The address or path of `listener`.
    ///
    /// # Errors
    /// The kernel does not report the address.
    pub(crate) fn of(listener: &Listener) -> io::Result<Self> {
        match listener.path() {
            Some(path) => Ok(Listen::Unix(path.to_owned())),
            None => listener.address().map(Listen::Address),
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("a path must follow 'unix:', as in unix:/run/murre.sock"),
                path => Ok(Listen::Unix(path.into())),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Listen::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(FORMS)?;
        let port = port.parse().map_err(|_| "a port is a number from 0 to 65535")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        match host {
            "" => Ok(Listen::AllAddresses(port)),
            host if host.contains(':') => Err("write an IPv6 address as [::1]:8000"),
            host if host.bytes().all(is_name) => Ok(Listen::Name(host.into(), port)),
            _ => Err(FORMS),
        }
    }
}

const FORMS: &str = "it is ADDRESS:PORT, NAME:PORT, :PORT (all addresses) or unix:PATH";

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Address(address) => address.fmt(f),
            Listen::Name(name, port) => write!(f, "{name}:{port}"),
            Listen::AllAddresses(port) => write!(f, ":{port}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form of an address is parsed and displayed as the same text; other texts get an error
    /// that names the forms.
    #[test]
    fn forms_of_addresses() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:0",
            "localhost:8000",
            ":8000",
            "my_host.example:1",
            "unix:/a b",
        ] {
            let listen: Listen = text.parse().expect(text);
            assert_eq!(listen.to_string(), text);
        }
        assert_eq!(":80".parse(), Ok(Listen::AllAddresses(80)));
        for (text, said) in [
            ("", FORMS),
            ("8000", FORMS),
            ("localhost", FORMS),
            ("a b:80", FORMS),
            ("*:80", FORMS),
            ("::1:8000", "[::1]:8000"),
            ("localhost:http", "0 to 65535"),
            ("localhost:65536", "0 to 65535"),
            ("127.0.0.1:", "0 to 65535"),
            ("unix:", "a path"),
        ] {
            let error = text.parse::<Listen>().expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
