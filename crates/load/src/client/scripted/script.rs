//! The script of one connection: a list of steps, and the end that the connection must have.

use std::fmt;
use std::time::Duration;

use murre_codec::{OpCode, encode, handshake};

/// The script of one kind of connection.
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

/// A step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes.
    Send(Chunks),
    /// Waits for this reply.
    Expect(Reply),
}

/// Bytes that are sent in pieces, one each `every`.
#[derive(Clone, Debug)]
pub(crate) struct Chunks {
    pub(crate) bytes: Vec<u8>,
    pub(crate) piece_bytes: usize,
    pub(crate) every: Duration,
    /// Pieces in all; the bytes are repeated.
    pub(crate) pieces: u32,
}

/// A part of what the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The head of an answer.
    Status(u16),
    /// A part of a text message, or of an answer's body.
    Text(&'static str),
    Pong,
    Close(u16),
}

/// How a connection ends after its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server ends it, and its last reply is one of these; `None` is an end without any.
    ByServer(&'static [Option<Reply>]),
    /// The client sends FIN, and then nothing.
    Fin,
    /// The client resets the connection.
    Reset,
}

impl Script {
    pub(crate) fn new(name: impl Into<String>, steps: Vec<Step>, end: End) -> Script {
        Script { name: name.into(), steps, end }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Status(status) => write!(f, "status {status}"),
            Reply::Text(text) => write!(f, "`{text}`"),
            Reply::Pong => f.write_str("a pong"),
            Reply::Close(code) => write!(f, "close code {code}"),
        }
    }
}

// ---- steps ----

pub(crate) fn send(bytes: impl Into<Vec<u8>>) -> Step {
    repeat(bytes, Duration::ZERO, 1)
}

/// The same, so many times.
pub(crate) fn repeat(bytes: impl Into<Vec<u8>>, every: Duration, pieces: u32) -> Step {
    let bytes = bytes.into();
    Step::Send(Chunks { piece_bytes: bytes.len(), bytes, every, pieces })
}

/// Byte by byte, so many in all.
pub(crate) fn trickle(bytes: impl Into<Vec<u8>>, every: Duration, pieces: u32) -> Step {
    Step::Send(Chunks { bytes: bytes.into(), piece_bytes: 1, every, pieces })
}

pub(crate) fn expect_status(status: u16) -> Step {
    Step::Expect(Reply::Status(status))
}

pub(crate) fn expect_text(text: &'static str) -> Step {
    Step::Expect(Reply::Text(text))
}

/// Opens a WebSocket.
pub(crate) fn open(path: &str) -> [Step; 2] {
    let mut request = Vec::new();
    handshake::request(&mut request, "murre", path, KEY, None);
    [send(request), expect_status(101)]
}

/// Opens a WebSocket, and takes `steps` on it.
pub(crate) fn websocket(path: &str, steps: impl Into<Vec<Step>>) -> Vec<Step> {
    [open(path).to_vec(), steps.into()].concat()
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n")
}

pub(crate) fn text(text: impl AsRef<str>) -> Step {
    send(frame(murre_codec::Kind::Text.opcode(), text.as_ref().as_bytes()))
}

/// A masked frame. The mask is constant: it protects proxies, and there are none here.
pub(crate) fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::write_frame(&mut frame, opcode, payload, Some(MASK));
    frame
}

pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
