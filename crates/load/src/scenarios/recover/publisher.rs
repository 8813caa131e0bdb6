//! One publisher, which outlives its connections.

use std::time::{Duration, Instant};

use murre_core::ConnId;

use crate::engine::pace::Pace;

/// A client that publishes. Its numbers are its own, and none is used twice.
pub(super) struct Publisher {
    /// Among all publishers of the run.
    number: u32,
    publishers: u32,
    /// How many channels it publishes to.
    channels: u32,
    pub(super) conn: Option<ConnId>,
    /// The node of its connection.
    pub(super) node: usize,
    pace: Pace,
    /// The number of its next publication.
    pub(super) next: u64,
    /// Publications without an answer.
    pub(super) in_flight: u32,
}

impl Publisher {
    /// Publisher `number` of so many, with `rate` publications a second of all of them.
    pub(super) fn new(number: u32, publishers: u32, channels: u32, rate: f64) -> Publisher {
        Publisher {
            number,
            publishers,
            channels: (channels - number).div_ceil(publishers),
            conn: None,
            node: 0,
            pace: Pace::new(rate / f64::from(publishers), BURST),
            next: 0,
            in_flight: 0,
        }
    }

    /// The channel of a publication: its channels take turns.
    pub(super) fn channel(&self, number: u64) -> u32 {
        self.number + (number % u64::from(self.channels)) as u32 * self.publishers
    }

    /// When it publishes again, if nothing else must happen first.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let may = self.conn.is_some() && self.in_flight < IN_FLIGHT_MAX;
        may.then(|| self.pace.allows(now).err().unwrap_or(now))
    }

    /// One more is published. Returns its number.
    pub(super) fn take(&mut self, now: Instant) -> u64 {
        self.pace.take(1, now);
        self.next += 1;
        self.next - 1
    }
}

/// Publications that may wait for their answer: while the cluster is out of order, they take seconds.
const IN_FLIGHT_MAX: u32 = 4096;

/// How much of its rate it may catch up on at once.
const BURST: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that each channel has one publisher, and that a publisher's channels take turns.
    #[test]
    fn channels_take_turns() {
        let channels = |number| {
            let publisher = Publisher::new(number, 2, 5, 100.0);
            (0..4).map(|number| publisher.channel(number)).collect::<Vec<_>>()
        };
        assert_eq!((channels(0), channels(1)), (vec![0, 2, 4, 0], vec![1, 3, 1, 3]));
    }
}
