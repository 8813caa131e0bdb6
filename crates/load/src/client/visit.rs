//! What one visitor of the server does, as a list of steps, and how it must end. The visits of a
//! scenario are data: [`abuse`](crate::scenarios::abuse) and [`soak`](crate::scenarios::soak) list them,
//! [`visitors`](crate::client::visitors) makes them.

use std::fmt;
use std::time::Duration;

use murre_codec::{OpCode, encode, handshake};

/// One kind of visit.
pub(crate) struct Visit {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

/// What is done next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes.
    Say(Speech),
    /// Goes on when the server has said this.
    Hear(Word),
}

/// Bytes that are sent in pieces: one each `every`, over and over.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    pub(crate) bytes: Vec<u8>,
    pub(crate) piece_bytes: usize,
    pub(crate) every: Duration,
    /// Pieces in all; what has been sent to its end is sent again.
    pub(crate) pieces: u32,
}

/// Something that the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The head of an answer.
    Status(u16),
    /// A part of a text message, or of an answer's body.
    Text(&'static str),
    Pong,
    Close(u16),
}

/// How a visit ends after its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server ends it, and one of these is its last word; `None` is an end without any.
    Theirs(&'static [Option<Word>]),
    /// The visitor sends FIN, and then nothing.
    Fin,
    /// The visitor resets the connection.
    Reset,
}

impl Visit {
    pub(crate) fn new(name: impl Into<String>, steps: Vec<Step>, end: End) -> Visit {
        Visit { name: name.into(), steps, end }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Status(status) => write!(f, "status {status}"),
            Word::Text(text) => write!(f, "`{text}`"),
            Word::Pong => f.write_str("a pong"),
            Word::Close(code) => write!(f, "close code {code}"),
        }
    }
}

// ---- steps ----

pub(crate) fn say(bytes: impl Into<Vec<u8>>) -> Step {
    let bytes = bytes.into();
    let piece_bytes = bytes.len();
    Step::Say(Speech { bytes, piece_bytes, every: Duration::ZERO, pieces: 1 })
}

/// The same, so many times.
pub(crate) fn repeat(bytes: impl Into<Vec<u8>>, every: Duration, times: u32) -> Step {
    let bytes = bytes.into();
    let piece_bytes = bytes.len();
    Step::Say(Speech { bytes, piece_bytes, every, pieces: times })
}

/// Byte by byte, so many in all.
pub(crate) fn trickle(bytes: impl Into<Vec<u8>>, every: Duration, pieces: u32) -> Step {
    Step::Say(Speech { bytes: bytes.into(), piece_bytes: 1, every, pieces })
}

pub(crate) fn hear(status: u16) -> Step {
    Step::Hear(Word::Status(status))
}

pub(crate) fn hear_text(text: &'static str) -> Step {
    Step::Hear(Word::Text(text))
}

/// Opens a WebSocket.
pub(crate) fn open(path: &str) -> [Step; 2] {
    let mut request = Vec::new();
    handshake::request(&mut request, "murre", path, KEY, None);
    [say(request), hear(101)]
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n")
}

pub(crate) fn text(text: impl AsRef<str>) -> Step {
    say(frame(murre_codec::Kind::Text.opcode(), text.as_ref().as_bytes()))
}

/// A masked frame. The mask is always the same: nobody here needs to be protected by it.
pub(crate) fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::write_frame(&mut frame, opcode, payload, Some(MASK));
    frame
}

pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
