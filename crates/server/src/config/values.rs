//! Values of settings: how their texts are parsed, and how `/stats` and the start line show them.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use murre_core::host::{Descriptors, Io};
use murre_core::{Origins, Pin};
use serde::{Serialize, Serializer};

use super::listen::Listen;

/// Which interface of the kernel to use; `None` is `auto`.
pub(crate) type IoChoice = Option<Io>;

/// Which descriptors to use; `None` is `auto`.
pub(crate) type DescriptorsChoice = Option<Descriptors>;

/// A time span from 0.1 to 3600 seconds, written as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

/// Proxies whose word about the address of a client counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrustedProxy {
    /// All peers at Unix sockets.
    Unix,
    /// Those in a network, or at one address.
    #[serde(untagged)]
    Network(IpNet),
}

/// Format of log lines.
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

pub(super) fn io_choice(text: &str) -> Result<IoChoice, String> {
    match text {
        "auto" => Ok(None),
        "uring" => Ok(Some(Io::Uring)),
        "uring-plain" => Ok(Some(Io::UringPlain)),
        "epoll" => Ok(Some(Io::Epoll)),
        _ => Err("it is one of auto, uring, uring-plain, epoll".into()),
    }
}

pub(super) fn io_name<S: Serializer>(io: &IoChoice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(io.map_or("auto", Io::name))
}

pub(super) fn descriptors_choice(text: &str) -> Result<DescriptorsChoice, String> {
    match text {
        "auto" => Ok(None),
        "normal" => Ok(Some(Descriptors::Normal)),
        "direct" => Ok(Some(Descriptors::Direct)),
        _ => Err("it is one of auto, normal, direct".into()),
    }
}

pub(super) fn descriptors_name<S: Serializer>(
    descriptors: &DescriptorsChoice,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(descriptors.map_or("auto", Descriptors::name))
}

pub(super) fn pin(text: &str) -> Result<Pin, &'static str> {
    let all = [Pin::Auto, Pin::Always, Pin::Never];
    all.into_iter().find(|pin| pin.name() == text).ok_or("it is one of auto, always, never")
}

pub(super) fn pin_name<S: Serializer>(pin: &Pin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(pin.name())
}

/// An address that is no Unix socket.
pub(super) fn tcp(text: &str) -> Result<Listen, &'static str> {
    match text.parse()? {
        Listen::Unix(_) => Err("it is a TCP address"),
        listen => Ok(listen),
    }
}

/// A time span that may be 0.
pub(super) fn delay(text: &str) -> Result<Seconds, String> {
    match text.parse() {
        Ok(0.0) => Ok(Seconds(Duration::ZERO)),
        _ => text.parse(),
    }
}

impl TrustedProxy {
    /// The network; `None` for proxies without an address.
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

/// The empty text is the server's own host.
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

/// A path may have bytes that are not text; they are shown as U+FFFD.
pub(super) fn path<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// Several paths, as one text with commas between them.
pub(super) fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    serializer.serialize_str(&paths.join(","))
}

pub(super) fn display<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A list as it is written: separated by commas.
pub(super) fn joined<S: Serializer>(
    values: &[impl Display],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    serializer.serialize_str(&values.join(","))
}

pub(super) fn debug<S: Serializer>(value: &impl Debug, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations are positive and finite, in seconds.
    #[test]
    fn seconds_are_bounded() {
        assert_eq!("0.25".parse(), Ok(Seconds(Duration::from_millis(250))));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "10s", ""] {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong:?}");
        }
    }
}
