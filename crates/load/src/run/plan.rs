//! Checks before the run whether this machine can hold it: addresses, ports, descriptors. Every error
//! names a remedy.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;
use murre_core::host::{self, Plan, Wanted};

use crate::cli::Job;
use crate::measure::reading::process_memory;

/// Finds errors that can be known before the first connection.
pub(super) fn prepare(job: &Job) -> anyhow::Result<Plan> {
    let (common, conns) = (&job.common, job.conns_all());
    let targets = common.target.addresses();
    let ports = Ports::read();
    ports
        .check(conns, targets.len() as u64, common.source.len() as u64)
        .and_then(|()| check_sources(&common.source, targets))
        .and_then(|()| ports.check_servers(conns, targets))
        .map_err(anyhow::Error::msg)?;
    for &pid in &common.server_pid {
        process_memory(&pid.to_string())
            .with_context(|| format!("--server-pid {pid} cannot be measured"))?;
    }
    let visitors = job.scenario.visitors(common);
    let plan = host::plan(&Wanted {
        max_conns: Some(conns as u32 + visitors),
        // One is enough at the pace of visitors.
        shards: if visitors == 0 { common.shards } else { Some(1) },
        descriptors: common.descriptors.wanted(),
        io: common.io.wanted(),
    })?;
    check_targets(targets).map_err(anyhow::Error::msg)?;
    Ok(plan)
}

/// The ports that a connection may be given, per pair of addresses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    pub(crate) last: u16,
    /// `ip_local_reserved_ports`: the kernel gives none of these to a connection.
    pub(crate) reserved: Vec<(u16, u16)>,
}

impl Ports {
    /// The kernel's settings.
    pub(crate) fn read() -> Ports {
        let net = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let range = net("ip_local_port_range").unwrap_or_default();
        let reserved = net("ip_local_reserved_ports").unwrap_or_default();
        Ports::parse(&range, &reserved)
    }

    fn parse(range: &str, reserved: &str) -> Ports {
        let mut range = range.split_whitespace().map_while(|word| word.parse().ok());
        // The kernel's defaults.
        let (first, last) = (range.next().unwrap_or(32768), range.next().unwrap_or(60999));
        let reserved = reserved.trim().split(',').filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((from.parse().ok()?, to.parse().ok()?))
        });
        Ports { first, last, reserved: reserved.collect() }
    }

    fn count(&self) -> u64 {
        let count = |from: u16, to: u16| (u64::from(to) + 1).saturating_sub(u64::from(from));
        let reserved =
            self.reserved.iter().map(|&(from, to)| count(from.max(self.first), to.min(self.last)));
        count(self.first, self.last).saturating_sub(reserved.sum())
    }

    /// Whether a client of this machine may get the port.
    fn holds(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
            && !self.reserved.iter().any(|&(from, to)| (from..=to).contains(&port))
    }

    /// Many clients on the machine of their server must not be able to get its port: while one has it,
    /// the server cannot be started again (`bind` fails with EADDRINUSE).
    fn check_servers(&self, conns: u64, targets: &[SocketAddr]) -> Result<(), String> {
        if conns < MANY_CONNS {
            return Ok(());
        }
        let here = |target: &&SocketAddr| TcpListener::bind((target.ip(), 0)).is_ok();
        match targets.iter().filter(|target| self.holds(target.port())).find(here) {
            None => Ok(()),
            Some(target) => Err(format!(
                "the kernel may give port {port} of {target}, which is on this machine, to a client \
                 (net.ipv4.ip_local_port_range is {} {}), and the server could not be started again \
                 then: have it listen on another port, or reserve this one with `sysctl -w \
                 net.ipv4.ip_local_reserved_ports={}{port}`",
                self.first,
                self.last,
                self.reserved.iter().fold(String::new(), |text, (from, to)| text
                    + &if from == to { format!("{from},") } else { format!("{from}-{to},") }),
                port = target.port(),
            )),
        }
    }

    /// Whether `conns` connections fit between so many targets and sources (0 sources: the
    /// kernel's choice, which is one).
    pub(crate) fn check(&self, conns: u64, targets: u64, sources: u64) -> Result<(), String> {
        let sources = sources.max(1);
        let room = self.count() * targets * sources;
        if conns <= room {
            return Ok(());
        }
        let mut message = format!(
            "{conns} connections do not fit: {} local ports ({}-{}) to each of {targets} \
             target(s) from {sources} source(s) make {room}.",
            self.count(),
            self.first,
            self.last,
        );
        if self.count() > 0 {
            let needed = conns.div_ceil(self.count() * sources);
            let _ = write!(
                message,
                " Give {needed} targets (a server on this machine that listens on 0.0.0.0 has all \
                 of --target 127.0.0.1-{}:PORT), or more --source addresses,",
                needed.min(254)
            );
        }
        message += " or widen the range: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\" \
                    (reserve the server's port: net.ipv4.ip_local_reserved_ports)";
        Err(message)
    }
}

