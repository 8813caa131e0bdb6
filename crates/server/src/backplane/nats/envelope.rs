//! A publication on its way through NATS: what a node needs beside the bytes.
//!
//! ```text
//!   1 byte    version: 1
//!   1 byte    flags: 1 binary, 2 not for one session
//!   4 bytes   length of the side data, little endian, as all numbers
//!   8 bytes   the node's incarnation    with flag 2
//!   8 bytes   the session               with flag 2
//!   rest      side data and data
//! ```

use murre_router::channels::{Form, Origin, Payload};

use crate::protocols::json::Validator;

/// A session that does not get a publication, and the incarnation of its node.
pub(super) type Except = (u64, Origin);

const VERSION: u8 = 1;
const BINARY: u8 = 1;
const EXCEPT: u8 = 2;

/// Wraps a publication.
pub(super) fn wrap(payload: &Payload, except: Option<Except>) -> Vec<u8> {
    let binary = if payload.form == Form::Binary { BINARY } else { 0 };
    let flags = binary | if except.is_some() { EXCEPT } else { 0 };
    let mut bytes = Vec::with_capacity(payload.bytes.len().saturating_add(22));
    bytes.extend_from_slice(&[VERSION, flags]);
    bytes.extend_from_slice(&payload.side_len.to_le_bytes());
    if let Some((incarnation, Origin(origin))) = except {
        bytes.extend_from_slice(&incarnation.to_le_bytes());
        bytes.extend_from_slice(&origin.to_le_bytes());
    }
    bytes.extend_from_slice(&payload.bytes);
    bytes
}

/// What an envelope has; `None` if it is none, as what others than nodes have published.
pub(super) fn open(bytes: &[u8], validator: &mut Validator) -> Option<(Payload, Option<Except>)> {
    let (&[version, flags], rest) = bytes.split_first_chunk()?;
    if version != VERSION || flags & !(BINARY | EXCEPT) != 0 {
        return None;
    }
    let (side_len, mut rest) = rest.split_first_chunk()?;
    let side_len = u32::from_le_bytes(*side_len);
    let mut except = None;
    if flags & EXCEPT != 0 {
        let (incarnation, more) = rest.split_first_chunk()?;
        let (origin, more) = more.split_first_chunk()?;
        except = Some((u64::from_le_bytes(*incarnation), Origin(u64::from_le_bytes(*origin))));
        rest = more;
    }
    let data = rest.get(side_len as usize..)?;
    let form = if flags & BINARY == 0 { Form::Json } else { Form::Binary };
    // Clients must be able to read it.
    if form == Form::Json && validator.check(data).is_err() {
        return None;
    }
    Some((Payload { form, side_len, bytes: rest.into() }, except))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is wrapped comes out again.
    #[test]
    fn what_is_wrapped_comes_out() {
        for (form, side_len, bytes, except) in [
            (Form::Json, 0, &b"{\"a\":1}"[..], None),
            (Form::Json, 2, b"\x01e[]", Some((7, Origin(u64::MAX)))),
            (Form::Binary, 0, b"", Some((0, Origin(0)))),
            (Form::Binary, 1, b"\xff", None),
        ] {
            let payload = Payload { form, side_len, bytes: bytes.into() };
            assert_eq!(
                open(&wrap(&payload, except), &mut Validator::default()),
                Some((payload, except))
            );
        }
    }

    /// What is no envelope is refused: another version, unknown flags, a side longer than the bytes, no JSON.
    #[test]
    fn what_is_no_envelope_is_refused() {
        for wrong in [
            &b""[..],
            b"hello",
            b"\x01",
            b"\x02\0\0\0\0\0{}",
            b"\x01\x04\0\0\0\0{}",
            b"\x01\0\x03\0\0\0{}",
            b"\x01\0\xff\xff\xff\xff{}",
            b"\x01\0\0\0\0\0{",
            b"\x01\0\0\0\0\0",
            b"\x01\0\0\0\0\0\xff",
            b"\x01\x03\0\0\0\0",
        ] {
            assert_eq!(open(wrong, &mut Validator::default()), None, "{wrong:?}");
        }
    }

    proptest! {
        /// No bytes cause a panic, and what is taken as an envelope is one.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = bytes;
            bytes.splice(0..0, [1, 1]);
            if let Some((payload, except)) = open(&bytes, &mut Validator::default()) {
                prop_assert!(payload.side_len as usize <= payload.bytes.len());
                prop_assert_eq!(wrap(&payload, except), bytes);
            }
        }
    }
}
