//! The opening handshake, from HTTP to WebSocket (RFC 6455 section 4). No extension is offered or
//! accepted: a server without extensions ignores offers (section 9.1).

use tungstenite::handshake::derive_accept_key;

use crate::http::{Received, Request, Response};

/// A valid opening handshake of a client.
#[derive(Debug)]
pub struct Upgrade<'r> {
    /// The client's `Sec-WebSocket-Key`.
    pub key: &'r [u8],
    request: &'r Request<'r, 'r>,
}

impl<'r> Upgrade<'r> {
    /// The subprotocols that the client offers, in its order of preference. They may be spread over
    /// several fields (RFC 6455 section 11.3.4).
    pub fn protocols(&self) -> impl Iterator<Item = &'r str> {
        let fields = self.request.headers_named("sec-websocket-protocol");
        // `check` has refused names that are not ASCII.
        let lists = fields.map(|list| std::str::from_utf8(list).unwrap_or_default());
        let protocols = lists.flat_map(|list| list.split(',').map(str::trim));
        protocols.filter(|protocol| !protocol.is_empty())
    }
}

/// The rule that an opening handshake breaks (RFC 6455 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The method is not GET.
    Method,
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing, or the version is HTTP/1.0.
    NotAsked,
    /// `Sec-WebSocket-Version` is not 13, or there are several.
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64, or there are several.
    Key,
    /// `Sec-WebSocket-Protocol` is not ASCII.
    Protocols,
}

impl HandshakeError {
    /// The response that names the rule: 400, 405, or 426 with the version that is supported.
    pub fn response(self) -> Response {
        let (status, why) = match self {
            HandshakeError::Method => (405, "a WebSocket is opened with GET\n"),
            HandshakeError::NotAsked => (426, "this is a WebSocket endpoint\n"),
            HandshakeError::WebSocketVersion => (426, "only WebSocket version 13 is supported\n"),
            HandshakeError::Key => (400, "Sec-WebSocket-Key is not 16 bytes in base64\n"),
            HandshakeError::Protocols => (400, "Sec-WebSocket-Protocol is not ASCII\n"),
        };
        let response = Response::text(status, why);
        match status {
            405 => response.with("Allow", "GET"),
            426 => response
                .with("Upgrade", "websocket")
                .with("Connection", "Upgrade")
                .with("Sec-WebSocket-Version", "13"),
            _ => response,
        }
    }
}

/// Checks a client's opening handshake (RFC 6455 section 4.2.1).
///
/// # Errors
/// The first rule that it breaks.
pub fn check<'r>(request: &'r Request<'_, '_>) -> Result<Upgrade<'r>, HandshakeError> {
    let key = only(request, "sec-websocket-key").unwrap_or_default();
    let mut protocols = request.headers_named("sec-websocket-protocol");
    let rules = [
        (request.method == "GET", HandshakeError::Method),
        (request.wants_websocket(), HandshakeError::NotAsked),
        (only(request, "sec-websocket-version") == Some(b"13"), HandshakeError::WebSocketVersion),
        (is_key(key), HandshakeError::Key),
        (protocols.all(|list| list.is_ascii()), HandshakeError::Protocols),
    ];
    if let Some((_, refusal)) = rules.into_iter().find(|(kept, _)| !kept) {
        return Err(refusal);
    }
    Ok(Upgrade { key, request })
}

/// The value of a field that must not be repeated (RFC 6455 sections 11.3.1 and 11.3.5).
fn only<'r>(request: &'r Request<'_, '_>, name: &str) -> Option<&'r [u8]> {
    let mut values = request.headers_named(name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether `key` is 16 bytes in base64: 22 characters, the last of which has four unused bits, and two
/// of padding.
fn is_key(key: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24
        && key[..22].iter().all(base64)
        && matches!(key[21], b'A' | b'Q' | b'g' | b'w')
        && &key[22..] == b"=="
}

/// Appends the response that accepts the handshake (RFC 6455 section 4.2.2) to `out`, with the
/// subprotocol that the server has chosen.
pub fn accept(out: &mut Vec<u8>, key: &[u8], protocol: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(derive_accept_key(key).as_bytes());
    put_protocol(out, protocol);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a client's opening handshake (RFC 6455 section 4.1) to `out`. `key` is 16 random bytes in
/// base64.
pub fn request(out: &mut Vec<u8>, host: &str, target: &str, key: &str, protocol: Option<&str>) {
    let parts = ["GET ", target, " HTTP/1.1\r\nHost: ", host, "\r\nUpgrade: websocket\r\n"];
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    out.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Key: ");
    out.extend_from_slice(key.as_bytes());
    put_protocol(out, protocol);
    out.extend_from_slice(b"\r\n\r\n");
}

fn put_protocol(out: &mut Vec<u8>, protocol: Option<&str>) {
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
}

/// Whether the server has accepted the handshake with this key, without extensions (RFC 6455 section
/// 4.1). A caller that has offered subprotocols must check the chosen one.
pub fn accepted(response: &Received<'_, '_>, key: &str) -> bool {
    response.status == 101
        && response.lists("upgrade", "websocket")
        && response.lists("connection", "upgrade")
        && response.header("sec-websocket-accept")
            == Some(derive_accept_key(key.as_bytes()).as_bytes())
        && response.header("sec-websocket-extensions").is_none()
}
