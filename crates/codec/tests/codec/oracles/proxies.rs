//! PROXY protocol headers, compared with the needs of a stream's reader and with `ppp`.

use std::net::SocketAddr;

use murre_codec::proxy_protocol::{self, HEADER_BYTES_MAX, ProxyHeader, ProxyHeaderError};
use ppp::{HeaderResult, v1, v2};

/// Checks any bytes: the result does not change when more bytes arrive, is known soon enough, and
/// equals that of another parser.
pub(crate) fn check(bytes: &[u8]) {
    let whole = proxy_protocol::parse(bytes);
    let decided = (0..=bytes.len()).find(|&cut| proxy_protocol::parse(&bytes[..cut]) != Ok(None));
    match (whole, decided) {
        (Ok(Some(header)), Some(cut)) => {
            assert_eq!(header.size, cut, "read as soon as it is there");
            assert!(header.size <= HEADER_BYTES_MAX);
        }
        (Err(_), Some(cut)) => assert!(cut <= HEADER_BYTES_MAX),
        (Ok(None), None) => assert!(bytes.len() < HEADER_BYTES_MAX, "waits for no end"),
        disagreement => panic!("{disagreement:?}"),
    }
    let decided = decided.unwrap_or(bytes.len());
    for cut in decided..=bytes.len() {
        assert_eq!(
            proxy_protocol::parse(&bytes[..cut]),
            whole,
            "the same in {cut} bytes as in all"
        );
    }
    beside_theirs(bytes, whole);
}

fn beside_theirs(bytes: &[u8], ours: Result<Option<ProxyHeader>, ProxyHeaderError>) {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(theirs)) => {
            let from = match theirs.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(v4) => Some((v4.source_address, v4.source_port).into()),
                v1::Addresses::Tcp6(v6) => Some((v6.source_address, v6.source_port).into()),
            };
            if ours == Err(ProxyHeaderError) {
                // `ppp` accepts a port with a sign, and an LF that does not end a line.
                let line = theirs.header.split_inclusive('\n').next();
                let lax = theirs.header.contains(" +")
                    || !line.is_some_and(|line| line.ends_with("\r\n"));
                return assert!(lax, "only they take {theirs:?}");
            }
            assert_eq!(ours, Ok(Some(ProxyHeader { size: theirs.header.len(), from })));
        }
        HeaderResult::V2(Ok(theirs)) => {
            let from = match (theirs.command, theirs.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(v4)) => {
                    Some(SocketAddr::from((v4.source_address, v4.source_port)))
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(v6)) => {
                    Some(SocketAddr::from((v6.source_address, v6.source_port)))
                }
                _ => None,
            };
            if ours == Err(ProxyHeaderError) {
                // Other transports than TCP, and headers longer than our limit.
                let tcp_or_untold = matches!(theirs.header[13], 0x00 | 0x11 | 0x21 | 0x31);
                let long = theirs.len() > HEADER_BYTES_MAX;
                return assert!(!tcp_or_untold || long, "only they take {theirs:?}");
            }
            assert_eq!(ours, Ok(Some(ProxyHeader { size: theirs.len(), from })));
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            // `ppp` parses parts that must be ignored: after UNKNOWN, of LOCAL, and of paths.
            let ignored = |header: ProxyHeader| {
                let header = &bytes[..header.size];
                header.starts_with(b"PROXY UNKNOWN")
                    || matches!(header[12..14], [0x20, _] | [_, 0x31])
            };
            if let Ok(Some(header)) = ours {
                assert!(ignored(header), "only we take {header:?}");
            }
        }
    }
}
