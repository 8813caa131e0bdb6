//! Values of settings: parsing from text, and the forms that `/stats` and the start line show.

use std::fmt::{self, Debug, Display};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderName;
use ipnet::IpNet;
use murre_core::host::{Descriptors, Io};
use murre_core::{Origins, Pin};
use serde::{Serialize, Serializer};

use super::listen::Listen;
use crate::webhooks::{Filter, Webhook};

/// The kernel interface for socket I/O; `None` is `auto`.
pub(crate) type IoChoice = Option<Io>;

/// The kind of socket descriptors; `None` is `auto`.
pub(crate) type DescriptorsChoice = Option<Descriptors>;

/// A time span from 0.1 to 3600 seconds, written as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

/// A group of proxies that are trusted to name the address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrustedProxy {
    /// All peers at Unix sockets.
    Unix,
    /// Proxies in one network, or at one address.
    #[serde(untagged)]
    Network(IpNet),
}

/// The permissions of a file, written in octal with a zero in front. The zero is required: the TOML
/// file would turn `0o660` into the number 432, and 432 is octal, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnixMode(u32);

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse::<f64>().map_err(|_| "it is a number of seconds")?;
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            return Err(format!("it is between {SECONDS_MIN} and {SECONDS_MAX} seconds"));
        }
        Ok(Seconds(Duration::from_secs_f64(seconds)))
    }
}

const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 3600.0;

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl UnixMode {
    /// The bits of the mode, as of chmod(2).
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for UnixMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('0').filter(|digits| digits.len() == 3);
        let octal = digits.filter(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')));
        let bits = octal.and_then(|digits| u32::from_str_radix(digits, 8).ok());
        bits.map(UnixMode).ok_or("it is four octal digits, as 0660; in a TOML file in quotes")
    }
}

impl Serialize for UnixMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("it is one of text, json"),
        }
    }
}

/// A path below which other paths lie, without the slash at its end: empty for `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount(pub(crate) String);

impl FromStr for Mount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.trim();
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%,".contains(&byte));
        if !path.starts_with('/') || !plain {
            return Err("it is a path, as /socket, without escapes and query");
        }
        Ok(Mount(path.trim_end_matches('/').to_owned()))
    }
}

impl Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// Parses a kernel interface.
pub(super) fn io_choice(text: &str) -> Result<IoChoice, String> {
    match text {
        "auto" => Ok(None),
        "uring" => Ok(Some(Io::Uring)),
        "uring-plain" => Ok(Some(Io::UringPlain)),
        "epoll" => Ok(Some(Io::Epoll)),
        _ => Err("it is one of auto, uring, uring-plain, epoll".into()),
    }
}

/// Shows a kernel interface by its name.
pub(super) fn io_name<S: Serializer>(io: &IoChoice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(io.map_or("auto", Io::name))
}

/// Parses a kind of descriptors.
pub(super) fn descriptors_choice(text: &str) -> Result<DescriptorsChoice, String> {
    match text {
        "auto" => Ok(None),
        "normal" => Ok(Some(Descriptors::Normal)),
        "direct" => Ok(Some(Descriptors::Direct)),
        _ => Err("it is one of auto, normal, direct".into()),
    }
}

/// Shows a kind of descriptors by its name.
pub(super) fn descriptors_name<S: Serializer>(
    descriptors: &DescriptorsChoice,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(descriptors.map_or("auto", Descriptors::name))
}

/// Parses a policy of pinning shards to cores.
pub(super) fn pin(text: &str) -> Result<Pin, &'static str> {
    let all = [Pin::Auto, Pin::Always, Pin::Never];
    all.into_iter().find(|pin| pin.name() == text).ok_or("it is one of auto, always, never")
}

/// Shows a policy of pinning by its name.
pub(super) fn pin_name<S: Serializer>(pin: &Pin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(pin.name())
}

/// Parses a TCP address; a Unix socket is an error.
pub(super) fn tcp(text: &str) -> Result<Listen, &'static str> {
    match text.parse()? {
        Listen::Unix(_) => Err("it is a TCP address"),
        listen => Ok(listen),
    }
}

/// Parses a time span in seconds that may be 0.
pub(super) fn delay(text: &str) -> Result<Seconds, String> {
    match text.parse() {
        Ok(0.0) => Ok(Seconds(Duration::ZERO)),
        _ => text.parse(),
    }
}

/// Parses a number of replicas.
pub(super) fn replicas(text: &str) -> Result<u8, &'static str> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("it is 1 or 3"),
    }
}

impl TrustedProxy {
    /// The network of the proxies; `None` for proxies at Unix sockets.
    pub(super) fn network(&self) -> Option<IpNet> {
        match self {
            TrustedProxy::Network(network) => Some(*network),
            TrustedProxy::Unix => None,
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "unix" {
            return Ok(TrustedProxy::Unix);
        }
        let address = || text.parse().map(|ip: IpAddr| IpNet::from(ip));
        let network = text.parse().or_else(|_| address()).map(TrustedProxy::Network);
        network.map_err(|_| "it is an address or a network, as 192.0.2.1 or 10.0.0.0/8, or unix")
    }
}

/// Parses the URL of a document.
pub(super) fn url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| URL)?;
    let scheme = url.scheme_str().is_some_and(|scheme| SCHEMES.contains(&scheme));
    let host = url.host().is_some_and(|host| !host.is_empty());
    let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let named =
        url.authority().is_some_and(|authority| authority.as_str() != url.host().unwrap_or(""));
    let port = !named || url.port_u16().is_some();
    (scheme && host && plain && port).then_some(url).ok_or(URL)
}

