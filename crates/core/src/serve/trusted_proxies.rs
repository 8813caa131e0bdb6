//! Proxies that speak for others, and how they say for whom.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use murre_codec::http::Request;

/// Who is believed about where a connection is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Where they are.
    pub networks: Vec<IpNet>,
    /// Their connections begin with a header of the PROXY protocol. Otherwise their requests have
    /// `X-Forwarded-For`, of which that of a WebSocket's handshake is read.
    pub header: bool,
}

impl Proxies {
    /// Whether it is one of them.
    pub(super) fn trust(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Whom a proxy's request is from: each proxy on the way adds whom it has heard it from, so the
    /// last of them that is no proxy of ours is the client. What is before it anybody can have written.
    pub(super) fn client(&self, request: &Request<'_, '_>) -> Option<IpAddr> {
        let mut heard_from: Vec<&[u8]> = request.headers_named("x-forwarded-for").collect();
        heard_from.reverse();
        let mut heard_from = heard_from.iter().flat_map(|list| list.rsplit(|&byte| byte == b','));
        // What cannot be read was not written by a proxy of ours, nor was anything before it.
        let known = heard_from.by_ref().map_while(address);
        known.into_iter().find(|&ip| !self.trust(ip))
    }
}

/// An address, which some proxies write with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    text.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Limits, Progress, RequestDecoder};

    use super::*;

    /// The last that is no proxy of ours counts, in however many fields they are.
    #[test]
    fn the_client_is_the_last_who_is_no_proxy() {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|net| net.parse().expect(net));
        let proxies = Proxies { networks: networks.into(), header: false };
        for (fields, client) in [
            ("X-Forwarded-For: 203.0.113.7\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 6.6.6.6,203.0.113.7, 10.1.1.1 ,10.2.2.2\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 203.0.113.7\r\nx-forwarded-for: 10.1.1.1\r\n", Some("203.0.113.7")),
            ("X-Forwarded-For: 2001:db8::7, 2001:db8:1::1\r\n", Some("2001:db8::7")),
            ("X-Forwarded-For: 203.0.113.7:50000, [2001:db8:1::1]:80\r\n", Some("203.0.113.7")),
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
            match decoder.decode(head.as_bytes(), &mut parsed, &Limits::default()) {
                Ok(Progress::Request(request)) => {
                    let client = client.map(|ip| ip.parse().expect("an address"));
                    assert_eq!(proxies.client(&request), client, "{fields:?}");
                }
                _ => panic!("{head:?} is no whole request"),
            }
        }
    }
}
