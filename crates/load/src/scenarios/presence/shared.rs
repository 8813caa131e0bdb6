//! The members that there are, and counts of what clients were told: shared by all workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use murre_record::{Latency, PresenceCount, PresenceFacts};

/// The state that all workers share. Connection `i` is of channel `i` modulo the channels, in the place
/// `i` divided by the channels.
pub(crate) struct Shared {
    channels: u32,
    /// By connection: the number of its last join, which is its metadata; 0 while it is away.
    joins: Box<[AtomicU32]>,
    /// By connection: a hash of the name that the server has for it; 0 until it is known.
    names: Box<[AtomicU64]>,
    /// Commands without an answer.
    pub(super) in_flight: AtomicU32,
    pub(super) tallies: Tallies,
}

/// Counts for the record.
#[derive(Default)]
pub(super) struct Tallies {
    pub(super) joins: AtomicU64,
    pub(super) leaves: AtomicU64,
    pub(super) states: AtomicU64,
    pub(super) diffs: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) counts: AtomicU64,
    pub(super) exact: AtomicU64,
}

impl Shared {
    pub(super) fn new(conns: u32, channels: u32) -> Shared {
        Shared {
            channels,
            joins: (0..conns).map(|_| AtomicU32::new(0)).collect(),
            names: (0..conns).map(|_| AtomicU64::new(0)).collect(),
            in_flight: AtomicU32::new(0),
            tallies: Tallies::default(),
        }
    }

    pub(super) fn channels(&self) -> u32 {
        self.channels
    }

    /// The connection in a place of a channel, if there is one.
    pub(super) fn connection(&self, channel: u32, place: usize) -> Option<u32> {
        let number = place as u64 * u64::from(self.channels) + u64::from(channel);
        (number < self.joins.len() as u64).then_some(number as u32)
    }

    /// The places of a channel.
    pub(super) fn places(&self, channel: u32) -> usize {
        (self.joins.len() - channel as usize).div_ceil(self.channels as usize)
    }

    /// A connection joins for the `join`-th time, or with 0 leaves.
    pub(super) fn set(&self, connection: u32, join: u32) {
        self.joins[connection as usize].store(join, Ordering::Release);
    }

    /// The members of a channel: by place, the number of the last join, or 0.
    pub(super) fn members(&self, channel: u32) -> impl Iterator<Item = u32> {
        let all = self.joins.iter().skip(channel as usize).step_by(self.channels as usize);
        all.map(|join| join.load(Ordering::Acquire))
    }

    /// How many members there are in all channels.
    pub(super) fn members_all(&self) -> u64 {
        self.joins.iter().filter(|join| join.load(Ordering::Acquire) > 0).count() as u64
    }

    /// Whether the server has always had this name for a connection.
    pub(super) fn is_named(&self, connection: u32, name: &str) -> bool {
        // FNV-1a, and never 0.
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        }) | 1;
        let known = &self.names[connection as usize];
        let before = known.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed);
        before.map_or_else(|before| before == hash, |_| true)
    }

    pub(super) fn facts(
        &self,
        members: Option<PresenceCount>,
        beside_us: Option<Latency>,
    ) -> PresenceFacts {
        let Tallies { joins, leaves, states, diffs, changes, counts, exact } = &self.tallies;
        let [joins, leaves, states, diffs, changes, counts, exact] =
            [joins, leaves, states, diffs, changes, counts, exact]
                .map(|count| count.load(Ordering::Relaxed));
        PresenceFacts {
            channels: self.channels.into(),
            joins,
            leaves,
            states,
            diffs,
            changes,
            counts,
            exact,
            members,
            beside_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that each connection has one place, also where the channels do not divide them, and that a name
    /// that changes is noticed.
    #[test]
    fn every_connection_has_a_place() {
        let shared = Shared::new(8, 3);
        let mut all = Vec::new();
        for channel in 0..3 {
            let places = shared.places(channel);
            all.extend((0..places).filter_map(|place| shared.connection(channel, place)));
            assert_eq!(shared.connection(channel, places), None);
            assert_eq!(shared.members(channel).count(), places);
        }
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        shared.set(5, 2);
        assert_eq!(shared.members(2).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(shared.members_all(), 1);
        assert!(shared.is_named(5, "0-1-1") && shared.is_named(5, "0-1-1"));
        assert!(!shared.is_named(5, "0-1-2") && shared.is_named(4, "0-1-2"));
    }
}
