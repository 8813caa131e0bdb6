//! The PROXY protocol: valid headers, the client that they name, and their end.

use std::net::SocketAddr;

use murre_codec::proxy_protocol::{self, HEADER_BYTES_MAX, ProxyHeader, ProxyHeaderError};
use proptest::prelude::*;

use crate::oracles::proxies as oracle;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with this command, this transport and this content.
fn binary(command: u8, transport: u8, block: &[u8]) -> Vec<u8> {
    let len = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, transport], &len, block].concat()
}

/// The addresses of a connection, in the form of a version 2 header.
fn addresses(from: SocketAddr, to: SocketAddr) -> (u8, Vec<u8>) {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            (0x11, [&from.ip().octets()[..], &to.ip().octets(), &ports].concat())
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            (0x21, [&from.ip().octets()[..], &to.ip().octets(), &ports].concat())
        }
        _ => unreachable!("of one family"),
    }
}

/// A header of version 1.
fn line(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let (ips, ports) = ([from.ip(), to.ip()], [from.port(), to.port()]);
    format!("PROXY {family} {} {} {} {}\r\n", ips[0], ips[1], ports[0], ports[1]).into_bytes()
}

fn said(header: &[u8]) -> Result<Option<Option<SocketAddr>>, ProxyHeaderError> {
    let parsed = proxy_protocol::parse(header)?;
    Ok(parsed.map(|ProxyHeader { size, from }| {
        assert_eq!(size, header.len(), "the header and no more");
        from
    }))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// One header of each kind is read, as literal bytes.
#[test]
fn examples() {
    let v4 = [&[203, 0, 113, 7, 192, 0, 2, 1][..], &[0xc3, 0x50, 0x1f, 0x90]].concat();
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    v6[15] = 7;
    v6[32..].copy_from_slice(&[0xc3, 0x50, 0x1f, 0x90]);
    // An ALPN and 100 bytes of padding.
    let tlvs = [&b"\x01\0\x02h2\x04\0\x64"[..], &[0; 100]].concat();
    let certificate = [&b"\x20\x1f\x40"[..], &[0; 8000]].concat();
    for (header, from) in [
        (binary(0x21, 0x11, &v4), Some("203.0.113.7:50000")),
        (binary(0x21, 0x11, &[&v4[..], &tlvs].concat()), Some("203.0.113.7:50000")),
        (binary(0x21, 0x11, &[&v4[..], &certificate].concat()), Some("203.0.113.7:50000")),
        (binary(0x21, 0x21, &v6), Some("[2001:db8::7]:50000")),
        (binary(0x21, 0x21, &[&v6[..], &tlvs].concat()), Some("[2001:db8::7]:50000")),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
        (binary(0x21, 0x00, b""), None),
        (binary(0x21, 0x00, &tlvs), None),
        // LOCAL, whose addresses are ignored.
        (binary(0x20, 0x00, b""), None),
        (binary(0x20, 0x11, &v4), None),
        (binary(0x20, 0xff, b"?"), None),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8000\r\n".to_vec(), Some("203.0.113.7:50000")),
        (b"PROXY TCP6 2001:db8::7 ::1 50000 8000\r\n".to_vec(), Some("[2001:db8::7]:50000")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n".to_vec(), None),
    ] {
        assert_eq!(said(&header), Ok(Some(from.map(address))), "{header:?}");
    }
}

/// Bytes that cannot become a header are refused as soon as this is certain.
#[test]
fn what_is_no_header() {
    let v4 = [0; 12];
    let long = vec![0; HEADER_BYTES_MAX - SIGNATURE.len() - 4 + 1];
    for header in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIX".to_vec(),
        b"PROXIED".to_vec(),
        [SIGNATURE, &[0x11]].concat(),
        [SIGNATURE, &[0x22]].concat(),
        binary(0x11, 0x11, &v4),
        binary(0x22, 0x11, &v4),
        // UDP, and undefined transports.
        binary(0x21, 0x12, &v4),
        binary(0x21, 0x22, &[0; 36]),
        binary(0x21, 0x41, &v4),
        // Too short for the addresses.
        binary(0x21, 0x11, &v4[1..]),
        binary(0x21, 0x21, &[0; 35]),
        // Too long, whatever follows.
        binary(0x21, 0x11, &long)[..16].to_vec(),
        b"PROXY \r\n".to_vec(),
        b"PROXY TCP5 203.0.113.7 192.0.2.1 50000 8000\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 ::1 50000 8000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8000 \r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7  192.0.2.1 50000 8000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 +5000 8000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 8000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 08000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8000\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 93]].concat(),
    ] {
        assert_eq!(proxy_protocol::parse(&header), Err(ProxyHeaderError), "{header:?}");
    }
}

fn connection() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], [u8; 4], u16, u16)>()
        .prop_map(|(from, to, port, door)| ((from, port).into(), (to, door).into()));
    let v6 = any::<([u8; 16], [u8; 16], u16, u16)>()
        .prop_map(|(from, to, port, door)| ((from, port).into(), (to, door).into()));
    prop_oneof![v4, v6]
}

proptest! {
    /// The header of any connection in either version, with any extensions and any bytes after it,
    /// gives the client and the end of the header; cut anywhere before, it asks for more.
    #[test]
    fn headers_are_read_in_any_cut(
        (from, to) in connection(),
        tlvs in prop::collection::vec(any::<u8>(), 0..300),
        behind in prop::collection::vec(any::<u8>(), 0..20),
        binary_form in any::<bool>(),
    ) {
        let header = match binary_form {
            true => {
                let (transport, block) = addresses(from, to);
                binary(0x21, transport, &[block, tlvs].concat())
            }
            false => line(from, to),
        };
        let whole = [&header[..], &behind].concat();
        let expected = ProxyHeader { size: header.len(), from: Some(from) };
        prop_assert_eq!(proxy_protocol::parse(&whole), Ok(Some(expected)));
        for cut in 0..header.len() {
            prop_assert_eq!(proxy_protocol::parse(&header[..cut]), Ok(None), "cut at {}", cut);
        }
    }

    /// Any bytes after any prefix of a header follow the rules of the oracle.
    #[test]
    fn any_bytes(
        beginning in prop_oneof![Just(&b""[..]), Just(SIGNATURE), Just(&b"PROXY TCP4 "[..])],
        version in 0x1fu8..0x23,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        oracle::check(&[beginning, &[version], &bytes].concat());
    }
}
