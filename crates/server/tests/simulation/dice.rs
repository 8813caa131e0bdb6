//! Choices of a run, made by bytes.

use std::ops::{Deref, DerefMut};

use super::bytes;
use super::setup::CHANNELS;

/// The bytes, and the channels that the run is mostly about.
pub(super) struct Dice {
    bytes: bytes::Dice,
    favourites: [usize; 2],
}

impl Dice {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut bytes = bytes::Dice::new(bytes);
        let favourites = [(); 2].map(|()| bytes.index(CHANNELS.len()));
        Dice { bytes, favourites }
    }

    /// A channel: of four, three are one of the first two.
    pub(super) fn channel(&mut self) -> String {
        let index = match self.number(8) {
            0..4 => self.favourites[0],
            4..6 => self.favourites[1],
            _ => self.index(CHANNELS.len()),
        };
        CHANNELS[index].to_owned()
    }
}

impl Deref for Dice {
    type Target = bytes::Dice;

    fn deref(&self) -> &bytes::Dice {
        &self.bytes
    }
}

impl DerefMut for Dice {
    fn deref_mut(&mut self) -> &mut bytes::Dice {
        &mut self.bytes
    }
}
