//! The growth rates of totals. The sampler takes one sample of all totals a second and keeps
//! eleven.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The time between two samples.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Samples totals, and keeps the samples of the last ten seconds.
pub(crate) struct Sampler {
    /// Reads every total, always in the same order.
    read: Box<dyn Fn() -> Vec<u64> + Send + Sync>,
    samples: Mutex<Samples>,
}

/// The growth of a total per second.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Rate {
    last_second: f64,
    last_ten_seconds: f64,
}

/// The samples, oldest first.
#[derive(Default)]
struct Samples(VecDeque<Sample>);

struct Sample {
    at: Instant,
    totals: Vec<u64>,
}

impl Sampler {
    /// A sampler of the totals that `read` reads, always in the same order.
    pub(crate) fn new(read: impl Fn() -> Vec<u64> + Send + Sync + 'static) -> Self {
        Sampler { read: Box::new(read), samples: Mutex::default() }
    }

    /// Takes a sample at the time `at`.
    pub(crate) fn sample(&self, at: Instant) {
        self.samples().push(Sample { at, totals: (self.read)() });
    }

    /// The rates of all totals, in the order in which `read` gives them; empty before the first
    /// sample.
    pub(crate) fn rates(&self) -> Vec<Rate> {
        let samples = self.samples();
        let totals = samples.0.back().map_or(0, |last| last.totals.len());
        let rate = |index| Rate {
            last_second: samples.rate(index, 1),
            last_ten_seconds: samples.rate(index, SAMPLES_MAX - 1),
        };
        (0..totals).map(rate).collect()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        // A sample is pushed whole or not at all, so the samples are valid after a panic.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samples {
    fn push(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The growth of the total at `index` per second over the last `intervals`, or over all
    /// intervals if there are fewer.
    fn rate(&self, index: usize, intervals: usize) -> f64 {
        let Some(last) = self.0.back() else { return 0.0 };
        let first = &self.0[self.0.len().saturating_sub(1 + intervals)];
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds == 0.0 {
            return 0.0;
        }
        last.totals[index].saturating_sub(first.totals[index]) as f64 / seconds
    }
}

/// Ten intervals lie between eleven samples.
const SAMPLES_MAX: usize = 11;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// The rate of one second comes from the last two samples; the rate of ten seconds is the mean
    /// over ten intervals.
    #[test]
    fn rates_cover_one_and_ten_seconds() {
        static TOTAL: AtomicU64 = AtomicU64::new(0);
        let sampler = Sampler::new(|| vec![7, TOTAL.load(Ordering::Relaxed)]);
        assert_eq!(sampler.rates(), []);
        let start = Instant::now();
        for second in 0..30 {
            TOTAL.store(if second == 29 { 1000 } else { second }, Ordering::Relaxed);
            sampler.sample(start + Duration::from_secs(second));
        }
        let still = Rate { last_second: 0.0, last_ten_seconds: 0.0 };
        let grown = Rate { last_second: 972.0, last_ten_seconds: (1000.0 - 19.0) / 10.0 };
        assert_eq!(sampler.rates(), [still, grown]);
        assert_eq!(sampler.samples().0.len(), SAMPLES_MAX);
    }
}
