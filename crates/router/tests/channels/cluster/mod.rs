//! Several nodes, each of several shards, whose channels a broker orders.
//!
//! What the broker has ordered in a channel with history is heard by every subscriber that stays or recovers,
//! once and in order, or it is told that something was lost. Nothing waits for ever.

mod broker;
mod cases;
mod oracle;
mod world;

use murre_router::channels::Origin;

use crate::oracles::{number, payload, rules};

pub(crate) use world::run;

/// With history twice, and without.
const CHANNELS: [&str; 3] = ["brief:oldest", "long:oldest", "plain:oldest"];

/// A session that no member has.
const NOBODY: Origin = Origin(u64::MAX);

fn known(channel: &str) -> usize {
    CHANNELS.iter().position(|known| *known == channel).expect("one of these")
}

/// Removes parts of a failing run for as long as it fails.
pub(crate) fn shrink(bytes: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut size = bytes.len() / 2;
    while size > 0 {
        let mut end = bytes.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let mut smaller = bytes.clone();
            smaller.drain(start..end);
            if fails(&smaller) {
                bytes = smaller;
            }
            end = start.min(bytes.len());
        }
        size /= 2;
    }
    bytes
}
