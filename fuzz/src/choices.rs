//! Choices made by bytes, which come from a fuzzer or from a seed. The oracles that make choices of
//! their own include this file.

use std::collections::VecDeque;

/// One choice for each byte; without further bytes every choice is the first.
pub(crate) struct Choices(VecDeque<u8>);

impl Choices {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Choices(bytes.iter().copied().collect())
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    /// A number below `end`, which is at most 256.
    pub(crate) fn number(&mut self, end: u32) -> u32 {
        assert!((1..=256).contains(&end), "a byte chooses");
        u32::from(self.0.pop_front().unwrap_or(0)) % end
    }

    /// An index into a sequence of this length.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.number(len.clamp(1, 256) as u32) as usize
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.number(2) == 1
    }
}
