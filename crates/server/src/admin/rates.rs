//! How fast the totals grow: one sample a second, eleven of them kept.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::series::{Kind, SERIES, ShardCounters};

/// How often a sample is taken.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The samples of the last ten seconds, oldest first.
pub(crate) struct Rates(VecDeque<Sample>);

struct Sample {
    at: Instant,
    totals: [u64; SERIES.len()],
}

/// How much one number grew per second.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Rate {
    last_second: f64,
    last_ten_seconds: f64,
}

impl Rates {
    /// No samples yet.
    pub(crate) fn new() -> Self {
        Rates(VecDeque::with_capacity(SAMPLES_MAX))
    }

    /// Takes a sample of all shards together.
    pub(crate) fn sample(&mut self, at: Instant, shards: &[ShardCounters]) {
        let total = |index: usize| shards.iter().map(SERIES[index].value).sum();
        self.push(Sample { at, totals: std::array::from_fn(total) });
    }

    /// The rates of all numbers that only grow, by name.
    pub(crate) fn by_name(&self) -> Vec<(&'static str, Rate)> {
        let totals = SERIES.iter().enumerate().filter(|(_, series)| series.kind == Kind::Total);
        totals
            .map(|(index, series)| {
                let rate = |samples| self.rate(index, samples);
                let last_ten_seconds = rate(SAMPLES_MAX - 1);
                (series.name, Rate { last_second: rate(1), last_ten_seconds })
            })
            .collect()
    }

    fn push(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Growth per second over the last `intervals`, or over as many as there are.
    fn rate(&self, index: usize, intervals: usize) -> f64 {
        let Some(last) = self.0.back() else { return 0.0 };
        let first = &self.0[self.0.len().saturating_sub(1 + intervals)];
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds == 0.0 {
            return 0.0;
        }
        (last.totals[index] - first.totals[index]) as f64 / seconds
    }
}

/// Ten intervals lie between so many samples.
const SAMPLES_MAX: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    /// One second's rate follows the last sample; ten seconds' rate evens out what came before.
    #[test]
    fn rates_cover_one_and_ten_seconds() {
        let mut rates = Rates::new();
        assert_eq!(rates.rate(1, 1), 0.0);
        let start = Instant::now();
        for second in 0..30 {
            let mut totals = [0; SERIES.len()];
            totals[1] = if second == 29 { 1000 } else { second };
            rates.push(Sample { at: start + Duration::from_secs(second), totals });
        }
        assert_eq!(rates.rate(1, 1), 972.0);
        assert_eq!(rates.rate(1, 10), (1000.0 - 19.0) / 10.0);
        assert_eq!(rates.0.len(), SAMPLES_MAX);
    }
}
