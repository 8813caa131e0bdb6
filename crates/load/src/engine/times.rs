//! Latencies of one worker's virtual clients, which the main thread collects at the end.

use hdrhistogram::Histogram;
use murre_record::{CountedFrom, Latency};

/// The hold phase's times, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// From request to answer; of publications from the server, since they were sent.
    pub(crate) latency: Histogram<u64>,
    /// Of publications, until the last subscriber had them.
    pub(crate) over: Histogram<u64>,
    /// Of the pings of connections beside.
    pub(crate) beside: Histogram<u64>,
    /// The same as `latency`, of each phase: where there are several.
    pub(crate) phases: Vec<Histogram<u64>>,
}

impl Times {
    pub(crate) fn none() -> Times {
        let [latency, over, beside] = [(); 3].map(|()| empty_histogram());
        Times { latency, over, beside, phases: Vec::new() }
    }

    pub(crate) fn add(&mut self, other: &Times) {
        let own = [&mut self.latency, &mut self.over, &mut self.beside];
        for (own, other) in own.into_iter().zip([&other.latency, &other.over, &other.beside]) {
            own.add(other).expect("histograms with the same bounds");
        }
        let phases = self.phases.len().max(other.phases.len());
        self.phases.resize_with(phases, empty_histogram);
        for (own, other) in self.phases.iter_mut().zip(&other.phases) {
            own.add(other).expect("histograms with the same bounds");
        }
    }
}

/// 1 us to 71 minutes, three digits.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, u64::from(u32::MAX), 3).expect("constant bounds that are valid")
}

/// The quantiles of a histogram, for the record.
pub(crate) fn latency(histogram: &Histogram<u64>, counted_from: CountedFrom) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Latency {
        counted_from,
        count: histogram.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        max: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows which numbers of the histogram the record takes, in microseconds.
    #[test]
    fn a_latency_has_the_quantiles_of_its_histogram() {
        let mut histogram = empty_histogram();
        (1..=1000).for_each(|micros| histogram.record(micros).unwrap());
        let latency = latency(&histogram, CountedFrom::Due);
        assert_eq!((latency.count, latency.p50, latency.p99, latency.max), (1000, 500, 990, 1000));
    }
}
