//! The acts of the scenarios that hold their connections in several: what happens in each, and what
//! the record says of it.

use std::time::Duration;

/// A part of the hold phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// The connections do what they always do.
    Quiet,
    /// storm: all but those who stay are reset in one moment.
    Kill,
    /// storm: they come back, each at a random moment of `over`.
    Return { over: Duration },
    /// abuse, soak: visitors come, one after the other.
    Visit,
    /// abuse, soak: those who are there are reset, and the server is left alone.
    Settle,
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Act::Quiet => "quiet",
            Act::Kill => "kill",
            Act::Return { .. } => "return",
            Act::Visit => "visit",
            Act::Settle => "settle",
        }
    }
}
