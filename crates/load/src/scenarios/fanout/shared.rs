//! State of the publications in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::engine::wakeups::Wakeups;

/// Publications in flight, shared by all workers.
pub(crate) struct Shared {
    pub(super) wakeups: Arc<Wakeups>,
    channels: Box<[ChannelState]>,
    /// Of each publisher: publications that at least one subscriber lacks.
    in_flight: Box<[AtomicU32]>,
}

pub(super) struct ChannelState {
    pub(super) members: AtomicU32,
    pub(super) published: AtomicU64,
    /// Publications that all subscribers have.
    pub(super) over: AtomicU64,
    /// The publications under way, by number modulo as many.
    pub(super) slots: Box<[Slot]>,
}

#[derive(Default)]
pub(super) struct Slot {
    pub(super) due: AtomicU32,
    /// Subscribers that lack it.
    pub(super) left: AtomicU32,
}

impl Shared {
    /// For so many channels and publishers, with `depth` publications of a channel in flight at most.
    pub(super) fn new(channels: u32, publishers: u32, depth: u32, wakeups: Arc<Wakeups>) -> Shared {
        let channel = || ChannelState {
            members: AtomicU32::new(0),
            published: AtomicU64::new(0),
            over: AtomicU64::new(0),
            slots: (0..depth).map(|_| Slot::default()).collect(),
        };
        Shared {
            wakeups,
            channels: (0..channels).map(|_| channel()).collect(),
            in_flight: (0..publishers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Publications so far that every subscriber has.
    pub(super) fn over(&self) -> u64 {
        self.channels.iter().map(|channel| channel.over.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn channel(&self, channel: u32) -> &ChannelState {
        &self.channels[channel as usize]
    }

    pub(super) fn in_flight(&self, publisher: u32) -> &AtomicU32 {
        &self.in_flight[publisher as usize]
    }
}

impl ChannelState {
    pub(super) fn slot(&self, number: u64) -> &Slot {
        &self.slots[(number % self.slots.len() as u64) as usize]
    }

    /// Whether one more may be under way.
    pub(super) fn has_room(&self) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        published - self.over.load(Ordering::Acquire) < self.slots.len() as u64
    }

    /// One subscriber less waits for a publication. Whether it was the last.
    pub(super) fn delivered(&self, number: u64) -> bool {
        let last = self.slot(number).left.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.over.fetch_add(1, Ordering::Release);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that room for another comes with the last delivery, and that a subscriber who leaves
    /// is not waited for.
    #[test]
    fn a_publication_is_over_when_the_last_has_it() {
        let shared = Shared::new(2, 2, 1, Wakeups::new(4));
        let channel = shared.channel(0);
        channel.slot(0).left.store(2, Ordering::Relaxed);
        channel.published.store(1, Ordering::Relaxed);
        assert!(!channel.has_room() && !channel.delivered(0) && !channel.has_room());
        assert!(channel.delivered(0) && channel.has_room());
        assert_eq!(shared.over(), 1);
    }
}
