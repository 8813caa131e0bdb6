//! A client of `murre.v1` over WebSocket, with tungstenite.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::reader::Position;
use crate::server::{PATIENCE, Server};

/// A WebSocket client of `/ws`.
pub(crate) struct Client(pub(crate) WebSocket<TcpStream>);

impl Client {
    /// Connects to `/ws`.
    pub(crate) fn of(server: &Server) -> Self {
        Client::at(server, "/ws")
    }

    /// Connects to `path`.
    pub(crate) fn at(server: &Server, path: &str) -> Self {
        let socket = server.websocket(path);
        socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client(socket)
    }

    /// Sends a command.
    pub(crate) fn send(&mut self, message: Value) {
        self.send_text(&message.to_string());
    }

    /// Sends a text message.
    pub(crate) fn send_text(&mut self, message: &str) {
        self.0.send(Message::text(message)).expect("sent");
    }

    /// The next text message, which must be JSON. Pings are skipped.
    pub(crate) fn receive(&mut self) -> Value {
        match self.0.read() {
            Ok(Message::Text(text)) => serde_json::from_str(&text).expect("JSON"),
            Ok(Message::Ping(_)) => self.receive(),
            Ok(other) => panic!("{other:?}"),
            // The test process was stopped and continued. With a timeout, recv then fails with
            // EINTR (signal(7)).
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {
                self.receive()
            }
            Err(error) => panic!("no message: {error}"),
        }
    }

    /// Sends a command and returns its answer, which must be the next message.
    pub(crate) fn ask(&mut self, mut command: Value) -> Value {
        command["id"] = json!(77);
        self.send(command);
        let mut answer = self.receive();
        assert_eq!(answer["id"].take(), json!(77), "{answer}");
        answer.as_object_mut().expect("an object").remove("id");
        answer
    }

    /// Subscribes to a channel and returns the answer.
    pub(crate) fn subscribe(&mut self, identifier: &str) -> Value {
        let answer = self.ask(json!({"action": "subscribe", "identifier": identifier}));
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Subscribes behind a position, and returns whether the channel recovered the missed
    /// publications.
    pub(crate) fn recover(&mut self, identifier: &str, position: Position) -> bool {
        let position = position.json();
        let command =
            json!({"action": "subscribe", "identifier": identifier, "position": position});
        let answer = self.ask(command);
        answer["recovered"].as_bool().unwrap_or_else(|| panic!("{answer}"))
    }

    /// Publishes and returns the answer.
    pub(crate) fn publish(&mut self, identifier: &str, data: Value) -> Value {
        let answer = self.ask(json!({"action": "publish", "identifier": identifier, "data": data}));
        assert_eq!(answer["type"], "published", "{answer}");
        answer
    }

    /// Publishes, and repeats it while the server refuses because it is behind.
    pub(crate) fn publish_patiently(&mut self, identifier: &str, data: Value) {
        let publish = json!({"action": "publish", "identifier": identifier, "data": data});
        let start = Instant::now();
        loop {
            let answer = self.ask(publish.clone());
            if answer["type"] == "published" {
                return;
            }
            assert_eq!(answer["code"], "overloaded", "{answer}");
            assert!(start.elapsed() < PATIENCE, "{identifier} is overloaded for ever");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Publishes many messages without waiting between them. The client must not be subscribed to
    /// the channel.
    pub(crate) fn publish_all(&mut self, identifier: &str, data: impl Iterator<Item = Value>) {
        let mut count = 0;
        for data in data {
            let publish = json!({"action": "publish", "identifier": identifier, "data": data});
            self.send(publish);
            count += 1;
        }
        self.send(json!({"action": "ping"}));
        let answer = self.receive();
        assert_eq!(answer["type"], "pong", "all {count} are taken: {answer}");
    }

    /// Sends a command that must fail, and returns the code of its error.
    pub(crate) fn error(&mut self, command: Value) -> String {
        let answer = self.ask(command);
        assert_eq!(answer["type"], "error", "{answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }

    /// Checks that no other message has come: the answer to a ping must be the next message.
    pub(crate) fn silent(&mut self) {
        assert_eq!(self.ask(json!({"action": "ping"}))["type"], "pong");
    }

    /// Waits for the answer to a ping, and skips all messages before it.
    pub(crate) fn silent_at_last(&mut self) {
        self.send(json!({"action": "ping"}));
        while self.receive()["type"] != "pong" {}
    }

    /// The name of the client's connection in the admin API.
    pub(crate) fn name(&mut self) -> String {
        let pong = self.ask(json!({"action": "ping"}));
        pong["connection"].as_str().expect("a name").to_owned()
    }
}
