//! Trusted proxies, and how they name their clients.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use murre_codec::http::Request;

/// The peers that the server trusts to name the client of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The networks of the proxies.
    pub networks: Vec<IpNet>,
    /// Whether peers at Unix sockets, which have no address, are proxies.
    pub unix: bool,
    /// Whether connections of proxies begin with a PROXY protocol header. If not, their requests
    /// have an `X-Forwarded-For` field, and the server reads that of each WebSocket handshake.
    pub header: bool,
}

impl Proxies {
    /// Returns whether the peer is a trusted proxy. A peer without an address is at a Unix socket.
    pub(super) fn trust_peer(&self, peer: Option<SocketAddr>) -> bool {
        peer.map_or(self.unix, |peer| self.trust(peer.ip()))
    }

    /// Returns whether the address belongs to a trusted proxy.
    pub(super) fn trust(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| canonical(*network).contains(&ip))
    }

    /// The client of a proxy's request. Each proxy on the way appends the address of its own peer,
    /// so the client is the last address that is not a trusted proxy. Anybody can have written the
    /// addresses before it.
    pub(super) fn client(&self, request: &Request<'_, '_>) -> Option<IpAddr> {
        let mut heard_from: Vec<&[u8]> = request.headers_named("x-forwarded-for").collect();
        heard_from.reverse();
        let mut heard_from = heard_from.iter().flat_map(|list| list.rsplit(|&byte| byte == b','));
        // No trusted proxy wrote an entry that cannot be read, nor any entry before it.
        let known = heard_from.by_ref().map_while(address);
        known.into_iter().find(|&ip| !self.trust(ip))
    }
}

/// An IPv4 network written with IPv4-mapped addresses (RFC 4291 section 2.5.5.2) becomes the IPv4
/// network; others stay unchanged.
fn canonical(network: IpNet) -> IpNet {
    let (IpAddr::V4(ip), Some(bits)) =
        (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS))
    else {
        return network;
    };
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(_) => Ipv4Net::new(ip, bits).map_or(network, IpNet::V4),
    }
}

/// The prefix length of `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

/// Reads an address. Some proxies add a port, and put an IPv6 address in brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || {
        let ip = text.strip_prefix('[')?.strip_suffix(']')?;
        Some(IpAddr::V6(ip.parse().ok()?))
    };
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    /// The client is the last address that is not a trusted proxy, in however many fields.
    #[test]
    fn the_client_is_the_last_who_is_no_proxy() {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|net| net.parse().expect(net));
        let proxies = Proxies { networks: networks.into(), ..Proxies::default() };
        for (fields, client) in [
            ("X-Forwarded-For: 203.0.113.7\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 6.6.6.6,203.0.113.7, 10.1.1.1 ,10.2.2.2\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 203.0.113.7\r\nx-forwarded-for: 10.1.1.1\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 2001:db8::7, 2001:db8:1::1\r\n", Some("2001:db8::7")),
            ("X-Forwarded-For: 203.0.113.7:50000, [2001:db8:1::1]:80\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: [2001:db8::7], [2001:db8:1::1]\r\n", Some("2001:db8::7")),
            ("X-Forwarded-For: [2001:db8::7]:443, 10.1.1.1:80\r\n", Some("2001:db8::7")),
            ("X-Forwarded-For: 2001:db8::7, [10.1.1.1]\r\n", None),
            (
                "X-Forwarded-For: ::ffff:203.0.113.7, ::ffff:10.1.1.1\r\n",
                Some("::ffff:203.0.113.7"),
            ),
            ("X-Forwarded-For: 203.0.113.7, unknown\r\n", None),
            ("X-Forwarded-For: 10.1.1.1\r\n", None),
            ("X-Forwarded-For: 203.0.113.7,\r\n", None),
            ("", None),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: m\r\n{fields}\r\n");
            let mut parsed = http::fields();
            let mut decoder = RequestDecoder::default();
            match decoder.decode(head.as_bytes(), &mut parsed, &RequestLimits::default()) {
                Ok(Progress::Request(request)) => {
                    let client = client.map(|ip| ip.parse().expect("an address"));
                    assert_eq!(proxies.client(&request), client, "{fields:?}");
                }
                _ => panic!("{head:?} is no whole request"),
            }
        }
    }

    /// A network of IPv4-mapped addresses becomes the IPv4 network; a larger network stays
    /// unchanged.
    #[test]
    fn mapped_networks_are_networks_of_ipv4() {
        for (network, ip, is_trusted) in [
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("::ffff:10.1.2.3/128", "10.1.2.3", true),
            ("::ffff:10.1.2.3/128", "10.1.2.4", false),
            ("::ffff:0:0/96", "192.0.2.1", true),
            ("::ffff:0:0/96", "2001:db8::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
        ] {
            let networks = vec![network.parse().expect(network)];
            let proxies = Proxies { networks, header: false, ..Proxies::default() };
            assert_eq!(proxies.trust(ip.parse().expect(ip)), is_trusted, "{ip} in {network}");
        }
    }
}
