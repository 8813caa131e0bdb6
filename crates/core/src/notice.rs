//! Warnings that a crowd can cause: each kind is logged at most once a minute.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One kind of warning, over all threads of the process. Declare it as a `static` beside its log line.
#[derive(Debug)]
pub struct Notice {
    /// Milliseconds on the clock of [`now`]: no line is due before.
    due_ms: AtomicU64,
    /// Occurrences since the last line.
    count: AtomicU64,
}

impl Notice {
    /// From one line of a kind to the next.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    /// A kind of which nothing has occurred.
    #[allow(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Notice { due_ms: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// Counts an occurrence. If a line is due, returns how many occurrences it stands for: this one
    /// and those since the last line. The caller logs it as the field `times`.
    pub fn occurred(&self) -> Option<u64> {
        self.occurred_at(now())
    }

    fn occurred_at(&self, now: Duration) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let (now_ms, due_ms) = (now.as_millis() as u64, self.due_ms.load(Ordering::Relaxed));
        if now_ms < due_ms {
            return None;
        }
        let next_ms = now_ms.saturating_add(Self::INTERVAL.as_millis() as u64);
        // Of threads that find the line due at one time, one logs it.
        let won =
            self.due_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed);
        won.ok().map(|_| self.count.swap(0, Ordering::Relaxed))
    }
}

/// The time since the first notice of the process.
fn now() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first occurrence is logged at once, the next line comes a minute later and counts those
    /// between.
    #[test]
    fn one_line_a_minute() {
        let notice = Notice::new();
        let at = |seconds| notice.occurred_at(Duration::from_secs(seconds));
        assert_eq!(at(5), Some(1));
        assert!((5..65).all(|second| at(second).is_none()));
        assert_eq!(at(65), Some(61));
        assert_eq!([at(66), at(10_000)], [None, Some(2)]);
    }
}