/// Where a call of the backend goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallUrl {
    /// The call is not made.
    Off,
    Url(Uri),
}

impl FromStr for CallUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(CallUrl::Off),
            text => url(text)
                .map(CallUrl::Url)
                .map_err(|_| "it is http://HOST/PATH or https://HOST/PATH, without a user, or off"),
        }
    }
}

impl Display for CallUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallUrl::Off => f.write_str("off"),
            CallUrl::Url(url) => Display::fmt(url, f),
        }
    }
}

/// The URL of a path below another URL, which has no query.
///
/// # Errors
/// It has a query.
pub(super) fn below(url: &Uri, name: &str) -> Result<Uri, &'static str> {
    if url.query().is_some() {
        return Err("it has a query; name the URL of each call, as with --backend-connect");
    }
    let text = url.to_string();
    let text = format!("{}/{name}", text.trim_end_matches('/'));
    text.parse().map_err(|_| URL)
}

/// Parses the name of a header field that calls of the backend get. Those that belong to the message
/// itself are refused.
pub(super) fn header(text: &str) -> Result<HeaderName, &'static str> {
    let wrong = "it is the name of a header field, as cookie, and none of the message itself";
    let name: HeaderName = text.trim().parse().map_err(|_| wrong)?;
    let own = [
        "host",
        "connection",
        "content-length",
        "content-type",
        "transfer-encoding",
        "te",
        "upgrade",
        "expect",
        "trailer",
        "accept",
        "accept-encoding",
        "content-encoding",
        "http2-settings",
        "proxy-connection",
        "user-agent",
        "keep-alive",
    ];
    if own.contains(&name.as_str()) { Err(wrong) } else { Ok(name) }
}

/// Parses a webhook: a URL, and which events it gets.
pub(super) fn webhook(text: &str) -> Result<Webhook, String> {
    let (address, filter) = match text.split_once(',') {
        Some((address, filter)) => (address, filter.parse()?),
        None => (text, Filter::default()),
    };
    Ok(Webhook { url: url(address.trim())?, filter })
}

const SCHEMES: [&str; 2] = ["http", "https"];
const URL: &str = "it is http://HOST/PATH or https://HOST/PATH, without a user";

/// Parses allowed origins. The empty text allows the origin of the request's own host.
pub(super) fn origins(text: &str) -> Result<Origins, String> {
    match text {
        "" => Ok(Origins::Own),
        "any" => Ok(Origins::Any),
        list => {
            let origins: Result<_, _> = list.split(',').map(|one| one.trim().parse()).collect();
            Ok(Origins::Listed(origins?))
        }
    }
}

/// Shows a path as text. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn path<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// Shows several paths as one text, separated by commas.
pub(super) fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    serializer.serialize_str(&paths.join(","))
}

/// Shows a value in its `Display` form.
pub(super) fn display<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Shows a value in its `Display` form, if there is one.
pub(super) fn optional<S: Serializer>(
    value: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(serializer)
}

/// Shows a list as one text, separated by commas, as the flag takes it.
pub(super) fn joined<S: Serializer>(
    values: &[impl Display],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    serializer.serialize_str(&values.join(","))
}

/// Shows a value in its `Debug` form.
pub(super) fn debug<S: Serializer>(value: &impl Debug, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mode is four octal digits, and a decimal number is never taken for one.
    #[test]
    fn modes_are_octal() {
        for (text, bits) in [("0660", 0o660), ("0777", 0o777), ("0000", 0)] {
            let mode: UnixMode = text.parse().expect("a mode");
            assert_eq!(mode.bits(), bits);
            assert_eq!(serde_json::to_value(mode).expect("a text"), text);
        }
        for wrong in ["660", "432", "0o660", "0680", "01777", "0+60", "-0660", "06600", "0", ""] {
            assert!(wrong.parse::<UnixMode>().is_err(), "{wrong:?}");
        }
    }

    /// A mount is a path, with or without a slash at its end.
    #[test]
    fn mounts_are_paths() {
        for (text, mount, shown) in
            [("/", "", "/"), ("/socket", "/socket", "/socket"), (" /a/b/ ", "/a/b", "/a/b")]
        {
            let parsed: Mount = text.parse().expect(text);
            assert_eq!((&*parsed.0, &*parsed.to_string()), (mount, shown));
        }
        for wrong in ["", "socket", "/a b", "/a?b", "/%41", "/é", "http://a/b"] {
            assert!(wrong.parse::<Mount>().is_err(), "{wrong:?}");
        }
    }

    /// A time span is a positive and finite number of seconds; other texts are refused.
    #[test]
    fn seconds_are_bounded() {
        assert_eq!("0.25".parse(), Ok(Seconds(Duration::from_millis(250))));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "10s", ""] {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong:?}");
        }
    }
}
