//! The opening handshake, compared with its rules and with tungstenite.

use std::io::{self, Read, Write};

use murre_codec::handshake::{self, HandshakeError};
use murre_codec::http::{self, Progress, Request, RequestDecoder, RequestLimits, ResponseDecoder};
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::HandshakeError as TungsteniteError;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{self, create_response};

pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Checks any bytes: the first one selects the side that receives the rest.
pub(crate) fn check(bytes: &[u8]) {
    match bytes {
        [0, request @ ..] => requests_are_judged_by_the_rules(request),
        [_, response @ ..] => answers_are_judged_as_by_tungstenite(response),
        [] => {}
    }
}

/// The server accepts or refuses a request by the rules of RFC 6455 section 4.2.1, and as
/// tungstenite does, except for repeated fields and lists.
fn requests_are_judged_by_the_rules(bytes: &[u8]) {
    let mut fields = http::fields();
    let progress = RequestDecoder::default().decode(bytes, &mut fields, &RequestLimits::default());
    let Ok(Progress::Request(request)) = progress else { return };
    let checked = handshake::check(&request);
    let judged = naive(&request);
    assert_eq!(checked.as_ref().map(|upgrade| upgrade.key).map_err(|&why| why), judged);
    let theirs = server::Request::try_parse(bytes);
    let theirs = theirs.and_then(|parsed| create_response(&parsed.expect("the head is whole").1));
    match (checked, theirs) {
        (Ok(ours), Ok(theirs)) => {
            let mut answer = vec![];
            handshake::accept(&mut answer, ours.key, None);
            let answer = String::from_utf8(answer).expect("text");
            let accept = theirs.headers()["sec-websocket-accept"].to_str().expect("text");
            assert!(answer.contains(&format!("\r\nSec-WebSocket-Accept: {accept}\r\n")));
            ours.protocols().for_each(|protocol| assert!(!protocol.contains([',', '\r', '\n'])));
        }
        (Ok(_), Err(error)) => {
            // Tungstenite reads only the first field, takes no list, and accepts fewer targets.
            use ProtocolError::*;
            let known = matches!(
                error,
                Error::Protocol(MissingConnectionUpgradeHeader | MissingUpgradeWebSocketHeader)
                    | Error::HttpFormat(_)
            );
            assert!(known, "only they refuse: {error:?}");
        }
        (Err(why), Ok(_)) => {
            // Tungstenite takes the first of several fields, and leaves the protocols to its
            // caller.
            use HandshakeError::*;
            assert!(matches!(why, WebSocketVersion | Key | Protocols | NotAsked), "{why:?}");
        }
        (Err(_), Err(_)) => {}
    }
}

/// The rules, in the order in which they refuse.
fn naive<'b>(request: &Request<'b, '_>) -> Result<&'b [u8], HandshakeError> {
    let values = |name: &str| {
        let fields = request.headers.iter().filter(|field| field.name.to_lowercase() == name);
        fields.map(|field| field.value).collect::<Vec<_>>()
    };
    let lists = |name: &str, option: &str| {
        let items = values(name).join(&b',');
        items
            .split(|&byte| byte == b',')
            .any(|item| String::from_utf8_lossy(item.trim_ascii()).to_ascii_lowercase() == option)
    };
    let key = values("sec-websocket-key");
    if request.method != "GET" {
        Err(HandshakeError::Method)
    } else if request.minor_version != 1
        || !lists("upgrade", "websocket")
        || !lists("connection", "upgrade")
    {
        Err(HandshakeError::NotAsked)
    } else if values("sec-websocket-version") != [b"13"] {
        Err(HandshakeError::WebSocketVersion)
    } else if key.len() != 1 || !is_base64_of_16_bytes(key[0]) {
        Err(HandshakeError::Key)
    } else if !values("sec-websocket-protocol").concat().is_ascii() {
        Err(HandshakeError::Protocols)
    } else {
        Ok(key[0])
    }
}

/// Whether the text is base64 of 16 bytes (RFC 4648 section 4), with its spare bits zero.
fn is_base64_of_16_bytes(text: &[u8]) -> bool {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let Some(digits) = text.strip_suffix(b"==").filter(|digits| digits.len() == 22) else {
        return false;
    };
    let bits = digits.iter().try_fold((0_u128, 0), |(bits, _), digit| {
        let value = alphabet.iter().position(|letter| letter == digit)? as u128;
        // 22 digits have 132 bits: the last four are spare.
        Some((bits << 6 | value, value & 15))
    });
    bits.is_some_and(|(_, spare)| spare == 0)
}

/// The client accepts a response as tungstenite's client does, except for lists and fields that it
/// did not ask for.
fn answers_are_judged_as_by_tungstenite(bytes: &[u8]) {
    let mut fields = http::fields();
    let Ok(Some(response)) = ResponseDecoder::default().decode(bytes, &mut fields) else { return };
    let ours = handshake::accepted(&response, KEY);
    let theirs = tungstenite_takes(&bytes[..response.size]);
    let is = |name: &str, value: &str| {
        response.header(name).is_some_and(|of| of.eq_ignore_ascii_case(value.as_bytes()))
    };
    let plain = is("upgrade", "websocket") && is("connection", "upgrade");
    let asked_for = response.header("sec-websocket-extensions").is_none();
    let of_http_1_1 = bytes.trim_ascii_start().starts_with(b"HTTP/1.1");
    let protocol = response.header("sec-websocket-protocol").is_some();
    if theirs {
        assert!(ours || !asked_for, "only they take it");
    } else if ours {
        assert!(!plain || !of_http_1_1 || protocol, "only we take it");
    }
}

/// Whether tungstenite's client, after sending our key, accepts this response.
fn tungstenite_takes(answer: &[u8]) -> bool {
    let request = tungstenite::http::Request::builder()
        .uri("ws://murre/")
        .header("Host", "murre")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", KEY)
        .body(())
        .expect("a request");
    let peer = Peer::says(answer.to_vec());
    match ClientHandshake::start(peer, request, None).expect("a handshake").handshake() {
        Ok(_) => true,
        Err(TungsteniteError::Failure(_)) => false,
        Err(TungsteniteError::Interrupted(_)) => panic!("the answer is whole"),
    }
}

/// A peer that sends nothing after these bytes.
pub(crate) struct Peer {
    pub(crate) says: io::Cursor<Vec<u8>>,
    pub(crate) told: Vec<u8>,
}

impl Peer {
    pub(crate) fn says(bytes: Vec<u8>) -> Self {
        Peer { says: io::Cursor::new(bytes), told: vec![] }
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.says.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.told.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
