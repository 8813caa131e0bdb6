//! A client of Phoenix Channels over WebSocket, with tungstenite.

use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::known_clients;
use crate::server::{PATIENCE, Server};

/// A Phoenix client that sends and receives messages as they are.
pub(crate) struct Phoenix(pub(crate) WebSocket<TcpStream>);

impl Phoenix {
    pub(crate) fn of(server: &Server) -> Self {
        Phoenix::at(server, "/socket/websocket?vsn=2.0.0")
    }

    pub(crate) fn at(server: &Server, path: &str) -> Self {
        let socket = server.websocket(path);
        socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Phoenix(socket)
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("sent");
    }

    pub(crate) fn say_binary(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).expect("sent");
    }

    /// The next message, which known clients must be able to read. Pings are skipped.
    pub(crate) fn message(&mut self) -> Message {
        let message = self.0.read().expect("a message");
        match &message {
            Message::Ping(_) => return self.message(),
            Message::Text(text) => known_clients::check(text),
            Message::Binary(bytes) => known_clients::check_binary(bytes),
            _ => {}
        }
        message
    }

    pub(crate) fn receive(&mut self) -> String {
        match self.message() {
            Message::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Checks the next messages.
    pub(crate) fn hears(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.receive(), *expected);
        }
    }

    /// The next message of version 2, as JSON.
    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.receive()).expect("it is JSON")
    }

    /// Joins with this join ref.
    pub(crate) fn join(&mut self, topic: &str, join_ref: &str) {
        let message = json!([join_ref, join_ref, topic, "phx_join", {}]);
        self.send(&message.to_string());
        let reply: Value = serde_json::from_str(&self.receive()).expect("JSON");
        assert_eq!(reply[4]["status"], "ok", "{reply}");
    }

    /// Checks that nothing else has come: the reply to a heartbeat is next.
    pub(crate) fn silent(&mut self) {
        self.send(r#"[null,"hb","phoenix","heartbeat",{}]"#);
        self.hears(&[r#"[null,"hb","phoenix","phx_reply",{"status":"ok","response":{}}]"#]);
    }

    /// The code of the close frame, which must be next.
    pub(crate) fn closed(&mut self) -> u16 {
        match self.message() {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }
}
