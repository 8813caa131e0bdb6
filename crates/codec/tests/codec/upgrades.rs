//! The opening handshake (RFC 6455 section 4), with tungstenite as client and as server.

use std::io;

use murre_codec::handshake::{self, HandshakeError};
use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits, ResponseDecoder};
use tungstenite::handshake::client::generate_key;

use crate::oracles::upgrades::{KEY, Peer};

const GOOD: &str = "GET /chat HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The result of the check of a request: the key and the protocols, or the error.
fn checked(request: &str) -> Result<(String, Vec<String>), HandshakeError> {
    let mut fields = http::fields();
    let mut decoder = RequestDecoder::default();
    let progress = decoder.decode(request.as_bytes(), &mut fields, &RequestLimits::default());
    let Ok(Progress::Request(request)) = progress else { panic!("{progress:?}") };
    let upgrade = handshake::check(&request)?;
    let key = String::from_utf8_lossy(upgrade.key).into_owned();
    Ok((key, upgrade.protocols().map(str::to_owned).collect()))
}

/// A handshake is accepted with its fields in any form that HTTP allows.
#[test]
fn handshakes_that_are_right() {
    let no_protocols: Vec<String> = vec![];
    for (part, replacement) in [
        ("", ""),
        ("Upgrade: websocket", "upgrade: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nconnection: upgrade"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        ("Host: m", "Host: m\r\nOrigin: http://m"),
    ] {
        let request = GOOD.replacen(part, replacement, 1);
        assert_eq!(checked(&request), Ok((KEY.to_owned(), no_protocols.clone())), "{request:?}");
    }
}

/// Every rule of section 4.2.1 has its error, with the status and the fields of the refusal.
#[test]
fn handshakes_that_are_refused() {
    for (part, replacement, refusal, status) in [
        ("GET", "POST", HandshakeError::Method, 405),
        ("HTTP/1.1", "HTTP/1.0", HandshakeError::NotAsked, 426),
        ("Upgrade: websocket\r\n", "", HandshakeError::NotAsked, 426),
        ("Upgrade: websocket", "Upgrade: websockets", HandshakeError::NotAsked, 426),
        ("Connection: Upgrade\r\n", "", HandshakeError::NotAsked, 426),
        ("Connection: Upgrade", "Connection: close", HandshakeError::NotAsked, 426),
        ("Version: 13", "Version: 8", HandshakeError::WebSocketVersion, 426),
        ("Version: 13", "Version: 13, 8", HandshakeError::WebSocketVersion, 426),
        ("Sec-WebSocket-Version: 13\r\n", "", HandshakeError::WebSocketVersion, 426),
        ("Host: m", "Host: m\r\nSec-WebSocket-Version: 13", HandshakeError::WebSocketVersion, 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", HandshakeError::Key, 400),
        (KEY, "", HandshakeError::Key, 400),
        (KEY, "dGhlIHNhbXBsZSBub25jZQ=", HandshakeError::Key, 400),
        (KEY, "dGhlIHNhbXBsZSBub25jZWU=", HandshakeError::Key, 400), // 17 bytes
        (KEY, "dGhlIHNhbXBsZSBub25j", HandshakeError::Key, 400),     // 15 bytes
        (KEY, "dGhlIHNhbXBsZSBub25jZR==", HandshakeError::Key, 400), // spare bits that are set
        (KEY, "dGhlIHNhbXBsZSBub25j*Q==", HandshakeError::Key, 400),
        (
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version",
            HandshakeError::Key,
            400,
        ),
        ("Host: m", "Host: m\r\nSec-WebSocket-Protocol: \u{e9}", HandshakeError::Protocols, 400),
    ] {
        let request = GOOD.replacen(part, replacement, 1);
        assert_eq!(checked(&request), Err(refusal), "{request:?}");
        let response = refusal.response();
        assert_eq!(response.status, status, "{refusal:?}");
        assert!(!response.body.is_empty(), "{refusal:?} says why");
        // Section 4.4, and RFC 9110 sections 7.8 and 15.5.22.
        if status == 426 {
            for (name, value) in [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
            ] {
                assert_eq!(response.headers.get(name), Some(value), "{refusal:?}: {name}");
            }
        }
    }
    let allow = HandshakeError::Method.response();
    assert_eq!(allow.headers.get("Allow"), Some("GET"), "RFC 9110 section 15.5.6");
}

/// Subprotocols have the client's order, in one field or several (section 11.3.4).
#[test]
fn protocols_are_offered() {
    let request = GOOD.replace(
        "Host: m",
        "Host: m\r\nSec-WebSocket-Protocol: chat ,  superchat,,\r\nsec-websocket-protocol: v2",
    );
    let protocols = ["chat", "superchat", "v2"].map(str::to_owned).to_vec();
    assert_eq!(checked(&request), Ok((KEY.to_owned(), protocols)));
}

/// Whether our client accepts this response to its handshake.
fn accepted(response: &str) -> bool {
    let mut fields = http::fields();
    let received = ResponseDecoder::default().decode(response.as_bytes(), &mut fields);
    let Ok(Some(received)) = received else { panic!("{received:?}") };
    handshake::accepted(&received, KEY)
}

/// Our client accepts the responses of our server, and refuses those that section 4.1 forbids.
#[test]
fn answers_are_checked() {
    let mut out = vec![];
    handshake::accept(&mut out, KEY.as_bytes(), None);
    let good = String::from_utf8(out).expect("text");
    assert!(accepted(&good));
    for (part, replacement) in [
        ("101 Switching Protocols", "200 OK\r\nContent-Length: 0"),
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade\r\n", ""),
        ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "t3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Accept", "X-Accept"),
        ("Connection", "Sec-WebSocket-Extensions: x\r\nConnection"),
    ] {
        assert!(!accepted(&good.replacen(part, replacement, 1)), "{replacement:?} for {part:?}");
    }
}

/// Tungstenite's server accepts our client's handshake, and our client accepts its response.
#[test]
fn tungstenite_accepts_our_handshake() {
    let key = generate_key();
    let mut request = vec![];
    handshake::request(&mut request, "127.0.0.1:8000", "/chat?x=1", &key, None);
    let socket = tungstenite::accept(Peer::says(request)).expect("a handshake");
    let mut fields = http::fields();
    let received = ResponseDecoder::default().decode(&socket.get_ref().told, &mut fields);
    let Ok(Some(received)) = received else { panic!("{received:?}") };
    assert!(handshake::accepted(&received, &key));
}

/// We accept the handshake of tungstenite's client, and it accepts our response.
#[test]
fn tungstenite_is_accepted() {
    let waiting = tungstenite::client("ws://127.0.0.1:8000/chat", Peer::says(vec![]));
    let Err(tungstenite::HandshakeError::Interrupted(mut handshake)) = waiting else {
        panic!("nothing has been answered yet")
    };
    let request = String::from_utf8(handshake.get_ref().get_ref().told.clone()).expect("text");
    let (key, _) = checked(&request).expect("a handshake");
    let mut answer = vec![];
    handshake::accept(&mut answer, key.as_bytes(), None);
    handshake.get_mut().get_mut().says = io::Cursor::new(answer);
    let (_, response) = handshake.handshake().expect("our answer is right");
    assert_eq!(response.status(), 101);
}
