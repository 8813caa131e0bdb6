//! RFC 6455 frames in, items out.
//!
//! *Bytes are lent, positions are kept.* The caller keeps at most [`TAIL_BYTES_MAX`] bytes, a cut-off
//! header or control frame. Payload of any size streams through without being stored.

use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::header::{CONTROL_BYTES_MAX, Header};
use super::limits::Limits;
use super::mask;
use super::utf8::Utf8;
use super::violation::Violation;

/// The longest tail `decode` leaves with its caller: a control frame short of one byte.
pub const TAIL_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX - 1;

/// One step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'b> {
    /// Bytes at the front of the input that are dealt with.
    pub consumed: usize,
    /// `None` asks for more: keep the rest of the input and call again with bytes added to it. If
    /// something was consumed, which an empty fragment is, more may be there already.
    pub item: Option<Item<'b>>,
}

/// What a peer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// The next bytes of a message, unmasked in place.
    Data {
        /// What the message is.
        kind: Kind,
        /// Some of its bytes; of text, as far as they go, valid UTF-8.
        bytes: &'b mut [u8],
        /// They are its first.
        start: bool,
        /// They are its last.
        end: bool,
    },
    /// To be answered with a pong of the same payload.
    Ping(&'b [u8]),
    /// An answer to a ping, or a sign of life.
    Pong(&'b [u8]),
    /// The peer closes, and may have said why.
    Close(Option<Close<'b>>),
}

/// Why a peer closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'b> {
    /// One of those that may be sent (RFC 6455 section 7.4).
    pub code: CloseCode,
    /// For people.
    pub reason: &'b str,
}

/// The two kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// The opcode of a message's first frame.
    pub fn opcode(self) -> OpCode {
        OpCode::Data(match self {
            Kind::Text => Data::Text,
            Kind::Binary => Data::Binary,
        })
    }
}

/// Where one connection stands in its byte stream.
///
/// Holds positions, never bytes: an idle connection pays for this struct and nothing else.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the current data frame's payload still to come. 0: a header comes next.
    remaining: u32,
    /// The current frame's mask, turned to fit the next byte.
    mask: [u8; 4],
    /// Bytes of the message in progress, its current frame counted whole.
    message_bytes: u32,
    /// The end of the text so far.
    utf8: Utf8,
    message: Option<Kind>,
    /// The current frame is its message's last.
    fin: bool,
    /// No byte of the message has been passed on yet.
    start: bool,
}

const _: () = assert!(size_of::<Decoder>() <= 20);

impl Decoder {
    /// Reads one item off the front of `input`.
    ///
    /// # Errors
    /// What the peer did wrong. Nothing more can be decoded after it.
    pub fn decode<'b>(
        &mut self,
        input: &'b mut [u8],
        limits: &Limits,
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
        if message_bytes > u64::from(limits.message_bytes_max) {
            return Err(Violation::MessageTooLong);
        }
        match data {
            Data::Text => self.begin(Kind::Text),
            Data::Binary => self.begin(Kind::Binary),
            // Reserved opcodes did not pass the check.
            Data::Continue | Data::Reserved(_) => {}
        }
        self.message_bytes = message_bytes as u32; // At most `message_bytes_max`.
        self.remaining = header.len as u32; // Likewise.
        self.mask = header.mask;
        self.fin = header.fin;
        self.payload(header.size, input)
    }

    /// Whether the next byte belongs to the payload of a data frame that has begun.
    pub fn in_frame(&self) -> bool {
        self.remaining > 0
    }

    fn begin(&mut self, kind: Kind) {
        self.message = Some(kind);
        self.start = true;
    }

    /// Takes what is here of a payload, from `at` on.
    fn payload<'b>(&mut self, at: usize, input: &'b mut [u8]) -> Result<Decoded<'b>, Violation> {
        let len = (self.remaining as usize).min(input.len() - at);
        let end = self.fin && len == self.remaining as usize;
        // Only a frame of which nothing is here yet is nothing to tell. An empty one is an item: to ask
        // for more instead would leave the frames behind it unread.
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

/// Control frames arrive whole or not at all: they are short and are never fragmented.
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
    // Those that RFC 6455 section 7.4 lets an endpoint send: the ones it defines, those registered
    // since (1012 to 1014), and the ranges for libraries and applications.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some(Close { code: CloseCode::from(code), reason }))
}
