//! Headers of the PROXY protocol, held against what a reader of a stream needs and against `ppp`.

use std::net::SocketAddr;

use murre_codec::proxy_protocol::{self, HEADER_BYTES_MAX, ProxyHeader, ProxyHeaderError};
use ppp::{HeaderResult, v1, v2};

/// Any bytes: what they are does not change when more comes, is known soon enough, and is what
/// another reader says.
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
                // They take a port with a sign, and an LF that is no end of a line.
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
                // What is no TCP connection, and what is longer than we take.
                let tcp_or_untold = matches!(theirs.header[13], 0x00 | 0x11 | 0x21 | 0x31);
                let long = theirs.len() > HEADER_BYTES_MAX;
                return assert!(!tcp_or_untold || long, "only they take {theirs:?}");
            }
            assert_eq!(ours, Ok(Some(ProxyHeader { size: theirs.len(), from })));
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            // They read what is to be ignored: behind UNKNOWN, of LOCAL, and of paths.
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
