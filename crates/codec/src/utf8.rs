//! UTF-8 that arrives in pieces.
//!
//! Whole text goes through `simdutf8`; what is left to this file is the character that a cut goes
//! through. It fails at the first byte that no valid text can have there (RFC 6455 section 8.1 asks
//! for invalid text to be refused, and the earlier the better).

/// The bytes of a character whose rest is still to come: at most three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Utf8 {
    bytes: [u8; 3],
    len: u8,
}

/// The text is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

impl Utf8 {
    /// Whether the text so far ends between two characters.
    pub(crate) fn is_whole(self) -> bool {
        self.len == 0
    }

    /// Takes the next piece of the text.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), Invalid> {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.push_byte(byte)?;
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else { return Ok(()) };
        // A cut character is not an error yet.
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        let cut = &piece[error.valid_up_to()..];
        self.bytes[..cut.len()].copy_from_slice(cut);
        self.len = cut.len() as u8;
        Ok(())
    }

    /// Adds one byte to the cut character.
    fn push_byte(&mut self, byte: u8) -> Result<(), Invalid> {
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
            Err(_) => return Err(Invalid),
        }
        Ok(())
    }
}
