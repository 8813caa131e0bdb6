//! Reads what the server sends to a connection with a script, as far as scripts look at it.

use murre_codec::{Decoded, Decoder, FrameLimits, Item, Role, Violation};

use super::script::Reply;
use crate::client::channel::MessageBuffer;
use crate::client::ws::Piece;

/// The protocol of one connection.
#[derive(Default)]
pub(super) enum Reader {
    #[default]
    Http,
    /// After status 101.
    Frames(Decoder, MessageBuffer),
}

/// A part of what the server sends that matters to a script.
pub(super) enum Received<'i> {
    Reply(Reply),
    Ping(&'i [u8]),
}

impl Reader {
    /// Reads the next part, in which `expected` may be a text. Returns how many bytes are done with; where it
    /// returns none and nothing was received, more input is needed.
    pub(super) fn read<'i>(
        &mut self,
        input: &'i mut [u8],
        expected: Option<&'static str>,
    ) -> Result<(usize, Option<Received<'i>>), Violation> {
        let text = |text: &[u8]| {
            let expected = expected?;
            let end = find(text, expected.as_bytes())? + expected.len();
            Some((end, Some(Received::Reply(Reply::Text(expected)))))
        };
        let Reader::Frames(decoder, buffer) = self else {
            // The beginning of a head, or of an expected text, may be at the end of the input.
            let Some(head) = find(input, b"HTTP/1.1 ") else {
                let read = input.len().saturating_sub(KEPT_BYTES);
                return Ok(text(input).unwrap_or((read, None)));
            };
            if let Some(received) = text(&input[..head]) {
                return Ok(received);
            }
            let digits =
                input.get(head + 9..head + 12).and_then(|digits| str::from_utf8(digits).ok());
            let Some(status) = digits.and_then(|digits| digits.parse().ok()) else {
                return Ok((head, None));
            };
            let mut end = head + 12;
            if status == 101 {
                let Some(rest) = find(&input[end..], b"\r\n\r\n") else { return Ok((head, None)) };
                end += rest + 4;
                *self = Reader::Frames(Decoder::default(), MessageBuffer::default());
            }
            return Ok((end, Some(Received::Reply(Reply::Status(status)))));
        };
        let Decoded { consumed, item } = decoder.decode(input, &LIMITS)?;
        let received = match item {
            None => None,
            Some(Item::Data { kind, bytes, end, .. }) => {
                let piece = Piece { kind, bytes, end };
                buffer.add(&piece).and_then(|message| text(&message)?.1)
            }
            Some(Item::Ping(payload)) => Some(Received::Ping(payload)),
            Some(Item::Pong(_)) => Some(Received::Reply(Reply::Pong)),
            Some(Item::Close(close)) => {
                let code = close.map_or(1005, |close| u16::from(close.code));
                Some(Received::Reply(Reply::Close(code)))
            }
        };
        Ok((consumed, received))
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

const LIMITS: FrameLimits = FrameLimits { role: Role::Client, max_message_bytes: 1 << 24 };

/// The longest expected text, less a byte.
const KEPT_BYTES: usize = 31;
