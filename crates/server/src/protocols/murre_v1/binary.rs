//! Publications as binary messages: bytes instead of JSON.

use std::str;

use super::errors::{Code, WireError};
use crate::hub::limits::NameLimits;
use crate::hub::{About, ErrorCode};

/// The first byte of both forms: a publication follows.
const PUBLICATION: u8 = 1;

/// Decodes a client's publication: its channel and its payload.
///
/// # Errors
/// The error for a message that is no publication.
pub(crate) fn read<'a>(
    message: &'a [u8],
    limits: &NameLimits,
) -> Result<(&'a str, &'a [u8]), WireError<'a>> {
    let split = || {
        let (&form, rest) = message.split_first()?;
        let (&length, rest) = rest.split_first()?;
        (form == PUBLICATION).then_some(())?;
        rest.split_at_checked(usize::from(length))
    };
    let Some((name, payload)) = split() else {
        return Err(WireError::new(Code::Hub(ErrorCode::BadPublication), FORM));
    };
    let name = str::from_utf8(name)
        .map_err(|_| WireError::new(Code::Hub(ErrorCode::BadChannel), UTF_8))?;
    let name = limits.name(name)?;
    let fits = limits.size(payload.len());
    fits.map_err(|code| WireError::from(code).about(About::Channel(name)))?;
    Ok((name, payload))
}

/// Appends a publication as a subscriber gets it. `offset` counts from 1 and is 0 without history.
pub(crate) fn write(out: &mut Vec<u8>, channel: &str, offset: u64, payload: &[u8]) {
    let length = u8::try_from(channel.len()).expect("a name has at most 255 bytes");
    out.reserve(2 + channel.len() + 8 + payload.len());
    out.extend_from_slice(&[PUBLICATION, length]);
    out.extend_from_slice(channel.as_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(payload);
}

const FORM: &str = "a binary message is one byte 1, one byte with the length of the name of the \
                    channel, that name, the payload";
const UTF_8: &str = "the channel of a binary message is UTF-8";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: NameLimits = NameLimits { max_name_bytes: 10, max_publication_bytes: 5 };

    /// What both ends write, byte by byte, as the document has it.
    #[test]
    fn both_forms() {
        assert_eq!(read(b"\x01\x03a:b\x00\xff", &LIMITS), Ok(("a:b", &b"\x00\xff"[..])));
        assert_eq!(read(b"\x01\x01a", &LIMITS), Ok(("a", &b""[..])));
        let mut out = b"before".to_vec();
        write(&mut out, "a:b", 0x0102, b"\x00\xff");
        assert_eq!(out, b"before\x01\x03a:b\x00\x00\x00\x00\x00\x00\x01\x02\x00\xff");
    }

    /// The longest name that the protocol knows fits its one byte.
    #[test]
    fn the_longest_name() {
        let name = "n".repeat(255);
        let limits = NameLimits { max_name_bytes: 255, ..LIMITS };
        let message = [&[1, 255], name.as_bytes(), b"x"].concat();
        assert_eq!(read(&message, &limits), Ok((name.as_str(), &b"x"[..])));
        let mut out = Vec::new();
        write(&mut out, &name, 0, b"x");
        assert_eq!(out.len(), 2 + 255 + 8 + 1);
    }

    /// Everything else is refused: other forms, ends that come too soon, names that cannot be, and
    /// more than the limits have room for.
    #[test]
    fn wrong_ones_are_refused() {
        for (message, code) in [
            (&b""[..], ErrorCode::BadPublication),
            (b"\x01", ErrorCode::BadPublication),
            (b"\x00\x01ax", ErrorCode::BadPublication),
            (b"\x02\x01ax", ErrorCode::BadPublication),
            (b"\x01\x02a", ErrorCode::BadPublication),
            (b"\x01\xffa", ErrorCode::BadPublication),
            (b"\x01\x00x", ErrorCode::BadChannel),
            (b"\x01\x01\xff", ErrorCode::BadChannel),
            (b"\x01\x01\x00x", ErrorCode::BadChannel),
            (b"\x01\x0babcdefghijkx", ErrorCode::BadChannel),
            (b"\x01\x01a123456", ErrorCode::BadPublication),
        ] {
            let refused = read(message, &LIMITS).expect_err("it is wrong");
            assert_eq!(refused.code, Code::Hub(code), "{message:?}");
        }
        assert_eq!(read(b"\x01\x01a12345", &LIMITS), Ok(("a", &b"12345"[..])));
    }
}
