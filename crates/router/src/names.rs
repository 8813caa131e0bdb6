//! Names that the caller and the router share.

/// A connection: a dense small number that the caller chooses. It lets the member leave before it
/// uses the number again.
pub type Member = u32;

/// One of the shards, which are numbered from 0.
pub type Shard = u16;

/// Names a command of the caller's, and comes back with its outcome.
pub type Ticket = u32;
