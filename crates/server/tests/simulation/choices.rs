//! Choices of a run, made by bytes.

use std::ops::{Deref, DerefMut};

use super::bytes;
use super::setup::CHANNELS;

/// The bytes, and the channels that the run is mostly about.
pub(super) struct Choices {
    bytes: bytes::Choices,
    favourites: [usize; 2],
}

impl Choices {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut bytes = bytes::Choices::new(bytes);
        let favourites = [(); 2].map(|()| bytes.index(CHANNELS.len()));
        Choices { bytes, favourites }
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

impl Deref for Choices {
    type Target = bytes::Choices;

    fn deref(&self) -> &bytes::Choices {
        &self.bytes
    }
}

impl DerefMut for Choices {
    fn deref_mut(&mut self) -> &mut bytes::Choices {
        &mut self.bytes
    }
}
