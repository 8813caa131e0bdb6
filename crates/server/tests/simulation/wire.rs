//! What a client reads: the bytes of its connection, cut into what they say.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_router::channels::Position;
use serde_json::Value;

use super::client::Given;

/// One thing that a client hears.
#[derive(Debug)]
pub(super) enum Heard {
    /// The WebSocket or the event stream is open.
    Opened,
    /// A text message.
    Message(Value),
    /// A binary message: a publication.
    Binary(Publication),
    Ping(Vec<u8>),
    /// A close frame.
    Close {
        code: u16,
        reason: String,
    },
    /// An event of a stream, with its id.
    Event {
        name: String,
        id: Option<String>,
        data: Value,
    },
    /// The `retry` field of a stream.
    Retry,
    /// A whole HTTP answer, and whether the connection ends with it.
    Answer {
        status: u16,
        body: String,
        last: bool,
    },
}

/// A publication as a client gets it, in whatever form.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) channel: String,
    pub(super) offset: Option<u64>,
    /// The number that no other publication of the run has.
    pub(super) number: u64,
}

/// The state of a client's input.
#[derive(Debug, Default)]
pub(super) struct Wire {
    bytes: VecDeque<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// HTTP answers, one after the other.
    #[default]
    Http,
    WebSocket,
    /// The chunks of an event stream.
    Events,
    /// The last chunk has come.
    Over,
}

impl Wire {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next thing that is complete.
    pub(super) fn next(&mut self) -> Option<Heard> {
        match self.stage {
            Stage::Http => self.answer(),
            Stage::WebSocket => self.frame(),
            Stage::Events => self.event(),
            Stage::Over => {
                assert!(self.bytes.is_empty(), "nothing follows the last chunk");
                None
            }
        }
    }

    fn answer(&mut self) -> Option<Heard> {
        let bytes = &*self.bytes.make_contiguous();
        let length = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = str::from_utf8(&bytes[..length]).expect("heads are ASCII").to_owned();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head[..3].parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("a status line, not {head:?}"));
        let field = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if status == 101 {
            self.stage = Stage::WebSocket;
            self.bytes.drain(..length);
            return Some(Heard::Opened);
        }
        if field("content-type") == Some("text/event-stream") {
            self.stage = Stage::Events;
            self.bytes.drain(..length);
            return Some(Heard::Opened);
        }
        let body = field("content-length").expect("it has a length").parse::<usize>();
        let end = length + body.expect("it is a number");
        let last = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let body = bytes.get(length..end)?;
        let body = String::from_utf8(body.to_vec()).expect("bodies are text");
        self.bytes.drain(..end);
        Some(Heard::Answer { status, body, last })
    }

    /// Frames of a server are not masked (RFC 6455 section 5.1), and none of ours is a fragment.
    fn frame(&mut self) -> Option<Heard> {
        let bytes = &*self.bytes.make_contiguous();
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (head, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        let payload = bytes.get(head..head + length)?.to_vec();
        self.bytes.drain(..head + length);
        let text = || String::from_utf8(payload.clone()).expect("it is UTF-8");
        Some(match first {
            0x81 => Heard::Message(json(&text())),
            0x82 if payload.first() == Some(&1) => Heard::Binary(binary(&payload)),
            0x82 => Heard::Binary(super::phoenix::broadcast(&payload)),
            0x88 => Heard::Close {
                code: u16::from_be_bytes([payload[0], payload[1]]),
                reason: String::from_utf8(payload[2..].to_vec()).expect("it is UTF-8"),
            },
            0x89 => Heard::Ping(payload),
            0x8A => return self.frame(),
            other => panic!("{other:#x} is no first byte of a frame from a server"),
        })
    }

    /// The data of the next chunk (RFC 9112 section 7.1).
    fn chunk(&mut self) -> Option<String> {
        let bytes = &*self.bytes.make_contiguous();
        let line = bytes.windows(2).position(|end| end == b"\r\n")?;
        let size = str::from_utf8(&bytes[..line]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).expect("a size");
        let data = line + 2..line + 2 + size;
        let end = bytes.get(data.end..data.end + 2)?;
        assert_eq!(end, b"\r\n", "a chunk ends where it says");
        let text = String::from_utf8(bytes[data.clone()].to_vec()).expect("events are UTF-8");
        self.bytes.drain(..data.end + 2);
        if size == 0 {
            self.stage = Stage::Over;
            return None;
        }
        Some(text)
    }

    fn event(&mut self) -> Option<Heard> {
        loop {
            let text = self.chunk()?;
            assert!(text.ends_with("\n\n"), "{text:?} is a whole event");
            let (mut name, mut id, mut data) = (String::new(), None, None);
            for line in text.lines().filter(|line| !line.is_empty()) {
                match line.split_once(": ") {
                    Some(("event", value)) => name = value.to_owned(),
                    Some(("id", value)) => id = Some(value.to_owned()),
                    Some(("data", value)) => data = Some(json(value)),
                    Some(("retry", value)) => {
                        assert!(value.parse::<u64>().is_ok(), "{value:?} is in milliseconds");
                        return Some(Heard::Retry);
                    }
                    _ if line.starts_with(':') => {}
                    _ => panic!("{line:?} is no line of an event stream"),
                }
            }
            if let Some(data) = data {
                return Some(Heard::Event { name, id, data });
            }
        }
    }
}

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?} is no JSON"))
}

