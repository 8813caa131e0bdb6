//! Descriptions of channels by their owner.

use std::sync::Arc;

use super::history::shared_bytes;
use super::name::ByName;
use super::owner::{Owned, Owner, bytes};
use super::publication::Position;

/// A channel, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The name of the channel.
    pub name: Arc<str>,
    /// Number of subscribers on all shards, pending ones included, to within an eighth.
    pub subscribers: u64,
    /// The position of the newest publication, if the channel keeps history.
    pub position: Option<Position>,
    /// Number of publications in its history.
    pub kept: u64,
    /// Bytes of the history, by the formula of `Stats::history_bytes`.
    pub history_bytes: u64,
}

/// The place at which a listing of channels continues. A listing has no order, but a channel that exists
/// throughout is listed once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u32);

/// Number of keys that one call visits for each channel of its limit, because most keys may be free.
const KEYS_A_CHANNEL: usize = 16;

impl Owner {
    /// Describes the channel under this key, if there is one.
    pub(super) fn info(&self, key: u32) -> Option<ChannelInfo> {
        let (name, Owned { interests, history }) = self.channels.get(key)?;
        Some(ChannelInfo {
            name: name.text.clone(),
            subscribers: interests.iter().map(|interest| u64::from(interest.subscribers)).sum(),
            position: history.as_ref().map(|history| history.position()),
            kept: history.as_ref().map_or(0, |history| history.len() as u64),
            history_bytes: history.as_ref().map_or(0, |history| {
                let slot = ByName::<Owned>::SLOT_BYTES + shared_bytes(name.text.len());
                bytes(slot, history) as u64
            }),
        })
    }

    /// At most `limit` channels from `from` on. Visits a bounded number of keys.
    pub(super) fn list(
        &self,
        Cursor(from): Cursor,
        limit: usize,
    ) -> (Vec<ChannelInfo>, Option<Cursor>) {
        let end = self.channels.keys_end();
        let mut channels = Vec::new();
        let mut key = from;
        while key < end
            && channels.len() < limit
            && ((key - from) as usize) < KEYS_A_CHANNEL * limit
        {
            channels.extend(self.info(key));
            key += 1;
        }
        (channels, (key < end).then_some(Cursor(key)))
    }
}
