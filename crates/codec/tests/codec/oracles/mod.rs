//! The oracles of the codec for any bytes; the tests here and the targets in `fuzz/` use them.

pub(crate) mod frames;
pub(crate) mod proxies;
pub(crate) mod requests;
pub(crate) mod responses;
pub(crate) mod upgrades;

pub(crate) mod listener;
