//! Names of connections.

use std::fmt;
use std::str::FromStr;

/// Names one connection for as long as it lives.
///
/// Slots are used again; the generation tells an old name from a new one, so a name that has
/// outlived its connection resolves to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

/// `INDEX-GENERATION`: a name that people and other programs can give back.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.generation)
    }
}

impl FromStr for ConnId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (index, generation) = text.split_once('-').ok_or(())?;
        let number = |digits: &str| digits.parse().map_err(|_| ());
        let (index, generation) = (number(index)?, number(generation)?);
        if generation > GENERATION_MASK { Err(()) } else { Ok(ConnId { index, generation }) }
    }
}

/// Generations wrap at 24 bits: what a [`Token`](crate::ring::Token) has room for.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl ConnId {
    /// The name of the connection that has slot `index` in its `generation`-th use.
    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        ConnId { index, generation: generation & GENERATION_MASK }
    }

    /// The connection's slot: unique among the connections that a shard has at one time.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Which use of the slot this is, modulo 2^24.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The name of the next connection in the same slot.
    pub(crate) fn next(self) -> Self {
        ConnId::new(self.index, self.generation + 1)
    }
}
