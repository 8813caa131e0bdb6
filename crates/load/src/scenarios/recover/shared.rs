//! State shared by all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use murre_record::{Latency, RecoverFacts};

use crate::scenarios::recover::log::{Log, Part};
use crate::scenarios::recover::outages::Outages;

/// State shared by all workers.
pub(crate) struct Shared {
    logs: Box<[Mutex<Log>]>,
    workers: u64,
    /// Workers that publish nothing more.
    finished: AtomicU64,
    /// Publications without an answer.
    pub(super) in_flight: AtomicU64,
    pub(super) counts: Counts,
    pub(super) outages: Outages,
    /// What each subscriber has received.
    parts: Mutex<Vec<Part>>,
    verdict: OnceLock<Verdict>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) published: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unanswered: AtomicU64,
    pub(super) recovered_publications: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// What the oracle finds.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// Deliveries that are missing.
    pub(super) missing: u64,
    /// Publications that are stored twice.
    pub(super) repeated: u64,
    /// Where the first one is missing, in words.
    pub(super) first: Option<String>,
}

impl Shared {
    pub(super) fn new(channels: u32, workers: u64) -> Shared {
        Shared {
            logs: (0..channels).map(|_| Mutex::default()).collect(),
            workers,
            finished: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            counts: Counts::default(),
            outages: Outages::default(),
            parts: Mutex::default(),
            verdict: OnceLock::new(),
        }
    }

    pub(super) fn log(&self, channel: u32) -> MutexGuard<'_, Log> {
        self.logs[channel as usize].lock().expect("no thread panics with it")
    }

    /// A worker publishes nothing more.
    pub(super) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether nothing more is published and all publications are answered.
    pub(super) fn is_over(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.workers
            && self.in_flight.load(Ordering::Acquire) == 0
    }

    /// A worker's subscribers have received these.
    pub(super) fn add(&self, parts: &mut Vec<Part>) {
        self.parts.lock().expect("no thread panics with it").append(parts);
    }

    /// Compares what the subscribers have with what there is.
    pub(super) fn judge(&self) -> &Verdict {
        self.verdict.get_or_init(|| {
            let mut verdict = Verdict::default();
            let logs: Vec<_> =
                (0..self.logs.len() as u32).map(|channel| self.log(channel)).collect();
            verdict.repeated = logs.iter().map(|log| log.repeated()).sum();
            let offsets: Vec<_> = logs.iter().map(|log| log.offsets()).collect();
            for part in self.parts.lock().expect("no thread panics with it").iter() {
                let missing = offsets[part.channel as usize].missing(part);
                verdict.missing += missing;
                if missing > 0 && verdict.first.is_none() {
                    verdict.first = Some(format!("{missing} in {part:?}"));
                }
            }
            verdict
        })
    }

    pub(super) fn facts(
        &self,
        history: bool,
        channels: u32,
        publishers: u32,
        away_us: Latency,
    ) -> RecoverFacts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Verdict { missing, repeated, .. } = self.verdict.get().cloned().unwrap_or_default();
        let (counts, outages) = (&self.counts, self.outages.all());
        RecoverFacts {
            history,
            channels: channels.into(),
            publishers: publishers.into(),
            published: count(&counts.published),
            refused: count(&counts.refused),
            unanswered: count(&counts.unanswered),
            ended: outages.iter().map(|outage| outage.ended).sum(),
            recovered: outages.iter().map(|outage| outage.recovered).sum(),
            told: outages.iter().map(|outage| outage.told).sum(),
            recovered_publications: count(&counts.recovered_publications),
            dropped: count(&counts.dropped),
            missing,
            repeated,
            away_us,
            outages,
        }
    }
}