/// Sources must be of this machine, and of the targets' family.
pub(crate) fn check_sources(sources: &[IpAddr], targets: &[SocketAddr]) -> Result<(), String> {
    for source in sources {
        if targets.iter().any(|target| target.is_ipv4() != source.is_ipv4()) {
            return Err(format!(
                "--source {source} cannot reach every target: IPv4 and IPv6 do not mix"
            ));
        }
        if let Err(error) = TcpListener::bind((*source, 0)) {
            return Err(format!(
                "--source {source} is not an address of this machine ({error}): \
                 add it with `ip address add {source} dev DEVICE`"
            ));
        }
    }
    Ok(())
}

/// Connects to every target once.
pub(crate) fn check_targets(targets: &[SocketAddr]) -> Result<(), String> {
    for target in targets {
        if let Err(error) = TcpStream::connect_timeout(target, PROBE_TIMEOUT) {
            return Err(format!(
                "cannot connect to {target} ({error}): start the server first, and have it \
                 listen on 0.0.0.0 when there are several target addresses"
            ));
        }
    }
    Ok(())
}

/// Fewer connections hardly ever get one port of a range.
const MANY_CONNS: u64 = 1000;

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// Shows how the kernel's two settings make the number of ports.
    #[test]
    fn reserved_ports_are_not_counted() {
        let ports = Ports::parse("32768\t60999\n", "\n");
        assert_eq!(ports.count(), 28_232);
        let ports = Ports::parse("1024 65535", "8000,8080-8089,1-1030");
        assert_eq!(ports.count(), 64_512 - 1 - 10 - 7);
        assert_eq!(Ports::parse("", "").count(), 28_232);
    }

    /// Shows that the bound is ports x targets x sources, and that the message says how many
    /// targets would do.
    #[test]
    fn too_few_ports_are_an_error_with_the_remedy() {
        let ports = Ports { first: 32768, last: 60999, reserved: Vec::new() };
        assert_eq!(ports.check(28_232, 1, 0), Ok(()));
        assert_eq!(ports.check(100_000, 4, 0), Ok(()));
        assert_eq!(ports.check(100_000, 2, 2), Ok(()));
        let message = ports.check(100_000, 1, 0).unwrap_err();
        assert!(message.contains("Give 4 targets"), "{message}");
        assert!(message.contains("127.0.0.1-4:PORT"), "{message}");
        assert!(message.contains("ip_local_port_range"), "{message}");
    }

    /// Shows that many connections do not run beside a local server whose port a client may get, that
    /// few do, and that a reserved port, a port outside the range and another machine's are fine.
    #[test]
    fn clients_cannot_get_the_port_of_their_server() {
        let check = |reserved, conns, target: &str| {
            Ports::parse("32768 60999", reserved).check_servers(conns, &[target.parse().unwrap()])
        };
        let message = check("1-9,8080", 1000, "127.0.0.1:40000").unwrap_err();
        assert!(message.contains("net.ipv4.ip_local_reserved_ports=1-9,8080,40000"), "{message}");
        for (reserved, conns, target) in [
            ("", 999, "127.0.0.1:40000"),
            ("40000", 1000, "127.0.0.1:40000"),
            ("39000-41000", 1000, "127.0.0.1:40000"),
            ("", 1000, "127.0.0.1:18000"),
            ("", 1000, "203.0.113.7:40000"),
        ] {
            assert_eq!(check(reserved, conns, target), Ok(()), "{reserved} {conns} {target}");
        }
    }

    /// Shows that an address of another machine is found before the run.
    #[test]
    fn a_foreign_source_is_an_error_with_the_remedy() {
        let targets = ["127.0.0.1:80".parse().unwrap()];
        let foreign = ["203.0.113.7".parse().unwrap()];
        let message = check_sources(&foreign, &targets).unwrap_err();
        assert!(message.contains("ip address add 203.0.113.7"), "{message}");
        let message = check_sources(&["::1".parse().unwrap()], &targets).unwrap_err();
        assert!(message.contains("do not mix"), "{message}");
        assert_eq!(check_sources(&["127.0.0.9".parse().unwrap()], &targets), Ok(()));
    }

    /// Shows that a target without a server is found before the run.
    #[test]
    fn a_target_without_a_server_is_an_error() {
        use nix::sys::socket::*;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(check_targets(&[listener.local_addr().unwrap()]), Ok(()));
        // Bound and not listening: no other program can listen there meanwhile.
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let bound: SockaddrIn = getsockname(fd.as_raw_fd()).unwrap();
        let message = check_targets(&[SocketAddr::V4(bound.into())]).unwrap_err();
        assert!(message.contains("start the server first"), "{message}");
    }
}
