//! Test readers of one channel, with the same interface for every transport.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::chunks::Chunks;
use crate::client::Client;
use crate::matrix::Transport;
use crate::server::{self, Server};

/// The position of a reader in a channel with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
}

impl Position {
    /// The position in a JSON answer.
    pub(crate) fn of(answer: &Value) -> Self {
        let number = |name: &str| answer["position"][name].as_u64();
        let read = || Some(Position { epoch: number("epoch")?, offset: number("offset")? });
        read().unwrap_or_else(|| panic!("no position in {answer}"))
    }

    /// The current position of a channel.
    pub(crate) fn now(server: &Server, channel: &str) -> Self {
        let answer = server.connect().get(&format!("/poll?topic={channel}"));
        Position::of(&serde_json::from_slice(&answer.body).expect("JSON"))
    }

    /// The position as JSON, in the form of commands.
    pub(crate) fn json(self) -> Value {
        json!({"epoch": self.epoch, "offset": self.offset})
    }
}

impl Position {
    /// The part of this position in the event id of a stream of several channels: the FNV-1a hash of the
    /// channel's name, and the position.
    pub(crate) fn of_several(&self, channel: &str) -> String {
        let hash = channel.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}.{self}")
    }
}

impl Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

/// An event that a reader receives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Publication {
        offset: Option<u64>,
        data: Value,
    },
    /// The number of publications that were dropped here.
    Dropped(u64),
    /// An error that ends the session, by its code.
    Error(String),
    /// The end of the connection.
    End,
}

/// A reader of one channel.
pub(crate) struct Reader {
    channel: String,
    connection: Connection,
    /// Whether the server recovered the position with which the reader began.
    pub(crate) recovered: Option<bool>,
}

enum Connection {
    WebSocket(Box<Client>),
    Stream(Events),
    Poll { client: server::Client, position: Position, heard: VecDeque<Heard> },
}

impl Reader {
    /// Begins to read a channel over a transport, behind a position or from now on.
    pub(crate) fn begin(
        server: &Server,
        transport: Transport,
        channel: &str,
        position: Option<Position>,
    ) -> Self {
        let mut recovered = None;
        let connection = match transport {
            Transport::WebSocket => {
                let mut client = Client::of(server);
                match position {
                    Some(position) => recovered = Some(client.recover(channel, position)),
                    None => _ = client.subscribe(channel),
                }
                Connection::WebSocket(client.into())
            }
            Transport::Stream | Transport::StreamOfTwo => {
                let two = transport == Transport::StreamOfTwo;
                let other = if two { "&topic=silent" } else { "" };
                let last = position.map(|position| match two {
                    true => position.of_several(channel),
                    false => position.to_string(),
                });
                let target = format!("/sse?topic={channel}{other}");
                let mut events = Events::open(server, &target, last.as_deref());
                let subscribed = loop {
                    let event = events.next().expect("an event");
                    assert_eq!(event.name, "subscribed", "{event:?}");
                    if event.data["identifier"] == *channel {
                        break event;
                    }
                };
                recovered = subscribed.data["recovered"].as_bool();
                Connection::Stream(events)
            }
            Transport::Poll => {
                let now = || Position::now(server, channel);
                let (client, position) = (server.connect(), position.unwrap_or_else(now));
                Connection::Poll { client, position, heard: VecDeque::new() }
            }
        };
        Reader { channel: channel.into(), connection, recovered }
    }

    /// Limits the kernel's buffers of the connection to some 100 KB.
    pub(crate) fn takes_little(self) -> Self {
        let socket = match &self.connection {
            Connection::WebSocket(client) => client.0.get_ref(),
            Connection::Stream(events) => events.0.get_ref().inner.get_ref(),
            Connection::Poll { client, .. } => &client.0,
        };
        setsockopt(socket, RcvBuf, &(32 << 10)).expect("a socket");
        self
    }

