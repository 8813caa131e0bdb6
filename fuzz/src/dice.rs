//! Choices made by bytes: those of a fuzzer, or those that follow from a seed. Included by the
//! oracles that do something of their own accord.

use std::collections::VecDeque;

/// As many throws as there are bytes; then everything is the first choice.
pub(crate) struct Dice(VecDeque<u8>);

impl Dice {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Dice(bytes.iter().copied().collect())
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    /// Below `end`, which is at most 256.
    pub(crate) fn number(&mut self, end: u32) -> u32 {
        assert!((1..=256).contains(&end), "a byte chooses");
        u32::from(self.0.pop_front().unwrap_or(0)) % end
    }

    /// Into something of this length.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.number(len.clamp(1, 256) as u32) as usize
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.number(2) == 1
    }
}
