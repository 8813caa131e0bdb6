//! The threads that hold virtual clients, and their counts.

pub(crate) mod bell;
pub(crate) mod comeback;
pub(crate) mod crew;
pub(crate) mod fleet;
pub(crate) mod score;
