//! Tests of WebSockets on the data port, with tungstenite and with raw frames.

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use crate::server::{BINARY, CLOSE, PING, Server, TEXT, frame};

/// Messages of any size come back unchanged, text as text and binary as binary.
#[test]
fn echo_gives_every_message_back() {
    let server = Server::start(&[]);
    let mut socket = server.websocket("/echo");
    for size in [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 500_000, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let text: String = (0..size).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        for message in [Message::binary(bytes), Message::text(text)] {
            socket.send(message.clone()).expect("sent");
            assert!(socket.read().expect("an answer") == message, "{size} bytes differ");
        }
    }
    assert_eq!(server.stats()["total"]["websockets_open"], 1);
}

/// Many messages in flight come back in order.
#[test]
fn echo_keeps_the_order() {
    let server = Server::start(&[]);
    let mut socket = server.websocket("/echo");
    for number in 0..1000 {
        socket.write(Message::text(number.to_string())).expect("buffered");
    }
    socket.flush().expect("sent");
    for number in 0..1000 {
        assert_eq!(socket.read().expect("an answer"), Message::text(number.to_string()));
    }
}

/// Texts come back in upper case, in any script; binary messages are refused with 1003.
#[test]
fn upper_gives_upper_case() {
    let server = Server::start(&[]);
    let mut socket = server.websocket("/upper");
    let long = "wave ".repeat(20_000);
    for text in ["", "a murre lays one egg", "größe", "ὀδυσσεύς", long.as_str()] {
        socket.send(Message::text(text)).expect("sent");
        assert_eq!(socket.read().expect("an answer"), Message::text(text.to_uppercase()));
    }
    socket.send(Message::binary(vec![1, 2, 3])).expect("sent");
    let Message::Close(Some(CloseFrame { code, .. })) = socket.read().expect("a close frame")
    else {
        panic!("not closed");
    };
    assert_eq!(code, CloseCode::Unsupported);
}

/// Fragments with a ping between them are one message, and the ping is answered first.
#[test]
fn fragments_are_one_message() {
    let server = Server::start(&[]);
    let mut client = server.raw_websocket("/echo");
    client.send(&frame(0x01, b"one "));
    client.send(&frame(0x00, b"two "));
    client.send(&frame(PING, b"there?"));
    assert_eq!(client.bytes(8), b"\x8a\x06there?");
    client.send(&frame(0x80, b"three"));
    assert_eq!(client.bytes(15), b"\x81\x0done two three");
    for byte in frame(BINARY, &[7; 60]) {
        client.send(&[byte]);
    }
    assert_eq!(client.bytes(62)[..3], [0x82, 60, 7]);
}

/// Frames in the same packet as the handshake are handled.
#[test]
fn frames_may_follow_the_handshake_at_once() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut bytes = b"GET /healthz HTTP/1.1\r\nHost: m\r\n\r\nGET /upper HTTP/1.1\r\nHost: m\r\n\
        Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    bytes.extend(frame(TEXT, b"early"));
    client.send(&bytes);
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.bytes(7), b"\x81\x05EARLY");
}

/// A client that closes gets its code back, and then the end of the connection.
#[test]
fn a_close_is_answered_with_its_code() {
    let server = Server::start(&[]);
    let mut socket = server.websocket("/echo");
    let bye = CloseFrame { code: CloseCode::Library(4321), reason: "bye".into() };
    socket.close(Some(bye)).expect("sent");
    let answer = socket.read().expect("a close frame");
    assert!(
        matches!(answer, Message::Close(Some(frame)) if frame.code == CloseCode::Library(4321))
    );
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));

    let mut client = server.raw_websocket("/echo");
    client.send(&frame(CLOSE, &[]));
    assert_eq!(client.rest(), b"\x88\x00");
    drop((socket, client));
    server.wait_until("reclaimed", |stats| stats["closed"]["finished"] == 2);
}

/// A path without WebSocket answers a handshake like any other request.
#[test]
fn handshakes_elsewhere_are_answered() {
    let server = Server::start(&[]);
    for (path, status) in [("/nowhere", 404), ("/healthz", 200)] {
        let url = format!("ws://{}{path}", server.data);
        let Err(error) = tungstenite::client(url, server.connect().0) else {
            panic!("{path} opened");
        };
        let tungstenite::HandshakeError::Failure(Error::Http(answer)) = error else {
            panic!("{path}: {error}");
        };
        assert_eq!(answer.status(), status, "{path}");
    }
}

/// The server stops reading from a client that sends without reading, and no message is lost.
#[test]
fn a_client_that_does_not_read_is_not_read() {
    let server = Server::start(&["--max-send-bytes=131072"]);
    let mut client = server.raw_websocket("/echo");
    let payload = [5; 100];
    let count = 100_000;
    let mut writer = client.0.try_clone().expect("a second handle");
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        let frames = frame(BINARY, &payload).repeat(100);
        for _ in 0..count / 100 {
            writer.write_all(&frames).expect("it reads in the end");
        }
    });
    server.wait_until("paused", |stats| stats["total"]["receives_paused"] != 0);
    for _ in 0..count {
        let frame = client.bytes(2 + payload.len());
        assert_eq!((&frame[..2], &frame[2..]), (&[0x82, 100][..], &payload[..]));
    }
    writing.join().expect("all written");
}
