//! Names of connections.

/// Names one connection for as long as it lives.
///
/// Slots are used again; the generation tells an old name from a new one, so a name that has
/// outlived its connection resolves to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

/// Generations wrap at 24 bits: what a [`Token`](crate::ring::Token) has room for.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl ConnId {
    /// The name of the connection that has slot `index` in its `generation`-th use.
    pub(crate) fn new(index: u32, generation: u32) -> Self {
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
