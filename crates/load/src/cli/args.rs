//! The pieces of the command line that are more than a number: address ranges, spans of time,
//! rates and lists of cores. They are parsed here, so that the rest of the program has valid values only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use serde::{Serialize, Serializer};

/// Where to connect: `HOST:PORT`, several with commas, or a range in an IPv4 address's last
/// number (`127.0.0.1-31:8000`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets {
    text: String,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Range<usize>>,
}

impl Targets {
    /// Every address once, in the order given.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses of each part between commas: they are of one node.
    pub(crate) fn nodes(&self) -> &[Range<usize>] {
        &self.nodes
    }
}

impl FromStr for Targets {
    type Err = String;

    fn from_str(text: &str) -> Result<Targets, String> {
        let (mut addresses, mut nodes) = (Vec::new(), Vec::new());
        for part in text.split(',') {
            let first = addresses.len();
            for address in target(part)? {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            nodes.extend((first < addresses.len()).then_some(first..addresses.len()));
        }
        Ok(Targets { text: text.to_owned(), addresses, nodes })
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn target(part: &str) -> Result<Vec<SocketAddr>, String> {
    let Some((host, port)) = part.rsplit_once(':') else {
        return Err(format!("`{part}` has no port: write HOST:PORT"));
    };
    let port: u16 = port.parse().map_err(|_| format!("`{port}` is not a port"))?;
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    if let Some(addresses) = range(host)? {
        return Ok(addresses.into_iter().map(|address| (address, port).into()).collect());
    }
    // A name may have several addresses; one of them is the server that was meant.
    match part.to_socket_addrs() {
        Ok(mut addresses) => match addresses.next() {
            Some(address) => Ok(vec![address]),
            None => Err(format!("`{host}` has no address")),
        },
        Err(error) => Err(format!("cannot resolve `{host}`: {error}")),
    }
}

/// Reads `127.0.0.1-31`. `None` if this is no range.
fn range(host: &str) -> Result<Option<Vec<Ipv4Addr>>, String> {
    let Some((first, last)) = host.rsplit_once('-') else { return Ok(None) };
    let Ok(first) = first.parse::<Ipv4Addr>() else { return Ok(None) };
    let last: u8 = last.parse().map_err(|_| format!("`{host}`: `{last}` is not 0 to 255"))?;
    let [a, b, c, from] = first.octets();
    if last < from {
        return Err(format!("`{host}` runs backwards"));
    }
    Ok(Some((from..=last).map(|d| Ipv4Addr::new(a, b, c, d)).collect()))
}

/// Source addresses are given as a list; each must be of this machine, which `plan` checks.
pub(crate) fn source(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

/// A range of seconds to draw from, `5-45` or `0.2-1.5`; one number is a range of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Span {
    /// The point at `fraction` (0 to 1) of the way.
    pub(crate) fn at(&self, fraction: f64) -> f64 {
        self.from + (self.to - self.from) * fraction
    }

    /// The rest of an interval at a random moment, at `fraction` (0 to 1) of its distribution. Clients that
    /// begin with it ask at the final rate from the start (the density is proportional to the share of intervals that are longer).
    pub(crate) fn residual(&self, fraction: f64) -> f64 {
        let mean = self.at(0.5);
        // Below the shortest interval all of them are longer.
        if fraction * mean <= self.from {
            return fraction * mean;
        }
        let rest = (1.0 - fraction) / (1.0 - self.from / mean);
        self.to - (self.to - self.from) * rest.sqrt()
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let [from, to] = [from, to].map(|side| side.trim_end_matches('s').parse::<f64>());
        let (Ok(from), Ok(to)) = (from, to) else {
            return Err(format!("`{text}` is not a range of seconds such as 5-45"));
        };
        if !(from.is_finite() && to.is_finite() && 0.0 <= from && from <= to) {
            return Err(format!("`{text}` must run from a smaller number to a larger one"));
        }
        if to > SPAN_SECONDS_MAX {
            return Err(format!("`{text}` is longer than {SPAN_SECONDS_MAX} s"));
        }
        Ok(Span { from, to })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads `120`, `120s`, `2m`, `1h` or `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("`{unit}` is not one of ms, s, m, h")),
    };
    let seconds = match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => number * unit,
        _ => return Err(format!("`{text}` is not a duration such as 120s")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is too long"))
}

/// A number from 1 to `max`.
pub(crate) fn number(max: u32) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(1..=i64::from(max))
}

/// Durations are seconds in records.
pub(crate) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// A duration that a connection's timer can count: from one tick to `SPAN_SECONDS_MAX`.
pub(crate) fn timed(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_millis(100) || duration.as_secs_f64() > SPAN_SECONDS_MAX {
        return Err(format!("`{text}` is not between 100ms and {SPAN_SECONDS_MAX} s"));
    }
    Ok(duration)
}

/// Reads `4000` or `4000/s`.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.trim_end_matches("/s").parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err(format!("`{text}` is not a rate such as 4000/s")),
    }
}

/// A part of the whole, 0 to 1.
pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err(format!("`{text}` is not between 0 and 1")),
    }
}

/// Cores to run on: `1`, `0,2`, `4-7`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cpus(pub(crate) Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let number = |side: &str| {
            side.parse::<usize>().map_err(|_| format!("`{text}` is not a list such as 0,2-3"))
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (number(from)?, number(to)?);
            if to < from || to >= CPUS_MAX {
                return Err(format!("`{part}` is not a range of cores"));
            }
            cpus.extend(from..=to);
        }
        Ok(Cpus(cpus))
    }
}

/// The longest time of a connection's timer: 16 bits of ticks of 100 ms, rounded down.
const SPAN_SECONDS_MAX: f64 = 6500.0;

/// More cores than `CpuSet` can name.
const CPUS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that clients who begin in the middle of an interval ask at the final rate: the mean
    /// of what is left is (from^2 + from * to + to^2) / (3 * (from + to)), renewal theory's.
    #[test]
    fn what_is_left_of_an_interval_has_the_right_mean() {
        for (from, to) in [(5.0, 45.0), (0.0, 10.0), (8.0, 8.0), (0.0, 0.0)] {
            let span = Span { from, to };
            let points = 100_000;
            let sum: f64 = (0..points)
                .map(|at| span.residual((f64::from(at) + 0.5) / f64::from(points)))
                .sum();
            let mean = sum / f64::from(points);
            let expected = if to > 0.0 {
                (from * from + from * to + to * to) / (3.0 * (from + to))
            } else {
                0.0
            };
            assert!((mean - expected).abs() < 0.001, "{from}-{to}: {mean} for {expected}");
            assert!(span.residual(0.0) >= 0.0 && span.residual(1.0) <= to);
        }
    }

    fn targets(text: &str) -> Vec<String> {
        let targets: Targets = text.parse().expect(text);
        targets.addresses().iter().map(SocketAddr::to_string).collect()
    }

    /// Shows that ranges, lists and single addresses mix, and that repeats do not count twice.
    #[test]
    fn a_range_names_every_address_once() {
        assert_eq!(targets("127.0.0.1-3:80"), ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80"]);
        assert_eq!(targets("127.0.0.1:80,127.0.0.1-2:80"), ["127.0.0.1:80", "127.0.0.2:80"]);
        assert_eq!(targets("10.0.0.7-7:9"), ["10.0.0.7:9"]);
        assert_eq!(targets("[::1]:8000"), ["[::1]:8000"]);
        assert_eq!(targets("127.0.0.1-31:8000").len(), 31);
    }

    /// Shows that each way to get an address wrong is an error before the run.
    #[test]
    fn a_target_that_means_nothing_is_refused() {
        let wrong =
            ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.9-3:80", "127.0.0.1-256:80"];
        for text in wrong.into_iter().chain(["", ",", "127.0.0.1-x:80"]) {
            assert!(text.parse::<Targets>().is_err(), "{text}");
        }
    }

    /// Shows what `--idle` accepts, what it refuses, and where a fraction of it lies.
    #[test]
    fn an_idle_range_takes_floats_and_single_numbers() {
        assert_eq!("5-45".parse(), Ok(Span { from: 5.0, to: 45.0 }));
        assert_eq!("0.2-1.5s".parse(), Ok(Span { from: 0.2, to: 1.5 }));
        assert_eq!("3".parse(), Ok(Span { from: 3.0, to: 3.0 }));
        for text in ["45-5", "-5", "a-b", "", "1-NaN", "1-inf", "1-99999"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!(Span { from: 5.0, to: 45.0 }.at(0.5), 25.0);
    }

    /// Shows the units of durations and rates and that nonsense is refused.
    #[test]
    fn durations_and_rates_have_their_units() {
        assert_eq!(duration("120"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "1d", "1e300h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(timed("50ms").is_err());
        assert_eq!(rate("4000/s"), Ok(4000.0));
        assert!(rate("-1").is_err());
        assert!(fraction("1.5").is_err());
    }

    /// Shows that lists and ranges of cores mix.
    #[test]
    fn cores_are_lists_of_numbers_and_ranges() {
        assert_eq!("0,2-4".parse(), Ok(Cpus(vec![0, 2, 3, 4])));
        for text in ["", "3-1", "x", "0-99999"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
}
