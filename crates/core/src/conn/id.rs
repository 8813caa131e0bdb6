//! Ids of connections.

use std::fmt;
use std::str::FromStr;

/// Identifies one connection of a shard for as long as it lives.
///
/// Slots are used again. The generation tells the connections of one slot apart, so the id of a
/// connection that is gone resolves to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

/// Writes `INDEX-GENERATION`, which [`FromStr`] reads.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.generation)
    }
}

/// Reads `INDEX-GENERATION`. Any other text is an error.
impl FromStr for ConnId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (index, generation) = text.split_once('-').ok_or(())?;
        let number = |digits: &str| digits.parse().map_err(|_| ());
        let (index, generation) = (number(index)?, number(generation)?);
        if generation > GENERATION_MASK { Err(()) } else { Ok(ConnId { index, generation }) }
    }
}

/// Generations have 24 bits: a [`Token`](crate::ring::Token) has room for no more.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl ConnId {
    /// The connection in slot `index` in the `generation`-th use of the slot.
    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        ConnId { index, generation: generation & GENERATION_MASK }
    }

    /// The slot: unique among the connections that a shard has at one time.
    pub fn index(self) -> u32 {
        self.index
    }

    /// How often the slot has been used before, modulo 2^24.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The next connection in the same slot.
    pub(crate) fn next(self) -> Self {
        ConnId::new(self.index, self.generation + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id is read back from its text, and no other text is an id.
    #[test]
    fn ids_are_read_back() {
        for conn in [ConnId::new(0, 0), ConnId::new(7, 12), ConnId::new(u32::MAX, (1 << 24) - 1)] {
            assert_eq!(conn.to_string().parse(), Ok(conn));
        }
        for text in ["", "-", "1", "1-", "-1", "1-2-3", "1-16777216", "4294967296-0", "a-0", "1 -2"]
        {
            assert_eq!(text.parse::<ConnId>(), Err(()), "{text}");
        }
    }
}
