//! Frames, compared with tungstenite.

use std::io::{self, Read, Write};

use murre_codec::{CloseCode, Control, Kind, OpCode, Role, Violation, encode};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Role as TheirRole, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use super::listener::{MESSAGE_BYTES_MAX, Said, hear};

/// Checks any bytes: choices, and a stream. The stream decodes to the same items in any pieces and
/// as in tungstenite, and the items can be encoded and decoded again.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&[choices, size], stream)) = bytes.split_first_chunk() else { return };
    let role = if choices & 1 == 0 { Role::Server } else { Role::Client };
    let max = if choices & 2 == 0 { MESSAGE_BYTES_MAX } else { SMALL_MESSAGE_BYTES_MAX };
    let said = hear(role, max, [stream]);
    for size in [1, usize::from(size) + 1] {
        assert_eq!(hear(role, max, stream.chunks(size)), said, "{size} bytes at a time");
    }
    beside_tungstenite(role, max, stream);
    let mask = (role == Role::Server).then_some([1, 2, 3, choices]);
    let whole = said.len() - usize::from(matches!(said.last(), Some(Said::Broken(_))));
    let again = again(&said[..whole], mask);
    assert_eq!(hear(role, max, [&again[..]]), said[..whole], "said again");
}

/// A limit that short streams can exceed.
const SMALL_MESSAGE_BYTES_MAX: u32 = 40;

/// Encodes the items in our own frames.
fn again(said: &[Said], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![];
    for said in said {
        let (opcode, payload) = match said {
            Said::Message(kind, payload) => (kind.opcode(), &payload[..]),
            Said::Ping(payload) => (OpCode::Control(Control::Ping), &payload[..]),
            Said::Pong(payload) => (OpCode::Control(Control::Pong), &payload[..]),
            Said::Close(None) => (OpCode::Control(Control::Close), &[][..]),
            Said::Close(Some((code, reason))) => {
                encode::write_close(&mut out, *code, reason, mask);
                continue;
            }
            Said::Broken(_) => unreachable!("nothing to be said"),
        };
        encode::write_frame(&mut out, opcode, payload, mask);
    }
    out
}

/// Tungstenite accepts everything that we accept, with the same meaning; we refuse everything that
/// it refuses. The converse does not hold: tungstenite takes lengths in long forms, and treats 1014
/// as an error.
pub(crate) fn beside_tungstenite(role: Role, max_message_bytes: u32, stream: &[u8]) {
    let mut ours = hear(role, max_message_bytes, [stream]);
    let (mut theirs, content) = heard(role, max_message_bytes, stream);
    if let Some(Said::Broken(violation)) = ours.last().cloned() {
        ours.pop();
        assert!(theirs.starts_with(&ours), "{ours:?} and {theirs:?}");
        // Tungstenite continues after the point of our violation, or replaces a wrong code by 1002.
        let known = matches!(
            violation,
            Violation::LengthNotMinimal
                | Violation::CloseCode
                | Violation::NotUtf8
                | Violation::MessageTooLong
                | Violation::ControlTooLong
        );
        let cut = theirs.len() == ours.len();
        assert!(!content || known || cut, "only we refuse: {violation:?}");
        return;
    }
    assert!(content, "only they refuse, after {theirs:?}");
    for said in ours.iter_mut().chain(&mut theirs) {
        if let Said::Close(Some((code, reason))) = said
            && !code.is_allowed()
        {
            (*code, *reason) = (CloseCode::Protocol, "Protocol violation".to_owned());
        }
    }
    assert_eq!(ours, theirs);
}

/// A stream in memory.
#[derive(Default)]
pub(crate) struct Line {
    input: io::Cursor<Vec<u8>>,
    pub(crate) output: Vec<u8>,
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(max_message_bytes: u32) -> WebSocketConfig {
    let max = Some(max_message_bytes as usize);
    WebSocketConfig::default().max_message_size(max)
}

fn as_theirs(role: Role) -> TheirRole {
    match role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    }
}

/// The items that tungstenite decodes in this role, and whether it met no error.
pub(crate) fn heard(role: Role, max_message_bytes: u32, stream: &[u8]) -> (Vec<Said>, bool) {
    let line = Line { input: io::Cursor::new(stream.to_vec()), output: vec![] };
    let config = config(max_message_bytes);
    let mut socket = WebSocket::from_raw_socket(line, as_theirs(role), Some(config));
    let mut heard = vec![];
    loop {
        match socket.read() {
            Ok(message) => heard.extend(in_our_words(message)),
            Err(Error::ConnectionClosed) => return (heard, true),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (heard, true);
            }
            Err(_) => return (heard, false),
        }
        if let Some(Said::Close(_)) = heard.last() {
            return (heard, true);
        }
    }
}

pub(crate) fn in_our_words(message: Message) -> Option<Said> {
    Some(match message {
        Message::Text(text) => Said::Message(Kind::Text, text.as_bytes().to_vec()),
        Message::Binary(bytes) => Said::Message(Kind::Binary, bytes.to_vec()),
        Message::Ping(payload) => Said::Ping(payload.to_vec()),
        Message::Pong(payload) => Said::Pong(payload.to_vec()),
        Message::Close(close) => {
            Said::Close(close.map(|close| (close.code, close.reason.to_string())))
        }
        Message::Frame(_) => return None,
    })
}
