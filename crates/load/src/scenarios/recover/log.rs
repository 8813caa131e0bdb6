//! The publications of one channel, as the answers to publishers and the subscribers tell them; and what each
//! subscriber has received of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::client::channel::Position;

/// The publications of one channel.
#[derive(Default)]
pub(super) struct Log {
    /// By epoch and offset: the publication's number.
    numbers: HashMap<(u32, u64), u64>,
    /// The position of the newest publication that was answered.
    newest: Option<Position>,
}

impl Log {
    /// Publication `number` has this position. An error if another one has it.
    pub(super) fn received(&mut self, position: Position, number: u64) -> Result<(), String> {
        let Position { epoch, offset } = position;
        match *self.numbers.entry((epoch, offset)).or_insert(number) {
            known if known == number => Ok(()),
            known => Err(format!("publication {number} has the offset {offset} of {known}")),
        }
    }

    /// A publisher was told the position.
    pub(super) fn published(&mut self, position: Position, number: u64) -> Result<(), String> {
        let newer =
            |newest: Position| newest.epoch != position.epoch || newest.offset < position.offset;
        if self.newest.is_none_or(newer) {
            self.newest = Some(position);
        }
        self.received(position, number)
    }

    pub(super) fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// Publications that have two positions.
    pub(super) fn repeated(&self) -> u64 {
        let different: HashSet<_> = self.numbers.values().collect();
        (self.numbers.len() - different.len()) as u64
    }

    /// The offsets in order.
    pub(super) fn offsets(&self) -> Offsets {
        let mut offsets: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for &(epoch, offset) in self.numbers.keys() {
            offsets.entry(epoch).or_default().push(offset);
        }
        offsets.values_mut().for_each(|offsets| offsets.sort_unstable());
        Offsets(offsets)
    }
}

/// The offsets of a channel's publications, by epoch.
pub(super) struct Offsets(BTreeMap<u32, Vec<u64>>);

/// A part of a channel of which a subscriber must have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) channel: u32,
    pub(super) epoch: u32,
    /// It begins behind this offset, and ends with that one.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Publications that the subscriber has received.
    pub(super) received: u64,
}

impl Offsets {
    /// Publications of the part that its subscriber has not received.
    pub(super) fn missing(&self, part: &Part) -> u64 {
        let Some(offsets) = self.0.get(&part.epoch) else { return 0 };
        let until = |offset| offsets.partition_point(|&at| at <= offset);
        (until(part.to).saturating_sub(until(part.from)) as u64).saturating_sub(part.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a publication counts once whoever tells it, that offsets may be far apart, and what is found
    /// missing, repeated and contradictory.
    #[test]
    fn a_part_must_have_all_that_anybody_knows_of() {
        let mut log = Log::default();
        let at = |offset| Position { epoch: 7, offset };
        assert_eq!(log.received(at(9), 1), Ok(()));
        assert_eq!(log.published(at(5), 0), Ok(()));
        assert_eq!(log.published(at(5), 0), Ok(()));
        assert_eq!(log.published(at(40), 2), Ok(()));
        assert_eq!(log.published(at(30), 3), Ok(()));
        assert_eq!(log.newest(), Some(at(40)));
        assert!(log.received(at(9), 4).is_err());
        assert_eq!(log.repeated(), 0);
        let offsets = log.offsets();
        let missing = |from, to, received| {
            offsets.missing(&Part { channel: 0, epoch: 7, from, to, received })
        };
        assert_eq!((missing(0, 40, 4), missing(0, 40, 3), missing(0, 39, 3)), (0, 1, 0));
        assert_eq!((missing(5, 30, 2), missing(4, 30, 2), missing(40, 40, 0)), (0, 1, 0));
        assert_eq!(offsets.missing(&Part { channel: 0, epoch: 8, from: 0, to: 9, received: 0 }), 0);
        log.published(at(41), 2).expect("another offset");
        assert_eq!(log.repeated(), 1);
    }
}
