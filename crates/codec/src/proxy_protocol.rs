//! Who is behind a proxy: the header that one writes before a connection's first byte.
//!
//! The PROXY protocol, versions 1 and 2, as HAProxy specifies it
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>). Only from a proxy that is known:
//! anybody can write such a header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a whole header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its bytes: what follows is the client's.
    pub size: usize,
    /// Who has connected to the proxy. `None` where the proxy does not say: it speaks for itself, as
    /// when it looks whether we are well, or its client is on no IP network.
    pub from: Option<SocketAddr>,
}

/// These bytes are no header, or one that is not for a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProxyHeader;

/// The longest header that is taken: addresses and some hundred bytes of extensions are usual.
pub const HEADER_BYTES_MAX: usize = 2048;

/// Section 2.2: no HTTP request begins like this, and no line of version 1.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8; 6] = b"PROXY ";
/// Section 2.1, with the end of the line.
const LINE_BYTES_MAX: usize = 107;

/// Reads the header at the front of `input`. `None`: it is not all there.
///
/// # Errors
/// There is no header, and none can come of it.
pub fn parse(input: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    match input.split_first_chunk() {
        Some((SIGNATURE, rest)) => binary(rest),
        _ if begins(input, SIGNATURE) => Ok(None),
        _ if begins(input, VERSION_1) => line(input),
        _ => Err(BadProxyHeader),
    }
}

/// Whether the two do not differ as far as they go.
fn begins(input: &[u8], with: &[u8]) -> bool {
    input.iter().zip(with).all(|(one, other)| one == other)
}

/// Version 2, behind its signature.
fn binary(input: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let Some((&[command, transport, high, low], rest)) = input.split_first_chunk() else {
        // What is there already must be right.
        let right = input.first().is_none_or(|command| matches!(command, 0x20 | 0x21));
        return if right { Ok(None) } else { Err(BadProxyHeader) };
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let size = SIGNATURE.len() + 4 + len;
    if !matches!(command, 0x20 | 0x21) || size > HEADER_BYTES_MAX {
        return Err(BadProxyHeader);
    }
    let Some(block) = rest.get(..len) else { return Ok(None) };
    // Behind the addresses are extensions, which say nothing that we need.
    let from = match (command, transport) {
        // LOCAL: whatever else is said is to be ignored.
        (0x20, _) => None,
        // TCP over IPv4 and over IPv6: source, destination, and the ports of both.
        (_, 0x11) => {
            let &[a, b, c, d, _, _, _, _, high, low, _, _] =
                block.first_chunk().ok_or(BadProxyHeader)?;
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        (_, 0x21) => {
            let block: &[u8; 36] = block.first_chunk().ok_or(BadProxyHeader)?;
            let (source, _) = block.split_first_chunk::<16>().ok_or(BadProxyHeader)?;
            Some(SocketAddr::from((*source, u16::from_be_bytes([block[32], block[33]]))))
        }
        // Not told, or two paths in a file system.
        (_, 0x00 | 0x31) => None,
        _ => return Err(BadProxyHeader),
    };
    Ok(Some(ProxyHeader { size, from }))
}

/// Version 1: a line for people.
fn line(input: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let seen = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
        return if seen.len() < LINE_BYTES_MAX { Ok(None) } else { Err(BadProxyHeader) };
    };
    let text = seen[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let mut words = text.ok_or(BadProxyHeader)?.split(' ').skip(1);
    let from = match words.next() {
        // The rest of the line is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(source::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(source::<Ipv6Addr>(words)?),
        _ => return Err(BadProxyHeader),
    };
    Ok(Some(ProxyHeader { size: end + 1, from }))
}

/// Source and destination address, source and destination port.
fn source<'w, Ip: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'w str>,
) -> Result<SocketAddr, BadProxyHeader> {
    let address = |word: Option<&str>| word?.parse::<Ip>().ok();
    // Digits alone, and no zero before others.
    let port = |word: Option<&str>| {
        let word = word.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        word.parse::<u16>().ok().filter(|_| word == "0" || !word.starts_with('0'))
    };
    let source = address(words.next());
    let _destination = address(words.next()).ok_or(BadProxyHeader)?;
    let source_port = port(words.next());
    let _destination_port = port(words.next()).ok_or(BadProxyHeader)?;
    match (source, source_port, words.next()) {
        (Some(ip), Some(port), None) => Ok(SocketAddr::new(ip.into(), port)),
        _ => Err(BadProxyHeader),
    }
}
