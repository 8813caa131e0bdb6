//! Who delivers much, where several shards share a core: one of them at a time.
//!
//! A shard that delivers to thousands keeps its core busy for long. Were all shards of a core to do
//! so at once, each would have its connections wait for the slices of all others. So one has the
//! floor for the deliveries of a turn, then the next. The others sleep until something arrives for
//! them or it is their turn, and a thread that slept is soon given its core.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use murre_router::Shard;

/// The floors of all cores.
pub(crate) struct Floors {
    floors: Box<[Mutex<Floor>]>,
    /// By shard, the floor of its core.
    of: Box<[usize]>,
}

/// One core's.
#[derive(Default)]
struct Floor {
    speaker: Option<Shard>,
    /// Each once, in the order in which they came.
    waiting: VecDeque<Shard>,
}

impl Floors {
    /// For shards that run on these cores.
    pub(crate) fn new(cores: &[usize]) -> Self {
        let mut known = cores.to_vec();
        known.sort_unstable();
        known.dedup();
        let place = |core| known.binary_search(core).expect("each is among them");
        Floors {
            of: cores.iter().map(place).collect(),
            floors: known.iter().map(|_| Mutex::default()).collect(),
        }
    }

    fn of(&self, shard: Shard) -> MutexGuard<'_, Floor> {
        let floor = &self.floors[self.of[usize::from(shard)]];
        // Nothing can panic while the lock is held.
        floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the shard has the floor. If not, [`pass`](Self::pass) will name it.
    pub(crate) fn take(&self, shard: Shard) -> bool {
        let mut floor = self.of(shard);
        let speaker = *floor.speaker.get_or_insert(shard);
        if speaker != shard && !floor.waiting.contains(&shard) {
            floor.waiting.push_back(shard);
        }
        speaker == shard
    }

    /// The shard, which has the floor, has said its part; it waits for its next one if there is
    /// `more`. Who has the floor now, if another has.
    pub(crate) fn pass(&self, shard: Shard, more: bool) -> Option<Shard> {
        let mut floor = self.of(shard);
        debug_assert_eq!(floor.speaker, Some(shard), "it has the floor");
        let next = floor.waiting.pop_front();
        match next {
            Some(_) if more => floor.waiting.push_back(shard),
            None if more => return None,
            _ => {}
        }
        floor.speaker = next;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_of_a_core_at_a_time_and_all_in_turn() {
        // Shows that a core's floor goes round, that another core's is its own, that who asks twice
        // waits once, and that the last to have something keeps it.
        let floors = Floors::new(&[4, 7, 4, 7, 4]);
        assert!(floors.take(0) && floors.take(0) && floors.take(1));
        assert!(!floors.take(2) && !floors.take(4) && !floors.take(2));
        assert_eq!(floors.pass(0, true), Some(2));
        assert!(!floors.take(0) && floors.take(2));
        assert_eq!(floors.pass(2, false), Some(4));
        assert_eq!(floors.pass(4, true), Some(0));
        assert_eq!(floors.pass(0, false), Some(4));
        assert_eq!(floors.pass(4, true), None);
        assert!(floors.take(4));
        assert_eq!(floors.pass(4, false), None);
        assert!(floors.take(2), "it was free");
        assert!(floors.take(1), "untouched meanwhile");
    }
}
