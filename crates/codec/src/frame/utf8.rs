//! UTF-8 that arrives in pieces.
//!
//! `simdutf8` checks whole characters; this file checks the character at a cut. It fails at the first
//! byte that no valid text can have there, because RFC 6455 section 8.1 requires invalid text to fail
//! the connection, and an early failure saves the rest.

/// The bytes of an incomplete character: at most three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Utf8 {
    bytes: [u8; 3],
    len: u8,
}

/// The text is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utf8Error;

impl Utf8 {
    /// Whether the text so far ends between two characters.
    pub(crate) fn is_whole(self) -> bool {
        self.len == 0
    }

    /// Checks the next piece of the text.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), Utf8Error> {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.push_byte(byte)?;
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else { return Ok(()) };
        // An incomplete character is no error yet.
        if error.error_len().is_some() {
            return Err(Utf8Error);
        }
        let cut = &piece[error.valid_up_to()..];
        self.bytes[..cut.len()].copy_from_slice(cut);
        self.len = cut.len() as u8;
        Ok(())
    }

    /// Adds one byte to the incomplete character.
    fn push_byte(&mut self, byte: u8) -> Result<(), Utf8Error> {
        let have = self.len as usize;
        let mut character = [0; 4];
        character[..have].copy_from_slice(&self.bytes[..have]);
        character[have] = byte;
        match std::str::from_utf8(&character[..=have]) {
            Ok(_) => self.len = 0,
            Err(error) if error.error_len().is_none() => {
                self.bytes[have] = byte;
                self.len += 1;
            }
            Err(_) => return Err(Utf8Error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks a text in pieces of this size. Returns how many bytes precede the piece that fails, if one
    /// does.
    fn refused_after(text: &[u8], size: usize) -> Option<usize> {
        let mut utf8 = Utf8::default();
        text.chunks(size).position(|piece| utf8.push(piece).is_err()).map(|pieces| pieces * size)
    }

    fn is_whole(text: &[u8], size: usize) -> bool {
        let mut utf8 = Utf8::default();
        text.chunks(size).all(|piece| utf8.push(piece).is_ok()) && utf8.is_whole()
    }

    /// The number of bytes that a valid text can begin with, by `std`.
    fn possible_bytes(text: &[u8]) -> usize {
        let impossible = |len: &usize| {
            std::str::from_utf8(&text[..*len]).is_err_and(|error| error.error_len().is_some())
        };
        (1..=text.len()).find(impossible).map_or(text.len(), |len| len - 1)
    }

    /// Every sequence of up to three bytes, and every start of four, has the same result as in `std`
    /// when it arrives byte by byte.
    #[test]
    fn every_short_sequence() {
        // One byte of each class in the syntax of RFC 3629 section 4, and its neighbours.
        let classes = [
            0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1,
            0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        let mut sequences = vec![vec![]];
        for len in 0..5 {
            for sequence in sequences.clone().iter().filter(|sequence| sequence.len() == len) {
                // Sequences that have failed are not extended.
                if possible_bytes(sequence) == len {
                    sequences.extend(classes.map(|byte| [&sequence[..], &[byte]].concat()));
                }
            }
        }
        assert!(sequences.len() > 10_000);
        for text in sequences {
            let valid = std::str::from_utf8(&text).is_ok();
            let possible = possible_bytes(&text);
            let expected = (possible < text.len()).then_some(possible);
            assert_eq!(refused_after(&text, 1), expected, "{text:02x?}");
            for size in 1..=text.len() {
                assert_eq!(is_whole(&text, size), valid, "{text:02x?} in pieces of {size}");
            }
        }
    }

    /// Mostly valid text, with a byte or two out of place.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let wrong = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
        ("\\PC{1,200}", wrong).prop_map(|(text, wrong)| {
            let mut text = text.into_bytes();
            wrong.iter().for_each(|(at, byte)| *at.get_mut(&mut text) = *byte);
            text
        })
    }

    proptest! {
        /// In pieces of any size the result is that of `std`, and the first piece that fails is the one
        /// with the first byte that no text can have there.
        #[test]
        fn as_std_in_any_pieces(text in text(), size in 1..250_usize) {
            prop_assert_eq!(is_whole(&text, size), std::str::from_utf8(&text).is_ok());
            let possible = possible_bytes(&text);
            let piece = possible / size * size;
            let expected = (possible < text.len()).then_some(piece);
            prop_assert_eq!(refused_after(&text, size), expected);
        }
    }
}