    /// The next event of the reader.
    pub(crate) fn next(&mut self) -> Heard {
        match &mut self.connection {
            Connection::WebSocket(client) => loop {
                match client.0.read() {
                    Ok(Message::Text(text)) => {
                        return heard(&serde_json::from_str(&text).expect("JSON"));
                    }
                    Ok(Message::Ping(_)) => {}
                    Ok(Message::Close(_)) | Err(_) => return Heard::End,
                    Ok(other) => panic!("{other:?}"),
                }
            },
            Connection::Stream(events) => loop {
                match events.next() {
                    None => return Heard::End,
                    Some(event) if event.name == "subscribed" => {
                        assert_ne!(event.data["identifier"], *self.channel, "the other channel");
                    }
                    Some(event) => return heard(&event.data),
                }
            },
            Connection::Poll { .. } => loop {
                if let Connection::Poll { heard, .. } = &mut self.connection
                    && let Some(heard) = heard.pop_front()
                {
                    return heard;
                }
                self.poll();
            },
        }
    }

    /// Sends one poll, if the transport is a poll.
    pub(crate) fn poll(&mut self) {
        let Connection::Poll { client, position, heard } = &mut self.connection else { return };
        let answer = client.get(&format!("/poll?topic={}&position={position}", self.channel));
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer.status, 200, "{body}");
        self.recovered = self.recovered.or(body["recovered"].as_bool());
        for publication in body["publications"].as_array().expect("an array") {
            heard.push_back(self::heard(publication));
        }
        *position = match heard.back() {
            Some(Heard::Publication { offset: Some(offset), .. }) => {
                Position { offset: *offset, ..Position::of(&body) }
            }
            _ => Position::of(&body),
        };
    }

    /// The data of the next publication, which must be the next event.
    pub(crate) fn data(&mut self) -> Value {
        match self.next() {
            Heard::Publication { data, .. } => data,
            other => panic!("{other:?}"),
        }
    }
}

fn heard(message: &Value) -> Heard {
    match message["type"].as_str() {
        Some("publication") | None => {
            Heard::Publication { offset: message["offset"].as_u64(), data: message["data"].clone() }
        }
        Some("dropped") => Heard::Dropped(message["count"].as_u64().expect("a count")),
        Some("error") => Heard::Error(message["code"].as_str().expect("a code").into()),
        Some(_) => panic!("{message}"),
    }
}

/// An event stream, parsed as in a browser.
pub(crate) struct Events(BufReader<Chunks<TcpStream>>);

/// One event of a stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
    /// The milliseconds after which the client should come back.
    pub(crate) retry: Option<u64>,
}

impl Events {
    /// Requests the stream `target`, with `last` as the last event id of the client.
    pub(crate) fn open(server: &Server, target: &str, last: Option<&str>) -> Self {
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n{last}\r\n").as_bytes());
        Events::read(client)
    }

    /// Reads the head of the stream that this connection has requested.
    pub(crate) fn read(client: server::Client) -> Self {
        let mut client = client;
        let head = client.answer_to("HEAD");
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        Events(BufReader::new(Chunks::new(BufReader::new(client.0))))
    }

    /// The connection of the stream.
    pub(crate) fn into_inner(self) -> TcpStream {
        self.0.into_inner().inner.into_inner()
    }

    /// Whether the last chunk of the stream has been read.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.get_ref().ended
    }

    /// The next line without its line end; `None` after the last line, which must be complete.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line).expect("a connection") == 0 {
            return None;
        }
        let line = String::from_utf8(line).expect("text");
        Some(line.strip_suffix('\n').unwrap_or_else(|| panic!("{line:?} is cut off")).into())
    }

    /// The next event that has data or a time to come back; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("event", name)) => event.name = name.into(),
                Some(("id", id)) => event.id = id.into(),
                Some(("data", data)) => event.data = serde_json::from_str(data).expect("JSON"),
                Some(("retry", time)) => event.retry = Some(time.parse().expect("a number")),
                _ if line.is_empty() => {
                    if !event.data.is_null() || event.retry.is_some() {
                        return Some(event);
                    }
                    event = Event::default();
                }
                _ => assert_eq!(line, ":", "a sign of life"),
            }
        }
    }
}
