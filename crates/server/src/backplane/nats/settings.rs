//! Settings of the connection to NATS, and of what is kept there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::hub::rules::Namespaces;

/// How this node reaches NATS, and its names there.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Never empty.
    pub(crate) servers: Vec<NatsServer>,
    /// The name of the cluster, a part of all subjects.
    pub(crate) cluster: Token,
    /// The name of this node.
    pub(crate) node: Token,
    /// A file of credentials.
    pub(crate) credentials: Option<PathBuf>,
    /// A file of the certificates that sign the servers'.
    pub(crate) tls_ca: Option<PathBuf>,
    /// The files of our certificate and its key.
    pub(crate) tls_client: Option<(PathBuf, PathBuf)>,
    pub(crate) storage: Storage,
    /// Servers that keep each stream.
    pub(crate) replicas: u8,
    /// Bytes of a publication at most.
    pub(crate) publication_bytes_max: u32,
    pub(crate) namespaces: Namespaces,
    /// Those with history.
    pub(crate) kept: Vec<Kept>,
}

/// A namespace with history, each channel of which keeps publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) namespace: Box<str>,
    /// Publications of a channel at most.
    pub(crate) size: u32,
    /// How long each is kept.
    pub(crate) ttl: Duration,
}

/// The address of a NATS server, and what is presented to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NatsServer {
    pub(super) tls: bool,
    pub(super) login: Login,
    pub(super) host: String,
    pub(super) port: u16,
}

/// What an address says about who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Nobody,
    Token(String),
    User { name: String, password: String },
}

/// A name that is one token of a subject and a part of the name of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Token(String);

/// Where streams keep their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    Memory,
    File,
}

const PORT: u16 = 4222;

impl FromStr for NatsServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "it is HOST:PORT, nats://HOST:PORT or tls://HOST:PORT, as nats://user:password@nats1:4222";
        let text = text.trim();
        let (tls, rest) = match text.split_once("://") {
            Some(("nats", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            Some(_) => return Err(WRONG),
            None => (false, text),
        };
        let (login, address) = match rest.rsplit_once('@') {
            None => (Login::Nobody, rest),
            Some((login, address)) => {
                let decoded = |text: &str| {
                    let text = percent_encoding::percent_decode_str(text).decode_utf8();
                    text.map(|text| text.into_owned()).map_err(|_| WRONG)
                };
                let login = match login.split_once(':') {
                    None => Login::Token(decoded(login)?),
                    Some((name, password)) => {
                        Login::User { name: decoded(name)?, password: decoded(password)? }
                    }
                };
                (login, address)
            }
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        // An IPv6 address is in brackets.
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| WRONG)?),
            _ => (address, PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let host = match bare {
            Some(ip) if ip.parse::<std::net::Ipv6Addr>().is_ok() => ip,
            None if is_name(host) => host,
            _ => return Err(WRONG),
        };
        Ok(NatsServer { tls, login, host: host.to_owned(), port })
    }
}

/// Without the login, which is a secret.
impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

impl Token {
    /// The name of this machine, with other characters as `-`. Without a name it is `node`.
    pub(crate) fn of_machine() -> Self {
        let name = nix::unistd::gethostname().unwrap_or_default();
        let name: String = name
            .to_string_lossy()
            .chars()
            .map(|c| if is_of_token(c) { c } else { '-' })
            .take(TOKEN_BYTES_MAX)
            .collect();
        Token(if name.is_empty() { "node".into() } else { name })
    }
}

const TOKEN_BYTES_MAX: usize = 64;

fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.chars().all(is_of_token);
        fits.then(|| Token(text.to_owned()))
            .ok_or("it has 1 to 64 letters, digits, hyphens and underscores")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Storage {
    /// The name in the configuration of a stream, and in ours.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Storage::Memory => "memory",
            Storage::File => "file",
        }
    }
}

impl FromStr for Storage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Storage::Memory, Storage::File];
        all.into_iter().find(|one| one.name() == text).ok_or("it is one of memory, file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of servers in all their forms. What is shown of them has no secret.
    #[test]
    fn addresses_of_servers() {
        let user = Login::User { name: "ann".into(), password: "a:b@c".into() };
        for (text, tls, login, shown) in [
            ("nats1", false, Login::Nobody, "nats://nats1:4222"),
            ("10.0.0.1:5000", false, Login::Nobody, "nats://10.0.0.1:5000"),
            ("nats://ann:a:b%40c@[::1]:1/", false, user, "nats://[::1]:1"),
            (
                "tls://secret@nats-2.example",
                true,
                Login::Token("secret".into()),
                "tls://nats-2.example:4222",
            ),
        ] {
            let server: NatsServer = text.parse().expect(text);
            assert_eq!((server.tls, &server.login, &*server.to_string()), (tls, &login, shown));
        }
        for wrong in [
            "", "nats://", "http://a", "a:b", "a:99999", "a/b", "[::1", "::1", "a b", "nats://@",
            "u@",
        ] {
            assert!(wrong.parse::<NatsServer>().is_err(), "{wrong:?}");
        }
    }

    /// A name of a cluster or a node is one token of a subject.
    #[test]
    fn names_are_tokens() {
        assert!(["a", "A-1_b", &"x".repeat(64)].iter().all(|name| name.parse::<Token>().is_ok()));
        for wrong in ["", "a.b", "*", ">", "a b", "ä", &"x".repeat(65)] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong:?}");
        }
        assert!(Token::of_machine().to_string().parse::<Token>().is_ok());
    }
}
