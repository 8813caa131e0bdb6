//! The PROXY protocol, versions 1 and 2: the header that a proxy writes before a connection's first
//! byte, with the address of its client.
//!
//! Specified by HAProxy (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>), whose sections
//! this file cites. The caller must know that the peer is a trusted proxy: every client can write such
//! a header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Size of the header in bytes: the client's bytes follow.
    pub size: usize,
    /// The address of the proxy's client. `None` if the connection is the proxy's own, such as a health
    /// check, or if its client is on no IP network.
    pub from: Option<SocketAddr>,
}

/// The bytes are no header, or one that is not for a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeaderError;

/// Largest size of a header in bytes. Addresses and some hundred bytes of extensions are usual, but a
/// certificate of the client or a token may be among them. HAProxy cannot send more than one of its
/// buffers, which has this size (`tune.bufsize`).
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Section 2.2: no HTTP request begins like this, and no line of version 1.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8; 6] = b"PROXY ";
/// Largest size of a line of version 1 with its CRLF (section 2.1).
const LINE_BYTES_MAX: usize = 107;

/// Reads the header at the front of `input`. `None` if it is incomplete.
///
/// # Errors
/// `input` does not begin with a header, and more bytes cannot change that.
pub fn parse(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    match input.split_first_chunk() {
        Some((SIGNATURE, rest)) => binary(rest),
        _ if begins(input, SIGNATURE) => Ok(None),
        _ if begins(input, VERSION_1) => line(input),
        _ => Err(ProxyHeaderError),
    }
}

/// Whether one of the two is a prefix of the other.
fn begins(input: &[u8], with: &[u8]) -> bool {
    input.iter().zip(with).all(|(one, other)| one == other)
}

/// The header of version 2 after its signature (section 2.2).
fn binary(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some((&[command, transport, high, low], rest)) = input.split_first_chunk() else {
        // The bytes that are there must be valid.
        let right = input.first().is_none_or(|command| matches!(command, 0x20 | 0x21));
        return if right { Ok(None) } else { Err(ProxyHeaderError) };
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let size = SIGNATURE.len() + 4 + len;
    if !matches!(command, 0x20 | 0x21) || size > HEADER_BYTES_MAX {
        return Err(ProxyHeaderError);
    }
    let Some(block) = rest.get(..len) else { return Ok(None) };
    // The extensions behind the addresses are not needed.
    let from = match (command, transport) {
        // LOCAL: the receiver must ignore the rest.
        (0x20, _) => None,
        // TCP over IPv4 and over IPv6: source, destination, and the ports of both.
        (_, 0x11) => {
            let &[a, b, c, d, _, _, _, _, high, low, _, _] =
                block.first_chunk().ok_or(ProxyHeaderError)?;
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        (_, 0x21) => {
            let block: &[u8; 36] = block.first_chunk().ok_or(ProxyHeaderError)?;
            let (source, _) = block.split_first_chunk::<16>().ok_or(ProxyHeaderError)?;
            Some(SocketAddr::from((*source, u16::from_be_bytes([block[32], block[33]]))))
        }
        // Unspecified, or two paths of Unix sockets.
        (_, 0x00 | 0x31) => None,
        _ => return Err(ProxyHeaderError),
    };
    Ok(Some(ProxyHeader { size, from }))
}

/// The line of version 1 (section 2.1).
fn line(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let seen = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
        return if seen.len() < LINE_BYTES_MAX { Ok(None) } else { Err(ProxyHeaderError) };
    };
    let text = seen[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let mut words = text.ok_or(ProxyHeaderError)?.split(' ').skip(1);
    let from = match words.next() {
        // The receiver must ignore the rest of the line.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(source::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(source::<Ipv6Addr>(words)?),
        _ => return Err(ProxyHeaderError),
    };
    Ok(Some(ProxyHeader { size: end + 1, from }))
}

/// Reads source and destination address, source and destination port. Returns the source.
fn source<'w, Ip: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'w str>,
) -> Result<SocketAddr, ProxyHeaderError> {
    let address = |word: Option<&str>| word?.parse::<Ip>().ok();
    // Digits only, without a leading zero.
    let port = |word: Option<&str>| {
        let word = word.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        word.parse::<u16>().ok().filter(|_| word == "0" || !word.starts_with('0'))
    };
    let source = address(words.next());
    let _destination = address(words.next()).ok_or(ProxyHeaderError)?;
    let source_port = port(words.next());
    let _destination_port = port(words.next()).ok_or(ProxyHeaderError)?;
    match (source, source_port, words.next()) {
        (Some(ip), Some(port), None) => Ok(SocketAddr::new(ip.into(), port)),
        _ => Err(ProxyHeaderError),
    }
}
