//! The echo peers do the work for which they are measured: an independent client gets its messages
//! back.

#![forbid(unsafe_code)]

use std::net::TcpStream;

use peer::Peer;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

mod peer;

/// The usual server echoes, with the library's own defaults.
#[test]
fn tokio_tungstenite_echoes() {
    echoes(Peer::start(env!("CARGO_BIN_EXE_peer-tokio-tungstenite"), &[]));
}

/// The lean server echoes, with a read buffer smaller than the longest message.
#[test]
fn lean_tokio_tungstenite_echoes() {
    let peer = env!("CARGO_BIN_EXE_peer-tokio-tungstenite");
    echoes(Peer::start(peer, &["--read-buffer", "4096"]));
}

/// The server echoes after hyper has handled the handshake.
#[test]
fn fastwebsockets_echoes() {
    echoes(Peer::start(env!("CARGO_BIN_EXE_peer-fastwebsockets"), &[]));
}

/// The server with one task per connection and our own codec echoes.
#[test]
fn tokio_uring_echoes() {
    echoes(Peer::start(env!("CARGO_BIN_EXE_peer-tokio-uring"), &[]));
}

/// A plain request gets an HTTP response, and its connection then closes.
#[test]
fn tokio_uring_refuses_what_is_not_a_websocket() {
    use std::io::{Read, Write};
    let peer = Peer::start(env!("CARGO_BIN_EXE_peer-tokio-uring"), &[]);
    let mut stream = TcpStream::connect(peer.address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// Checks that every kind of message comes back, on two connections at once, and then closes both.
fn echoes(mut peer: Peer) {
    let mut clients = [peer.connect(), peer.connect()];
    for client in &mut clients {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            sent_back(client, Message::text("x".repeat(length)));
            sent_back(client, Message::binary(vec![length as u8; length]));
        }

        client.send(Message::Ping("still there?".into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong("still there?".into()));

        for (text, opcode, last) in [("frag", Data::Text, false), ("ments", Data::Continue, true)] {
            let frame = Frame::message(text, OpCode::Data(opcode), last);
            client.send(Message::Frame(frame)).unwrap();
        }
        assert_eq!(client.read().unwrap(), Message::text("fragments"));

        // Several messages at once, so that one read holds more than one frame.
        for n in 0..100 {
            client.write(Message::text(n.to_string())).unwrap();
        }
        client.flush().unwrap();
        for n in 0..100 {
            assert_eq!(client.read().unwrap(), Message::text(n.to_string()));
        }
    }
    for mut client in clients {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        client.close(Some(goodbye)).unwrap();
        let Message::Close(Some(answer)) = client.read().unwrap() else { panic!("no close frame") };
        assert_eq!(answer.code, CloseCode::Normal);
        assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    }
    assert!(peer.end_by_sigterm());
}

fn sent_back(client: &mut WebSocket<TcpStream>, message: Message) {
    client.send(message.clone()).unwrap();
    assert!(client.read().unwrap() == message, "{} bytes came back changed", message.len());
}
