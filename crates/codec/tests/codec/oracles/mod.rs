//! What the codec is held against, for any bytes: by the tests here and by the targets in `fuzz/`.

pub(crate) mod frames;
pub(crate) mod proxies;
pub(crate) mod requests;
pub(crate) mod responses;
pub(crate) mod upgrades;

pub(crate) mod listener;
