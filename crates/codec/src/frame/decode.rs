//! RFC 6455 frames in, items out.
//!
//! The decoder borrows bytes and keeps positions. Between calls the caller keeps at most
//! [`TAIL_BYTES_MAX`] bytes, an incomplete header or control frame. Payload of any size passes through
//! without being stored.

use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::header::{CONTROL_BYTES_MAX, Header};
use super::limits::FrameLimits;
use super::mask;
use super::utf8::Utf8;
use super::violation::Violation;

/// The largest number of bytes that [`Decoder::decode`] leaves in its input without a decision: a
/// masked control frame without its last byte.
pub const TAIL_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX - 1;

/// The result of one step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'b> {
    /// Number of bytes at the front of the input that are decoded.
    pub consumed: usize,
    /// `None` asks for more input: keep the rest and call again with bytes added to it. If bytes were
    /// consumed, such as an empty fragment, call again at once: the rest may hold an item.
    pub item: Option<Item<'b>>,
}

/// A piece of a message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// The next bytes of a message, unmasked in place.
    Data {
        /// The kind of message.
        kind: Kind,
        /// Some of its bytes. Those of a text are valid UTF-8 so far; a character may be cut at their
        /// end.
        bytes: &'b mut [u8],
        /// Whether these are the first bytes of the message.
        start: bool,
        /// Whether these are the last bytes of the message.
        end: bool,
    },
    /// A ping with its payload, of at most 125 bytes. The answer is a pong with the same payload (RFC
    /// 6455 section 5.5.3).
    Ping(&'b [u8]),
    /// A pong with its payload, of at most 125 bytes: an answer to a ping, or sent unasked (section
    /// 5.5.3).
    Pong(&'b [u8]),
    /// A close frame (section 5.5.1), which may hold a code and a reason.
    Close(Option<Close<'b>>),
}

/// The payload of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'b> {
    /// A status code that an endpoint may send (RFC 6455 section 7.4).
    pub code: CloseCode,
    /// The reason, for people: at most 123 bytes.
    pub reason: &'b str,
}

/// The kinds of message (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text in UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// The opcode of the first frame of such a message (RFC 6455 section 5.2).
    pub fn opcode(self) -> OpCode {
        OpCode::Data(match self {
            Kind::Text => Data::Text,
            Kind::Binary => Data::Binary,
        })
    }
}

/// The position of one connection in its byte stream.
///
/// Holds positions, never bytes: an idle connection costs these 20 bytes and nothing else.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the current data frame's payload still to come. 0: a header comes next.
    remaining: u32,
    /// The current frame's mask, rotated to fit the next byte.
    mask: [u8; 4],
    /// Bytes of the message in progress, including all of its current frame.
    message_bytes: u32,
    /// The state of UTF-8 at the end of the text so far.
    utf8: Utf8,
    /// The message in progress.
    message: Option<Kind>,
    /// Whether the current frame is the last of its message.
    fin: bool,
    /// Whether no byte of the message has been returned yet.
    start: bool,
}

const _: () = assert!(size_of::<Decoder>() <= 20);

impl Decoder {
    /// Decodes one item at the front of `input`, and unmasks its bytes in place. `input` must begin
    /// where the last call stopped.
    ///
    /// # Errors
    /// The rule that the peer broke. The decoder must not be used after an error.
    pub fn decode<'b>(
        &mut self,
        input: &'b mut [u8],
        limits: &FrameLimits,
    ) -> Result<Decoded<'b>, Violation> {
        if self.remaining > 0 {
            return self.payload(0, input);
        }
        let in_message = self.message.is_some();
        let Some(header) = Header::parse(input) else {
            Header::check_early(input, in_message, limits)?;
            return Ok(Decoded { consumed: 0, item: None });
        };
        header.check(in_message, limits)?;
        let data = match header.opcode {
            OpCode::Control(control) => return read_control(control, header, input),
            OpCode::Data(data) => data,
        };
        let message_bytes = u64::from(self.message_bytes) + header.len;
        if message_bytes > u64::from(limits.max_message_bytes) {
            return Err(Violation::MessageTooLong);
        }
        match data {
            Data::Text => self.begin(Kind::Text),
            Data::Binary => self.begin(Kind::Binary),
            // Reserved opcodes did not pass the check.
            Data::Continue | Data::Reserved(_) => {}
        }
        self.message_bytes = message_bytes as u32; // At most `max_message_bytes`.
        self.remaining = header.len as u32; // Likewise.
        self.mask = header.mask;
        self.fin = header.fin;
        self.payload(header.size, input)
    }

    /// Whether the next byte of input belongs to the payload of a data frame.
    pub fn in_frame(&self) -> bool {
        self.remaining > 0
    }

    fn begin(&mut self, kind: Kind) {
        self.message = Some(kind);
        self.start = true;
    }

    /// Returns the payload bytes in the input from `at` on.
    fn payload<'b>(&mut self, at: usize, input: &'b mut [u8]) -> Result<Decoded<'b>, Violation> {
        let len = (self.remaining as usize).min(input.len() - at);
        let end = self.fin && len == self.remaining as usize;
        // A frame without any of its payload yet gives no item. An empty frame does: asking for more
        // input instead would leave the frames behind it unread.
        if len == 0 && self.remaining > 0 {
            return Ok(Decoded { consumed: at, item: None });
        }
        let bytes = &mut input[at..at + len];
        self.mask = mask::apply(bytes, self.mask);
        self.remaining -= len as u32;
        let kind = self.message.expect("a payload belongs to a message");
        if kind == Kind::Text {
            self.utf8.push(bytes).map_err(|_| Violation::NotUtf8)?;
            if end && !self.utf8.is_whole() {
                return Err(Violation::NotUtf8);
            }
        }
        let start = std::mem::replace(&mut self.start, false);
        if end {
            self.message = None;
            self.message_bytes = 0;
        }
        Ok(Decoded { consumed: at + len, item: Some(Item::Data { kind, bytes, start, end }) })
    }
}

/// Decodes a control frame once all of it is here: it is short, and never fragmented.
fn read_control(
    control: Control,
    header: Header,
    input: &mut [u8],
) -> Result<Decoded<'_>, Violation> {
    let end = header.size + header.len as usize;
    let Some(bytes) = input.get_mut(header.size..end) else {
        return Ok(Decoded { consumed: 0, item: None });
    };
    mask::apply(bytes, header.mask);
    let item = match control {
        Control::Close => Item::Close(read_close(bytes)?),
        Control::Ping => Item::Ping(bytes),
        Control::Pong => Item::Pong(bytes),
        Control::Reserved(_) => unreachable!("reserved opcodes do not pass the check"),
    };
    Ok(Decoded { consumed: end, item: Some(item) })
}

/// The payload of a close frame: nothing, or a code and a reason (RFC 6455 section 5.5.1).
fn read_close(payload: &[u8]) -> Result<Option<Close<'_>>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::CloseTooShort) };
    };
    let code = u16::from_be_bytes(*code);
    // The codes that an endpoint may send (RFC 6455 section 7.4): those it defines, those registered
    // since then (1012 to 1014), and the ranges for libraries and applications.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some(Close { code: CloseCode::from(code), reason }))
}
