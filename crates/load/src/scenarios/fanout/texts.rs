//! The published texts.

use std::fmt::Write as _;

use crate::client::Difference;
use crate::client::channel::ServerMessage;

/// The published data: a string of JSON, with the number of the publication and its channel in front.
pub(super) struct Texts {
    kept: bool,
    filler: String,
    text: String,
    of: Option<(u32, u64)>,
    /// The message found to be right last, its channel and its number: most subscribers receive the same.
    right: (Vec<u8>, u32, u64),
}

impl Texts {
    /// Of so many bytes, for channels with history if they are `kept`.
    pub(super) fn new(payload_bytes: u32, kept: bool) -> Texts {
        let filler = ('a'..='z').cycle().take(payload_bytes as usize + 26).collect();
        Texts {
            kept,
            filler,
            text: String::with_capacity(payload_bytes as usize),
            of: None,
            right: Default::default(),
        }
    }

    pub(super) fn data(&mut self, channel: u32, number: u64) -> &str {
        if self.of != Some((channel, number)) {
            self.of = Some((channel, number));
            self.text.clear();
            // Writing to a string does not fail.
            let _ = write!(self.text, "\"{number:016x}{channel:08x}");
            let rest = (self.filler.len() - 26).saturating_sub(self.text.len() + 1);
            let from = (number % 26) as usize;
            self.text.push_str(&self.filler[from..from + rest]);
            self.text.push('"');
        }
        &self.text
    }

    /// Whether a text is that of publication `number` of the channel which was found to be right last.
    pub(super) fn was_right(&self, text: &[u8], channel: u32, number: u64) -> bool {
        (self.right.1, self.right.2) == (channel, number) && self.right.0 == text
    }

    /// Checks that a text, read as `message`, is publication `number` of the channel; the error says what it is
    /// instead.
    pub(super) fn check(
        &mut self,
        text: &[u8],
        message: &ServerMessage<'_, &str>,
        channel: u32,
        number: u64,
    ) -> Result<(), String> {
        let identifier = identifier(channel, self.kept);
        let expected = self.data(channel, number);
        // Without the quotes: its letters need no escapes.
        let expected = &expected[1..expected.len() - 1];
        let got = message.data.unwrap_or_default();
        if message.identifier != identifier || got != expected {
            let difference = Difference { expected: expected.as_bytes(), got: got.as_bytes() };
            return Err(format!("of {}, publication {number}: {difference}", message.identifier));
        }
        self.right = (text.to_owned(), channel, number);
        Ok(())
    }
}

pub(super) fn identifier(channel: u32, kept: bool) -> String {
    let namespace = if kept { "kept:" } else { "" };
    format!("{namespace}fanout-{channel}")
}

/// The least that a publication may have: its numbers, in quotes.
pub(super) const PAYLOAD_BYTES_MIN: u32 = 26;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the length from the least on, that they are JSON, and that numbers and channels differ.
    #[test]
    fn publications_are_as_long_as_they_should_be_and_differ() {
        for bytes in [PAYLOAD_BYTES_MIN, 128, 1400] {
            let mut texts = Texts::new(bytes, false);
            let text = texts.data(3, 70_000).to_owned();
            assert_eq!(text.len(), bytes as usize);
            let inner: String = serde_json::from_str(&text).expect("JSON");
            assert!(inner.starts_with("000000000001117000000003"), "{inner}");
            assert_ne!(texts.data(3, 70_001), text);
            assert_ne!(texts.data(4, 70_000), text);
            assert_eq!(texts.data(3, 70_000), text);
        }
    }

    /// Shows that a text with another number, channel or byte is refused, whether it is parsed or compared
    /// with the last right text.
    #[test]
    fn a_publication_must_be_the_next_of_its_channel() {
        let message = |channel, data: &str| {
            let identifier = identifier(channel, false);
            format!(r#"{{"type":"publication","identifier":"{identifier}","data":{data}}}"#)
        };
        let mut texts = Texts::new(128, false);
        let is = |texts: &mut Texts, text: &str, channel, number| {
            let message = ServerMessage::read(text.as_bytes()).expect("JSON");
            texts.was_right(text.as_bytes(), channel, number)
                || texts.check(text.as_bytes(), &message, channel, number).is_ok()
        };
        let data = texts.data(1, 7).to_owned();
        let right = message(1, &data);
        for _ in 0..2 {
            assert!(is(&mut texts, &right, 1, 7));
            for (channel, number) in [(1, 6), (1, 8), (2, 7)] {
                assert!(!is(&mut texts, &right, channel, number));
            }
            for wrong in [message(2, &data), message(1, &data.replace("abc", "abd"))] {
                assert!(!is(&mut texts, &wrong, 1, 7), "{wrong}");
            }
        }
        assert!(texts.was_right(right.as_bytes(), 1, 7));
    }
}
