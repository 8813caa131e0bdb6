//! State shared by all workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use murre_record::ChurnFacts;

/// State shared by all workers.
pub(crate) struct Shared {
    /// Of each channel: publications so far.
    sent: Box<[AtomicU64]>,
    /// Nothing more will be published.
    pub(super) over: AtomicBool,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) subscribed: AtomicU64,
    pub(super) unsubscribed: AtomicU64,
    pub(super) reconnected: AtomicU64,
    pub(super) recovered: AtomicU64,
    pub(super) recovered_publications: AtomicU64,
    pub(super) unrecovered: AtomicU64,
    pub(super) published: AtomicU64,
}

impl Shared {
    pub(super) fn new(channels: u32) -> Shared {
        let sent = (0..channels).map(|_| AtomicU64::new(0)).collect();
        Shared { sent, over: AtomicBool::new(false), counts: Counts::default() }
    }

    pub(super) fn facts(&self) -> ChurnFacts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        ChurnFacts {
            published: count(&counts.published),
            subscribed: count(&counts.subscribed),
            unsubscribed: count(&counts.unsubscribed),
            reconnected: count(&counts.reconnected),
            recovered: count(&counts.recovered),
            recovered_publications: count(&counts.recovered_publications),
            unrecovered: count(&counts.unrecovered),
        }
    }

    pub(super) fn sent(&self, channel: u32) -> &AtomicU64 {
        &self.sent[channel as usize]
    }
}

pub(super) fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
