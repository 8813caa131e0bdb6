//! The end of a head, and the length of the body behind it, for requests and responses.

use std::mem::MaybeUninit;

use httparse::Header;

/// Header fields that a head may have, whatever the limit.
pub const HEADERS_MAX: usize = 256;

/// Room for the fields of one head, on the caller's stack: memory that is touched by those that are there.
pub type Fields<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

/// Empty memory for the fields of one head.
pub fn fields<'b>() -> Fields<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// The position in a message that arrives in pieces. Holds positions, never bytes.
#[derive(Debug, Default)]
pub(super) struct HeadPosition {
    /// Bytes that do not contain the end of the head.
    scanned: u32,
    /// Bytes of the whole message, once its head has been read.
    pub(super) size: u32,
}

/// The reason that a head cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// Longer than the limit.
    TooLong,
    /// A line does not end in CRLF.
    Malformed,
}

impl HeadPosition {
    /// The length in bytes of the head at the front of `input`, including its empty line; `None` if it
    /// is incomplete. Reads each byte once, however many pieces the head arrives in.
    pub(super) fn head(&mut self, input: &[u8], max: u32) -> Result<Option<usize>, HeadError> {
        let mut from = self.scanned as usize;
        let seen = &input[..input.len().min(max as usize)];
        while let Some(found) = line_feed(&seen[from..]) {
            let at = from + found;
            // A bare line feed ends a line for some programs and not for others (RFC 9112 section 2.2),
            // so this refuses it.
            if at == 0 || seen[at - 1] != b'\r' {
                return Err(HeadError::Malformed);
            }
            if at >= 3 && seen[at - 2] == b'\n' {
                self.scanned = 0;
                return Ok(Some(at + 1));
            }
            from = at + 1;
        }
        self.scanned = seen.len() as u32; // At most `max`.
        if input.len() >= max as usize { Err(HeadError::TooLong) } else { Ok(None) }
    }

    /// Whether the scan for the end of the head is still within this many bytes.
    pub(super) fn has_scanned_at_most(&self, bytes: usize) -> bool {
        self.scanned as usize <= bytes
    }

    /// Whether bytes of the message have been seen.
    pub(super) fn has_begun(&self) -> bool {
        self.scanned > 0 || self.size > 0
    }
}

/// The position of the first line feed. Searches by blocks, each of which takes a vector instruction or
/// two.
fn line_feed(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 16;
    let has = |block: &[u8; BLOCK]| block.iter().fold(false, |has, &byte| has | (byte == b'\n'));
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let from = BLOCK * blocks.iter().take_while(|block| !has(block)).count();
    let found = bytes[from..].iter().position(|&byte| byte == b'\n')?;
    Some(from + found)
}

/// The way in which the body's length is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength<'b> {
    /// Not at all.
    None,
    /// In bytes.
    Bytes(u64),
    /// By `Transfer-Encoding`, which has this value.
    Encoded(&'b [u8]),
    /// So that two programs can understand it differently.
    Ambiguous,
}

/// Reads `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.3).
pub(super) fn body_length<'b>(fields: &[Header<'b>]) -> BodyLength<'b> {
    let mut length = BodyLength::None;
    for field in fields {
        let next = if field.name.eq_ignore_ascii_case("transfer-encoding") {
            BodyLength::Encoded(field.value)
        } else if field.name.eq_ignore_ascii_case("content-length") {
            match decimal(field.value) {
                Some(bytes) => BodyLength::Bytes(bytes),
                None => return BodyLength::Ambiguous,
            }
        } else {
            continue;
        };
        // A client has no reason to send two, even of one value; request smuggling does.
        if length != BodyLength::None {
            return BodyLength::Ambiguous;
        }
        length = next;
    }
    length
}

/// Reads digits and nothing else (RFC 9110 section 8.6): no sign, no list, no space inside. A number
/// that overflows becomes the largest, which is longer than any body limit.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// Whether another message may follow on the connection (RFC 9112 section 9.3).
pub(super) fn keep_alive(fields: &[Header<'_>], minor_version: u8) -> bool {
    let asked = minor_version >= 1 || lists(fields, "connection", "keep-alive");
    asked && !lists(fields, "connection", "close")
}

/// The values of all fields of this name.
pub(super) fn named<'b>(fields: &[Header<'b>], name: &str) -> impl Iterator<Item = &'b [u8]> {
    let of_name = move |field: &&Header<'b>| field.name.eq_ignore_ascii_case(name);
    fields.iter().filter(of_name).map(|field| field.value)
}

/// Whether a comma-separated list in any field of this name has this member.
pub(super) fn lists(fields: &[Header<'_>], name: &str, member: &str) -> bool {
    named(fields, name).flat_map(members).any(|item| item.eq_ignore_ascii_case(member.as_bytes()))
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1).
pub(super) fn members(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that arrives byte by byte is scanned once, not once for every byte: changes to scanned
    /// bytes have no effect.
    #[test]
    fn scanned_bytes_are_not_looked_at_again() {
        let mut head = b"GET / HTTP/1.1\r\nHost: murre\r\n\r\n".to_vec();
        let len = head.len();
        let mut position = HeadPosition::default();
        for seen in 1..len {
            assert_eq!(position.head(&head[..seen], 100), Ok(None), "{seen} bytes");
            assert_eq!(position.scanned as usize, seen);
            // The two bytes before a line feed tell what line it ends.
            head[..seen.saturating_sub(3)].fill(b'\n');
        }
        assert_eq!(position.head(&head, 100), Ok(Some(len)));
    }

    /// The search by blocks finds the first line feed at every position.
    #[test]
    fn line_feeds_are_found() {
        for len in 0..70 {
            let mut bytes = vec![b'x'; len];
            assert_eq!(line_feed(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = b'\n';
                assert_eq!(line_feed(&bytes), Some(at), "{len} bytes");
            }
        }
    }

    /// Numbers that overflow become the largest number.
    #[test]
    fn numbers_do_not_wrap() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Some(u64::MAX));
        assert_eq!(decimal(b"100000000000000000000000000000000000"), Some(u64::MAX));
        assert_eq!(decimal(b"000000000000000000000000000000000001"), Some(1));
        assert_eq!(decimal(b""), None);
    }
}