/// A publication in JSON: `channel` is that of the page around it, if it names none itself.
pub(super) fn publication(value: &Value, channel: Option<&str>) -> Publication {
    // A push of a Phoenix client has an event and an object.
    let data = value["data"].as_str().or(value["data"]["payload"]["n"].as_str());
    let payload = match (data, value["binary"].as_str()) {
        (Some(data), None) => data.to_owned(),
        (None, Some(binary)) => {
            let bytes = STANDARD.decode(binary).expect("it is base64");
            String::from_utf8(bytes).expect("the run publishes text")
        }
        _ => panic!("a publication has data, not {value}"),
    };
    let channel = value["identifier"].as_str().or(channel).expect("it names its channel");
    let offset = value.get("offset").map(|offset| offset.as_u64().expect("it is a number"));
    Publication { channel: channel.to_owned(), offset, number: number(&payload) }
}

/// One byte 1, the length of the name, the name, eight bytes of the offset, the payload.
/// Reads the part of a channel in the id of an event, in a stream of `channels` channels.
pub(super) fn place(part: &str, channels: usize) -> Given {
    let place = match channels {
        1 => part,
        _ => part.split_once('.').expect("a part names its channel").1,
    };
    match place.split_once('-') {
        None if place.is_empty() => Given::Nothing,
        None => Given::Unreadable,
        Some((epoch, offset)) => Given::Position(Position {
            epoch: epoch.parse().expect("a number"),
            offset: offset.parse().expect("a number"),
        }),
    }
}

fn binary(bytes: &[u8]) -> Publication {
    assert_eq!(bytes[0], 1, "a binary message is a publication");
    let (name, rest) = bytes[2..].split_at(usize::from(bytes[1]));
    let (offset, payload) = rest.split_at(8);
    let offset = u64::from_be_bytes(offset.try_into().expect("eight bytes"));
    Publication {
        channel: str::from_utf8(name).expect("it is UTF-8").to_owned(),
        offset: (offset > 0).then_some(offset),
        number: number(str::from_utf8(payload).expect("the run publishes text")),
    }
}

/// The length of the filling of a payload `NUMBER:FILLING`.
pub(super) fn filling(payload: &str) -> usize {
    payload.split_once(':').expect("it is of this run").1.len()
}

/// The number of a payload `NUMBER:FILLING`, which is as it was published.
pub(super) fn number(payload: &str) -> u64 {
    let (number, filling) = payload.split_once(':').expect("it is of this run");
    assert!(filling.bytes().all(|byte| byte == b'x'), "{payload:?} is as it was published");
    number.parse().expect("it is a number")
}

/// A frame of a client, masked with zeros.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        length => {
            frame.push(0x80 | 126);
            let length = u16::try_from(length).expect("messages of the run are short");
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PONG: u8 = 10;
