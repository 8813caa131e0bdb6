//! Seeds of simulation runs.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The seeds to run: the one in the environment variable `SEED`, or else the first `SEEDS`, or else
/// the first `count`.
pub fn seeds(count: u64) -> Range<u64> {
    match env_number("SEED") {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..env_number("SEEDS").unwrap_or(count),
    }
}

/// The number in an environment variable, if it is set.
///
/// # Panics
/// If the variable holds anything but a number: the test would otherwise run other seeds than
/// requested.
pub fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The lowest seed for which `fails` returns true; all cores run seeds. Seeds above one that has
/// failed are not run.
pub fn first_failure(seeds: Range<u64>, fails: impl Fn(u64) -> bool + Sync) -> Option<u64> {
    let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    if fails(seed) {
                        end.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let end = end.into_inner();
    (end < seeds.end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If several seeds fail, the lowest is returned, and if none fails, none.
    #[test]
    fn the_lowest_failure_is_found() {
        assert_eq!(first_failure(3..1000, |seed| seed % 100 == 42), Some(42));
        assert_eq!(first_failure(43..1000, |seed| seed % 100 == 42), Some(142));
        assert_eq!(first_failure(0..1000, |_| false), None);
        assert_eq!(first_failure(7..7, |_| true), None);
    }
}
