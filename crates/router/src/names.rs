//! Numbers that the caller and the router share.

/// A connection: a small number that the caller chooses, as an index. The caller lets the member leave
/// before it uses the number again.
pub type Member = u32;

/// The number of a shard, from 0.
pub type Shard = u16;

/// The caller's number of a command. The outcome of the command carries it.
pub type Ticket = u32;
