//! The published texts.

use std::fmt::Write as _;

/// The published data: a string of JSON, with the number of the publication and its channel in front.
pub(super) struct Texts {
    filler: String,
    text: String,
    of: Option<(u32, u64)>,
}

impl Texts {
    pub(super) fn new(payload_bytes: u32) -> Texts {
        let filler = ('a'..='z').cycle().take(payload_bytes as usize + 26).collect();
        Texts { filler, text: String::with_capacity(payload_bytes as usize), of: None }
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
            let mut texts = Texts::new(bytes);
            let text = texts.data(3, 70_000).to_owned();
            assert_eq!(text.len(), bytes as usize);
            let inner: String = serde_json::from_str(&text).expect("JSON");
            assert!(inner.starts_with("000000000001117000000003"), "{inner}");
            assert_ne!(texts.data(3, 70_001), text);
            assert_ne!(texts.data(4, 70_000), text);
            assert_eq!(texts.data(3, 70_000), text);
        }
    }
}
