//! Sessions: who they are, how fast they may go and how long they last.

pub(crate) mod auth;
pub(crate) mod expiry;
pub(crate) mod rate;
